"""Clusters of one image, and images with unusual markers, against known truth."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextmarker as nm


def make_table(sizes=(400, 300, 200, 200, 100, 100), seed=0):
    """Three types at random in six images; type "rare" has 12 cells."""
    rng = np.random.default_rng(seed)
    image = rng.permutation(np.repeat([f"P{number}" for number in range(len(sizes))], sizes))
    kind = rng.choice(["T", "B", "M"], len(image)).astype(object)
    kind[:12] = "rare"
    level = {"T": [1.0, 0.0], "B": [0.0, 1.0], "M": [0.3, 0.3], "rare": [2.0, 2.0]}
    values = np.array([level[own] for own in kind]) + rng.normal(0, 0.2, (len(image), 2))
    obs = pd.DataFrame({"image": image, "cell_type": pd.Categorical(kind)}).set_axis(
        [f"c{i}" for i in range(len(kind))]
    )
    var = pd.DataFrame(index=["CD3", "CD20"])
    return AnnData(values, obs=obs, var=var, layers={"interpretability": values.copy()})


def test_even_clusters_of_any_size_have_an_entropy_of_about_one():
    found = []
    for seed in range(20):
        table = nm.get.batches(make_table(seed=seed), "cell_type").set_index("cluster")
        assert not table["is_one"].any()
        found.append(table["entropy"])
    np.testing.assert_allclose(pd.concat(found, axis=1).mean(axis=1), 1, atol=0.05)


def test_exact_and_approximate_expectations_agree(monkeypatch):
    adata = make_table()
    exact = nm.get.batches(adata, "cell_type")["entropy"]
    monkeypatch.setattr("nextmarker.get._batches.EXACT", 0)
    approximate = nm.get.batches(adata, "cell_type")
    large = approximate["n_cells"] > 100
    np.testing.assert_allclose(approximate["entropy"][large], exact[large], rtol=1e-3)


def test_clusters_of_one_image_are_found():
    adata = make_table()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories(["own", "unused"])
    adata.obs.loc[(adata.obs["image"] == "P3") & (adata.obs["cell_type"] == "M"), "cell_type"] = "own"
    adata.obs.loc[adata.obs_names[20:30], "image"] = np.nan
    table = nm.get.batches(adata, "cell_type").set_index("cluster")
    assert table.index.tolist() == ["B", "M", "T", "rare", "own"]
    assert table.index[table["is_one"]].tolist() == ["own"]
    assert table.loc["own", ["largest", "share", "entropy", "n_batches"]].tolist() == ["P3", 1, 0, 1]
    assert table["n_cells"].sum() == 1290
    known = adata.obs["image"].dropna()
    assert table.loc["own", "share_of_all"] == pytest.approx((known == "P3").mean())


def test_an_image_with_another_staining_stands_out_whatever_its_cells():
    adata = make_table()
    bright = (adata.obs["image"] == "P4").to_numpy()
    adata.layers["interpretability"][bright, 1] += 0.5
    tumour = (adata.obs["image"] == "P1").to_numpy() & (adata.obs["cell_type"] == "B").to_numpy()
    adata = adata[~tumour].copy()  # an image without B cells has less CD20, but is not unusual
    table = nm.get.unusual_images(adata, "cell_type")
    assert table.loc["0", ["image", "marker"]].tolist() == ["P4", "CD20"]
    assert table.loc["0", "difference"] == pytest.approx(0.5, abs=0.1)
    others = table[(table["image"] != "P4") | (table["marker"] != "CD20")]
    assert others["difference"].abs().max() < 0.1
    assert len(table) == 12


def test_images_that_cannot_be_compared_are_nan():
    adata = make_table(sizes=(300, 300, 9))
    table = nm.get.unusual_images(adata, "cell_type", use_rep="X").set_index("image")
    assert table.loc["P2", ["difference", "z"]].isna().all(axis=None)
    assert table.loc["P0", "difference"].notna().all()
    assert table["z"].isna().all()  # two images only
    alone = nm.get.unusual_images(make_table(sizes=(100,)), "cell_type")
    assert alone["difference"].isna().all()


def test_errors():
    adata = make_table()
    with pytest.raises(KeyError, match="batch_key="):
        nm.get.batches(adata, "cell_type", batch_key="patient")
    with pytest.raises(KeyError, match="groupby="):
        nm.get.unusual_images(adata)
    adata.obsm["X_pca"] = np.zeros((adata.n_obs, 5))
    with pytest.raises(KeyError, match="No layer 'X_pca'.*use_rep="):
        nm.get.unusual_images(adata, "cell_type", use_rep="X_pca")
