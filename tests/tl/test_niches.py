"""Niches: planted ones are found over all images, in the right number."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextmarker as nm

TYPES = ["A", "B", "C", "D"]
SHARES = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.05, 0.05, 0.45, 0.45], [0.25, 0.25, 0.25, 0.25]])


def make_table(n_images=3, n_cells=500, seed=0):
    """Images with four stripes, each with other shares of the types; the embedding is the type with noise."""
    rng = np.random.default_rng(seed)
    parts = []
    for number in range(n_images):
        x, y = rng.uniform(0, [400, 100], (n_cells, 2)).T
        stripe = np.minimum(x // 100, 3).astype(int)
        types = np.array([rng.choice(4, p=SHARES[own]) for own in stripe])
        obs = pd.DataFrame({"image": f"core {number}", "cell_type": np.array(TYPES)[types], "stripe": stripe})
        values = np.eye(4)[types] + rng.normal(0, 0.3, (n_cells, 4))
        obs.index = [f"{number}_{row}" for row in range(n_cells)]
        parts.append(ad.AnnData(obs=obs, obsm={"spatial": np.column_stack([x, y]), "X_nextmarker": values}))
    adata = ad.concat(parts)
    return adata[rng.permutation(adata.n_obs)].copy()


def purity(adata, key="niche"):
    return pd.crosstab(adata.obs["stripe"], adata.obs[key]).max(axis=1).sum() / adata.obs[key].notna().sum()


@pytest.mark.parametrize("use_rep", [None, "X_nextmarker"])
def test_finds_planted_niches_and_their_number(use_rep, capsys):
    adata = make_table()
    nm.tl.niches(adata, use_rep=use_rep, n_niches=range(3, 8))
    niches = adata.obs["niche"]
    assert niches.cat.categories.tolist() == ["0", "1", "2", "3"]
    assert purity(adata) > 0.8
    sizes = niches.value_counts(sort=False).tolist()
    assert sizes == sorted(sizes, reverse=True)
    assert len(adata.uns["niche_colors"]) == 4
    record = adata.uns["nextmarker"]["niches"]
    assert record["tried"].tolist() == list(range(3, 8))
    assert record["stability"].argmax() == 1
    assert "4 niches are the most stable of 3 to 7" in capsys.readouterr().out


def test_warns_if_there_are_no_niches():
    adata = make_table(n_images=1)
    adata.obs["cell_type"] = np.random.default_rng(1).permutation(adata.obs["cell_type"])
    with pytest.warns(UserWarning, match="No number of niches is stable"):
        nm.tl.niches(adata, use_rep=None)


def test_composition_counts_the_types_of_each_niche():
    adata = make_table()
    adata.obs.loc[adata.obs_names[:50], "cell_type"] = np.nan
    nm.tl.niches(adata, n_niches=4, key_added="place")
    assert adata.obs["place"].notna().all()
    table = adata.uns["place_composition"]
    counts = pd.crosstab(adata.obs["place"], adata.obs["cell_type"])
    np.testing.assert_array_equal(table["n_cells"], counts.to_numpy().ravel())
    np.testing.assert_allclose(table["share"], counts.div(counts.sum(axis=1), axis=0).to_numpy().ravel())
    overall = adata.obs["cell_type"].value_counts(normalize=True)
    np.testing.assert_allclose(table["share_of_all"], overall.loc[table["cell_type"].astype(str)])
    assert "tried" not in adata.uns["nextmarker"]["niches_place"]


def test_surroundings_are_the_cells_within_some_links_in_the_same_image():
    """A cell at either end of a row of two types, in two images one on top of the other."""
    obs = pd.DataFrame({"image": np.repeat(["P1", "P2"], 10), "cell_type": np.repeat(["A", "B", "B", "A"], 5)})
    xy = np.column_stack([np.tile(np.arange(10.0), 2), np.zeros(20)])
    adata = ad.AnnData(obs=obs.set_axis([f"cell_{row}" for row in range(20)]), obsm={"spatial": xy})
    nm.tl.niches(adata, use_rep=None, graph="radius", radius=1, n_hops=1, n_niches=[2])
    assert (pd.crosstab(adata.obs["cell_type"], adata.obs["niche"]) > 0).sum().sum() == 2
    nm.tl.niches(adata, use_rep=None, graph="radius", radius=1, n_hops=3, n_niches=3)
    middle = adata.obs["niche"].to_numpy().reshape(2, 10)
    assert (middle[0] == middle[1][::-1]).all()
    assert middle[0][4] == middle[0][5] != middle[0][0]


def test_the_same_seed_gives_the_same_niches_and_a_second_run_replaces_them():
    adata = make_table(n_images=2, n_cells=200)
    nm.tl.niches(adata, n_niches=4)
    first = adata.obs["niche"].copy()
    nm.tl.niches(adata, n_niches=3)
    assert adata.obs["niche"].nunique() == 3
    nm.tl.niches(adata, n_niches=4)
    pd.testing.assert_series_equal(adata.obs["niche"], first)


def test_cells_without_an_image_or_neighbours_have_no_niche():
    adata = make_table(n_images=2, n_cells=200)
    few = adata.obs_names[(adata.obs["image"] == "core 1").to_numpy()]
    adata = adata[~adata.obs_names.isin(few[4:])].copy()
    lost = adata.obs_names[(adata.obs["image"] == "core 0").to_numpy()][:3]
    adata.obs.loc[lost, "image"] = np.nan
    with pytest.warns(UserWarning, match="too few cells to link them, so these have no niche: 'core 1'"):
        nm.tl.niches(adata, n_niches=4)
    assert set(adata.obs_names[adata.obs["niche"].isna()]) == {*few[:4], *lost}


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_files(tmp_path, store):
    adata = make_table(n_images=2, n_cells=200)
    nm.tl.niches(adata, n_niches=[3, 4])
    path = tmp_path / f"table.{store}"
    adata.write_h5ad(path) if store == "h5ad" else adata.write_zarr(path)
    again = ad.read_h5ad(path) if store == "h5ad" else ad.read_zarr(path)
    pd.testing.assert_frame_equal(again.uns["niche_composition"], adata.uns["niche_composition"])
    nm.tl.niches(again, n_niches=[3, 4])
    pd.testing.assert_series_equal(again.obs["niche"], adata.obs["niche"])
    assert nm.pl.composition(again, "niche").get_legend().get_title().get_text() == "niche"


def test_errors_leave_the_table_as_it_is():
    adata = make_table(n_images=1, n_cells=60)
    before = adata.copy()
    for error, match, options in [
        (KeyError, "use_rep=None", {"use_rep": "X_pca"}),
        (KeyError, "groupby=", {"groupby": "type"}),
        (ValueError, "n_hops=0", {"n_hops": 0}),
        (ValueError, "n_niches=1", {"n_niches": 1}),
        (ValueError, "too few for 40 niches.*n_niches=", {"n_niches": 40}),
        (ValueError, "too few for 12 niches", {"graph": "radius", "radius": 1e-6}),
        (ValueError, "did not write 'stripe'", {"key_added": "stripe"}),
    ]:
        with pytest.raises(error, match=match):
            nm.tl.niches(adata, **options)
    adata.obsm["X_nextmarker"][0] = np.inf
    with pytest.raises(ValueError, match="X_nextmarker.*not finite"):
        nm.tl.niches(adata)
    assert not adata.uns
    pd.testing.assert_frame_equal(adata.obs, before.obs)
