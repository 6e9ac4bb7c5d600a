"""Clusters that are renamed or merged, and what was computed from them."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scanpy.plotting.palettes import default_20

import nextmarker as nm


def make_table():
    """Four clusters of 30 cells, with their embedding, attribution and colours."""
    rng = np.random.default_rng(0)
    names = np.array(["0", "1", "2", "3"]).repeat(30)
    activation = rng.random((120, 4)) + np.eye(4).repeat(30, axis=0) * 3
    adata = ad.AnnData(
        obs=pd.DataFrame({"image": ["a", "b"] * 60}, index=[f"cell_{row}" for row in range(120)]),
        var=pd.DataFrame(index=["CD3", "CD20", "CD68", "PanCK"]),
        obsm={"X_nextmarker": activation, "X_interpretability": activation},
        layers={"interpretability": activation.copy()},
        varm={"nextmarker_crosstalk": np.eye(4)},
    )
    nm.tl.cluster(adata, n_neighbors=10, resolution=0.3)
    assert (pd.crosstab(adata.obs["nextmarker"], names).max() == 30).all()
    nm.tl.marker_attribution(adata, threshold=2.0)
    adata.uns["nextmarker_colors"] = default_20[:4]
    return adata


def test_a_new_name_keeps_place_colour_and_attribution():
    adata = make_table()
    before = adata.uns["marker_attribution"].copy()
    nm.tl.rename_clusters(adata, {"2": "B cell"})
    assert adata.obs["nextmarker"].cat.categories.tolist() == ["0", "1", "B cell", "3"]
    assert list(adata.uns["nextmarker_colors"]) == default_20[:4]
    pd.testing.assert_frame_equal(adata.uns["marker_attribution"], before)
    assert nm.get.top_markers(adata)["cluster"].cat.categories.tolist() == ["0", "1", "B cell", "3"]


def test_merged_clusters_have_the_attribution_of_all_their_cells():
    adata = make_table()
    expected = adata.copy()
    expected.obs["nextmarker"] = expected.obs["nextmarker"].astype(str).replace({"1": "T", "3": "T"}).astype("category")
    nm.tl.marker_attribution(expected, threshold=2.0, key_added="expected")
    nm.tl.rename_clusters(adata, {"1": "T", "3": "T"})
    assert adata.obs["nextmarker"].cat.categories.tolist() == ["0", "T", "2"]
    assert list(adata.uns["nextmarker_colors"]) == [default_20[0], default_20[1], default_20[2]]
    order = ["cluster", "marker"]
    got, wanted = (
        table.astype({"cluster": str, "marker": str}).sort_values(order, ignore_index=True)
        for table in (adata.uns["marker_attribution"], expected.uns["expected"])
    )
    pd.testing.assert_frame_equal(got, wanted)
    assert nm.get.top_markers(adata)["cluster"].cat.categories.tolist() == ["0", "T", "2"]
    assert adata.uns["nextmarker"]["cluster"]["largest_image"].shape == (3,)


@pytest.mark.parametrize(("threshold", "above"), [(None, "median"), (2.0, "threshold")])
def test_merged_clusters_keep_their_thresholds(threshold, above):
    adata = make_table()
    nm.tl.marker_attribution(adata, threshold=threshold)
    before = adata.uns["nextmarker"]["marker_attribution"]
    nm.tl.rename_clusters(adata, {"1": "T", "3": "T"})
    after = adata.uns["nextmarker"]["marker_attribution"]
    assert before["above"] == after["above"] == above
    np.testing.assert_array_equal(before["threshold"], after["threshold"])


def test_a_new_column_leaves_the_clusters_alone():
    adata = make_table()
    nm.tl.rename_clusters(adata, {"1": "T", "3": "T"}, key_added="type")
    assert adata.obs["nextmarker"].cat.categories.tolist() == ["0", "1", "2", "3"]
    assert adata.obs["type"].cat.categories.tolist() == ["0", "T", "2"]
    assert len(nm.get.top_markers(adata, n=1)) == 4
    nm.tl.rename_clusters(adata, {"2": "T"}, groupby="type", key_added="type")  # merges with another cluster
    assert adata.obs["type"].cat.categories.tolist() == ["0", "T"]
    record = adata.uns["nextmarker"]["rename_clusters_type"]
    assert (record["before"].tolist(), record["after"].tolist()) == (["0", "T", "2"], ["0", "T", "T"])


def test_cells_without_a_cluster_stay_without():
    adata = make_table()
    adata.obs.loc["cell_5", "nextmarker"] = np.nan
    nm.tl.rename_clusters(adata, {"1": "T"})
    assert adata.obs["nextmarker"].isna().sum() == 1


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_files(tmp_path, store):
    adata = make_table()
    nm.tl.rename_clusters(adata, {"1": "T", "3": "T"})
    path = tmp_path / f"table.{store}"
    getattr(adata, f"write_{store}")(path)
    again = getattr(ad, f"read_{store}")(path)
    nm.tl.rename_clusters(again, {"T": "T cell"})
    assert nm.get.top_markers(again)["cluster"].cat.categories.tolist() == ["0", "T cell", "2"]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"names": {"9": "T"}}, KeyError, "No cluster '9'"),
        ({"names": {"0": "T"}, "groupby": "leiden"}, KeyError, "'leiden'"),
        ({"names": {"a": "T"}, "groupby": "image"}, ValueError, "astype"),
        ({"names": {"0": "T"}, "key_added": "image"}, ValueError, "did not write 'image'"),
    ],
)
def test_bad_arguments_change_nothing(arguments, error, problem):
    adata = make_table()
    before = adata.copy()
    with pytest.raises(error, match=problem.replace("'", r"\\?'")):
        nm.tl.rename_clusters(adata, **arguments)
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_merging_without_the_embedding_changes_nothing():
    adata = make_table()
    del adata.obsm["X_nextmarker"]
    with pytest.raises(KeyError, match="X_nextmarker.*embed"):
        nm.tl.rename_clusters(adata, {"1": "T", "3": "T"})
    assert adata.obs["nextmarker"].cat.categories.tolist() == ["0", "1", "2", "3"]
