"""Neighbours of cell types: the numbers that squidpy gives for each image alone, and nothing where there is nothing."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import squidpy as sq

import nextmarker as nm

LINKED = {
    "knn": ({"n_neighbors": 5}, lambda image: sq.gr.spatial_neighbors_knn(image, n_neighs=5)),
    "radius": ({"radius": 9.0}, lambda image: sq.gr.spatial_neighbors_radius(image, radius=9.0)),
    "delaunay": ({"radius": 30}, lambda image: sq.gr.spatial_neighbors_delaunay(image, radius=30)),
}


def make_table(sizes=(150, 90, 120), types=("B", "T", "M"), seed=0):
    """Images on top of each other, with types at random; cells of different images take turns in the table."""
    rng = np.random.default_rng(seed)
    image = rng.permutation(np.repeat([f"core {number}" for number in range(len(sizes))], sizes))
    obs = pd.DataFrame({"image": image, "cell_type": pd.Categorical(rng.choice(types, len(image)))})
    return ad.AnnData(
        obs=obs.set_axis([f"cell_{row}" for row in range(len(image))]),
        obsm={"spatial": rng.uniform(0, 100, (len(image), 2))},
    )


def matrix(table, image, column):
    return table[table["image"] == image].pivot(index="cell_type", columns="neighbor", values=column).to_numpy()


def dense(n_images=3, n_cells=600, seed=0):
    """Cells of `dense_tissue`, at their true places and with their true types."""
    sdata = nm.datasets.dense_tissue(n_images, n_cells, random_state=seed)
    parts = []
    for name in sdata.images:
        circles = sdata[f"truth_{name}"]
        obs = pd.DataFrame({"image": name, "cell_type": circles["cell_type"].to_numpy()})
        xy = np.column_stack([circles.geometry.x, circles.geometry.y])
        parts.append(ad.AnnData(obs=obs.set_axis([f"{name}_{row}" for row in range(len(obs))]), obsm={"spatial": xy}))
    return ad.concat(parts)


@pytest.mark.parametrize("graph", LINKED)
def test_each_image_has_the_numbers_that_squidpy_gives_for_it_alone(graph):
    adata = make_table()
    options, link = LINKED[graph]
    nm.tl.neighborhood(adata, graph=graph, **options, permutations=50)
    table, record = adata.uns["neighborhood"], adata.uns["nextmarker"]["neighborhood"]
    for name, seed in zip(record["images"], record["seeds"], strict=True):
        image = adata[adata.obs["image"] == name].copy()
        link(image)
        counts = sq.gr.interaction_matrix(image, "cell_type", copy=True)
        enrichment = sq.gr.nhood_enrichment(
            image, "cell_type", n_perms=50, seed=seed, n_jobs=1, show_progress_bar=False, copy=True
        )
        np.testing.assert_array_equal(matrix(table, name, "observed"), counts)
        np.testing.assert_array_equal(matrix(table, name, "observed"), enrichment.counts)
        np.testing.assert_array_equal(matrix(table, name, "z"), enrichment.zscore)
        sizes = image.obs["cell_type"].value_counts(sort=False).to_numpy()
        np.testing.assert_array_equal(matrix(table, name, "n_cells")[:, 0], sizes)
        np.testing.assert_array_equal(matrix(table, name, "n_neighbor_cells")[0], sizes)


def test_expected_links_are_those_of_types_at_random():
    adata = make_table(sizes=(300,))
    nm.tl.neighborhood(adata, permutations=2000)
    table = adata.uns["neighborhood"]
    sizes = matrix(table, "core 0", "n_cells")[:, 0]
    exact = 300 * 6 * (np.outer(sizes, sizes) - np.diag(sizes)) / (300 * 299)
    np.testing.assert_allclose(matrix(table, "core 0", "expected"), exact, rtol=0.01)
    ratio = np.log2((table["observed"] + 1) / (table["expected"] + 1))
    np.testing.assert_allclose(table["log2_ratio"], ratio)


def test_images_do_not_depend_on_each_other_or_on_their_order():
    adata = make_table()
    nm.tl.neighborhood(adata, permutations=20)
    expected = adata.uns["neighborhood"]
    one = adata[adata.obs["image"] == "core 1"].copy()
    one.uns.clear()
    nm.tl.neighborhood(one, permutations=20)
    turned = adata.copy()
    turned.obs["image"] = pd.Categorical(turned.obs["image"], ["core 2", "core 1", "core 0"])
    turned.obs["cell_type"] = turned.obs["cell_type"].cat.reorder_categories(["T", "B", "M"])
    nm.tl.neighborhood(turned, permutations=20)
    for table in (one.uns["neighborhood"], turned.uns["neighborhood"]):
        both = table.astype({"image": str, "cell_type": str, "neighbor": str}).merge(
            expected.astype({"image": str, "cell_type": str, "neighbor": str}), on=["image", "cell_type", "neighbor"]
        )
        assert len(both) == len(table)
        for column in ("observed", "expected", "z"):
            np.testing.assert_array_equal(both[f"{column}_x"], both[f"{column}_y"])
    nm.tl.neighborhood(adata, permutations=20, random_state=1)
    assert (adata.uns["neighborhood"]["expected"] != expected["expected"]).any()


def test_absent_types_lone_cells_and_cells_without_a_type():
    adata = make_table(sizes=(60, 60))
    first = adata.obs["image"] == "core 0"
    adata.obs.loc[first & (adata.obs["cell_type"] == "M"), "cell_type"] = "T"
    adata.obs.loc[adata.obs_names[first][0], "cell_type"] = "M"  # one cell of this type
    second = adata.obs_names[~first & (adata.obs["cell_type"] == "M")]
    adata.obs.loc[second, "cell_type"] = np.nan
    nm.tl.neighborhood(adata, permutations=20)
    table = adata.uns["neighborhood"]
    values = ["observed", "expected", "log2_ratio", "z"]
    own = table[(table["image"] == "core 0") & (table["cell_type"] == "M") & (table["neighbor"] == "M")]
    assert own["n_cells"].item() == 1
    assert own[values].isna().all(axis=None)
    lacking = (table["image"] == "core 1") & ((table["cell_type"] == "M") | (table["neighbor"] == "M"))
    assert table.loc[lacking, values].isna().all(axis=None)
    assert table.loc[lacking & (table["cell_type"] == "M"), "n_cells"].eq(0).all()
    assert table.drop(index=[*own.index, *table.index[lacking]])[values].notna().all(axis=None)

    image = adata[~first].copy()  # cells without a type stay where they are
    sq.gr.spatial_neighbors_knn(image, n_neighs=6)
    counts = sq.gr.interaction_matrix(image, "cell_type", copy=True)
    np.testing.assert_array_equal(matrix(table, "core 1", "observed")[[0, 0, 2, 2], [0, 2, 0, 2]], counts.ravel())


def test_finds_types_that_share_a_habitat():
    adata = dense()
    nm.tl.neighborhood(adata)
    mean = adata.uns["neighborhood"].groupby(["cell_type", "neighbor"], observed=True)[["log2_ratio", "z"]].mean()
    attracted = [("tumour", "tumour"), ("B cell", "B cell"), ("B cell", "T helper"), ("T helper", "B cell")]
    assert (mean.loc[attracted] > [0.3, 2.5]).all(axis=None)
    apart = [("tumour", "T helper"), ("tumour", "cytotoxic T"), ("B cell", "tumour")]
    assert (mean.loc[apart] < [-0.5, -4]).all(axis=None)


def test_finds_nothing_where_types_are_permuted():
    adata = dense()
    rng = np.random.default_rng(0)
    for rows in adata.obs.groupby("image").indices.values():
        adata.obs.iloc[rows, 1] = rng.permutation(adata.obs["cell_type"].iloc[rows])
    nm.tl.neighborhood(adata)
    z = adata.uns["neighborhood"]["z"]
    assert len(z) == 243
    assert z.abs().max() < 4.5
    assert 0.8 < z.std() < 1.2
    common = adata.uns["neighborhood"].query("expected > 30")
    assert common["log2_ratio"].abs().mean() < 0.25


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_files(tmp_path, store):
    adata = make_table()
    nm.tl.neighborhood(adata, permutations=20)
    path = tmp_path / f"table.{store}"
    adata.write_h5ad(path) if store == "h5ad" else adata.write_zarr(path)
    again = ad.read_h5ad(path) if store == "h5ad" else ad.read_zarr(path)
    pd.testing.assert_frame_equal(again.uns["neighborhood"], adata.uns["neighborhood"])
    nm.tl.neighborhood(again, permutations=20)
    pd.testing.assert_frame_equal(again.uns["neighborhood"], adata.uns["neighborhood"])


def test_any_column_of_types_and_images_and_another_name():
    adata = make_table()
    adata.obs["slide"], adata.obs["nextmarker"] = adata.obs["image"].astype(str), adata.obs["cell_type"]
    del adata.obs["image"]
    nm.tl.neighborhood(adata, "nextmarker", image_key="slide", key_added="by_cluster", permutations=20)
    assert len(adata.uns["by_cluster"]) == 3 * 9
    assert adata.uns["nextmarker"]["neighborhood_by_cluster"]["groupby"] == "nextmarker"


def test_images_of_several_patients_with_one_name_are_refused():
    one = make_table(sizes=(60,))
    one.obs["region"], one.obs["instance_id"] = "cells", np.arange(60)
    joined = ad.concat({"P1": one, "P2": one}, label="patient", index_unique="-")
    with pytest.raises(ValueError, match=r"Several images are called 'core 0'.*obs\['patient'\].*image_key='slide'"):
        nm.tl.neighborhood(joined)
    joined.obs["slide"] = joined.obs["patient"].astype(str) + "-" + joined.obs["image"].astype(str)
    nm.tl.neighborhood(joined, image_key="slide", permutations=20)
    joined.obs["region"] = "cells-" + joined.obs["patient"].astype(str)  # as spatialdata.concatenate does
    with pytest.raises(ValueError, match=r"image_key='region'"):
        nm.tl.neighborhood(joined)
    nm.tl.neighborhood(joined, image_key="region", permutations=20)
    table = joined.uns["neighborhood"]
    np.testing.assert_array_equal(*(table.loc[table["image"] == f"cells-P{n}", "observed"] for n in (1, 2)))


def test_images_with_too_few_cells_are_named():
    adata = make_table(sizes=(60, 4))
    with pytest.warns(UserWarning, match="too few cells.*'core 1'"):
        nm.tl.neighborhood(adata, permutations=20)
    table = adata.uns["neighborhood"]
    assert table.loc[table["image"] == "core 1", "observed"].isna().all()
    assert table.loc[table["image"] == "core 1", "n_cells"].sum() == 4 * 3
    adata.obsm["spatial"][adata.obs["image"] == "core 1"] = [[0, 0], [1, 1], [2, 2], [3, 3]]
    with pytest.warns(UserWarning, match="'core 1'"):
        nm.tl.neighborhood(adata, graph="delaunay", permutations=20)
    with pytest.warns(UserWarning, match="'core 0', 'core 1'"):
        nm.tl.neighborhood(adata, graph="radius", radius=1e-6, permutations=20)


def test_errors_leave_the_table_as_it_is():
    adata = make_table()
    adata.uns["mine"] = 1
    for error, match, options in [
        (KeyError, "No column 'type'.*groupby=", {"groupby": "type"}),
        (KeyError, "No column 'slide'.*image_key=", {"image_key": "slide"}),
        (ValueError, "graph='nearest'", {"graph": "nearest"}),
        (ValueError, "radius=None must be a distance", {"graph": "radius"}),
        (ValueError, "radius=5 must be None with graph='knn'", {"radius": 5}),
        (ValueError, "permutations=1 ", {"permutations": 1}),
        (ValueError, "did not write 'mine'", {"key_added": "mine"}),
    ]:
        with pytest.raises(error, match=match):
            nm.tl.neighborhood(adata, **options)
    adata.obsm["spatial"][3] = np.nan
    with pytest.raises(ValueError, match=r"\.obsm\['spatial'\] of 1 cells is not finite"):
        nm.tl.neighborhood(adata)
    del adata.obsm["spatial"]
    with pytest.raises(KeyError, match="spatial"):
        nm.tl.neighborhood(adata)
    assert set(adata.uns) == {"mine"}


def test_a_part_of_a_table_keeps_its_result_to_itself():
    adata = make_table(sizes=(60, 60))
    part = adata[adata.obs["image"] == "core 0"].copy()
    nm.tl.neighborhood(part, permutations=20)
    assert "neighborhood" in part.uns
    assert "neighborhood" not in adata.uns
