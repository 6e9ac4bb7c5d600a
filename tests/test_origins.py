"""Clusters made of one image: found where there are any, and not where the sizes of the images explain them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData, concat, read_h5ad

import nextmarker as nm

MODEL = "0123456789abcdef"


def table(types: np.ndarray, **obs: object) -> AnnData:
    """Cells of types, 0 to 7, that lie clearly apart."""
    rng = np.random.default_rng(0)
    cells = 20 * np.eye(8)[types] + rng.normal(size=(len(types), 8))
    names = [f"cell{row}" for row in range(len(types))]
    return AnnData(obs=pd.DataFrame(obs, index=names), obsm={"X_nextmarker": cells.astype(np.float32)})


def mixed(sizes: dict[str, int], n_types: int = 3, seed: int = 2) -> AnnData:
    """Every type in every image, at random."""
    rng = np.random.default_rng(seed)
    images = rng.permutation(np.repeat(list(sizes), list(sizes.values())))
    return table(rng.integers(n_types, size=len(images)), image=images)


def apart() -> AnnData:
    """One type of 120 cells in both images, and one of 60 and of 50 cells in one image each, but for four cells."""
    types = np.repeat([0, 1, 2], [120, 60, 50])
    images = np.array(["a", "b"] * 60 + ["a"] * 56 + ["b"] * 4 + ["b"] * 50)
    return table(types, image=images)


def cluster(adata: AnnData, **arguments: object) -> list[str]:
    """Cluster into types, and return what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nm.tl.cluster(adata, n_neighbors=15, resolution=0.1, **arguments)
    return [str(warning.message) for warning in caught if "cells come from" in str(warning.message)]


def test_clusters_that_are_images_are_named_with_their_share() -> None:
    adata = apart()
    (message,) = cluster(adata)
    assert message.startswith(
        "In 2 of 3 clusters at least 80 % of the cells come from one image: '1' (93 % 'a'), '2' ("
    )
    assert "'2' (100 % 'b')." in message
    assert "nm.metrics.batch_mixing(adata, 'image')" in message
    record = adata.uns["nextmarker"]["cluster"]
    assert record["largest_image"].tolist() == ["a", "a", "b"]
    np.testing.assert_allclose(record["largest_image_share"], [0.5, 56 / 60, 1])


def test_the_warning_points_to_the_call() -> None:
    with pytest.warns(UserWarning, match="from one image") as caught:
        nm.tl.cluster(apart(), n_neighbors=15, resolution=0.1)
    assert caught[0].filename == __file__


def test_a_few_are_named_and_the_others_counted() -> None:
    types = np.repeat(np.arange(8), 50 - np.arange(8))
    (message,) = cluster(table(types, image=np.array([f"slide_{number}" for number in range(8)])[types]))
    assert "In 8 of 8 clusters" in message
    assert "'0' (100 % 'slide_0'), '1' (100 % 'slide_1'), '2' (100 % 'slide_2') and 5 more." in message


@pytest.mark.parametrize(
    "sizes",
    [
        {"a": 300},
        {"a": 150, "b": 150},
        {"a": 100, "b": 100, "c": 100},
        {"a": 228, "b": 72},  # 76 % of all cells, and by chance 81 % of those of a cluster
        {"a": 270, "b": 30},
    ],
)
def test_mixed_images_are_not_reported_whatever_their_sizes(sizes: dict[str, int]) -> None:
    adata = mixed(sizes)
    assert cluster(adata) == []
    assert adata.obs["nextmarker"].nunique() == 3
    assert ("largest_image" in adata.uns["nextmarker"]["cluster"]) == (len(sizes) > 1)


def test_of_an_image_with_most_of_the_cells_only_the_other_is_reported() -> None:
    types = np.repeat([0, 1, 2], [200, 120, 60])
    (message,) = cluster(table(types, image=np.array(["large", "large", "small"])[types]))
    assert "In 1 of 3 clusters" in message
    assert "'2' (100 % 'small')" in message


def test_a_share_that_the_sizes_nearly_explain_is_not_reported() -> None:
    """The other image has 15 % of the cells of a cluster, which is more than half of its 25 % of all cells."""
    sizes = [(0, 340, 60), (1, 260, 140)]
    types = np.concatenate([[kind] * (a + b) for kind, a, b in sizes])
    images = np.concatenate([["a"] * a + ["b"] * b for _, a, b in sizes])
    assert cluster(table(types, image=images)) == []


def test_few_cells_prove_nothing() -> None:
    """Six cells of one image out of two are one in 64 clusters of six."""
    adata = table(np.repeat([0, 1], [120, 6]), image=np.array(["a", "b"] * 60 + ["a"] * 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nm.tl.cluster(adata, n_neighbors=4, resolution=0.01)
    assert adata.uns["nextmarker"]["cluster"]["largest_image_share"][-1] == 1


def test_a_sample_of_several_images_is_reported_as_such() -> None:
    types = np.repeat([0, 1, 2], [120, 60, 50])
    images = np.array([*["p1_a", "p1_b", "p2_a", "p2_b"] * 30, *["p1_a", "p1_b"] * 30, *["p2_a"] * 50])
    samples = pd.Series(images).str[:2].to_numpy()
    image, sample = cluster(table(types, image=images, sample=samples))
    assert "In 1 of 3 clusters" in image
    assert "one image: '2' (100 % 'p2_a')." in image
    assert "In 1 of 3 clusters" in sample
    assert "one sample: '1' (100 % 'p1')." in sample
    assert "nm.metrics.batch_mixing(adata, 'sample')" in sample


def test_a_sample_of_one_image_is_not_reported_twice() -> None:
    adata = apart()
    adata.obs["sample"] = adata.obs["image"].map({"a": "p1", "b": "p2"})
    (message,) = cluster(adata)
    assert "one image" in message


def test_cells_without_an_image_do_not_count() -> None:
    adata = apart()
    image = adata.obs["image"].astype(object)
    image.iloc[120:150] = np.nan  # 30 of the 60 cells of the second type, of image a
    image.iloc[180:] = ""  # all of the third
    adata.obs["image"] = image.astype("category")
    (message,) = cluster(adata)
    assert "In 1 of 3 clusters" in message
    assert "'1' (87 % 'a')" in message
    record = adata.uns["nextmarker"]["cluster"]
    assert record["largest_image"].tolist() == ["a", "a", ""]
    np.testing.assert_allclose(record["largest_image_share"], [0.5, 26 / 30, np.nan])


def none(adata: AnnData) -> None:
    del adata.obs["image"]


def unknown(adata: AnnData) -> None:
    adata.obs["image"] = np.nan


def unknown_categories(adata: AnnData) -> None:
    adata.obs["image"] = pd.Categorical([None] * adata.n_obs, categories=["a", "b"])


def unused_category(adata: AnnData) -> None:
    adata.obs["image"] = pd.Categorical(["a"] * adata.n_obs, categories=["a", "b"])


@pytest.mark.parametrize("change", [none, unknown, unknown_categories, unused_category])
def test_tables_without_several_images_are_clustered_as_before(change: Callable[[AnnData], None]) -> None:
    adata = apart()
    change(adata)
    assert cluster(adata) == []
    assert not {"largest_image", "largest_image_share"} & set(adata.uns["nextmarker"]["cluster"])


@pytest.mark.parametrize("names", [[1, 2], [1.5, 2.5], [True, False], ["1", 1], [("a", 0), ("b", 0)], [[1], [2]]])
def test_names_of_images_may_be_anything(names: list) -> None:
    adata = apart()
    adata.obs["image"] = pd.Series([names[image == "b"] for image in adata.obs["image"]], adata.obs_names, dtype=object)
    assert len(cluster(adata)) == (names != ["1", 1])  # "1" and 1 are one name


def test_a_subset_is_judged_by_the_cells_that_are_left() -> None:
    adata = apart()
    cluster(adata)
    part = adata[adata.obs["nextmarker"] != "2"].copy()
    (message,) = cluster(part)
    assert "In 1 of 2 clusters" in message
    one = adata[adata.obs["image"] == "a"].copy()
    assert cluster(one) == []
    assert "largest_image" not in one.uns["nextmarker"]["cluster"]


def test_joined_tables_are_judged_by_the_images_of_all() -> None:
    adata = apart()
    adata.obs["nextmarker_embedding"] = pd.Categorical([f"{MODEL}-00000000"] * adata.n_obs)
    adata.obs["image"] = adata.obs["image"].astype("category")
    parts = [adata[adata.obs["image"] == image].copy() for image in ("a", "b")]
    assert [cluster(part) for part in parts] == [[], []]
    joined = concat(parts)
    (message,) = cluster(joined)
    assert "In 2 of 3 clusters" in message


def test_shares_survive_h5ad_and_zarr(tmp_path: Path) -> None:
    adata = apart()
    adata.obs.iloc[180:, 0] = None
    cluster(adata, key_added="types")
    adata.write_h5ad(tmp_path / "table.h5ad")
    sd.SpatialData(tables={"table": adata}).write(tmp_path / "table.zarr")
    for back in (read_h5ad(tmp_path / "table.h5ad"), sd.read_zarr(tmp_path / "table.zarr")["table"]):
        for entry in ("largest_image", "largest_image_share"):
            ours, theirs = (one.uns["nextmarker"]["cluster_types"][entry] for one in (adata, back))
            np.testing.assert_array_equal(ours, theirs)


def test_warnings_as_errors_leave_whole_results() -> None:
    adata = apart()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="one image"):
            nm.tl.cluster(adata, n_neighbors=15, resolution=0.1)
    assert adata.obs["nextmarker"].nunique() == 3
    assert "nextmarker_connectivities" in adata.obsp
