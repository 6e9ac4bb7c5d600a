"""Types by distance: the same numbers as squidpy gives for each image alone."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import squidpy as sq

import nextmarker as nm
from tests.tl.test_neighborhood import make_table


def test_each_image_has_the_numbers_that_squidpy_gives_for_it_alone():
    adata = make_table()
    nm.tl.co_occurrence(adata, distances=[10, 25, 60])
    table = adata.uns["co_occurrence"]
    for name in ("core 0", "core 1", "core 2"):
        image = adata[adata.obs["image"] == name].copy()
        ratios, _ = sq.gr.co_occurrence(image, "cell_type", interval=[0, 10, 25, 60], copy=True)
        ours = table[table["image"] == name]["ratio"].to_numpy().reshape(3, 3, 3)
        np.testing.assert_array_equal(ours, ratios.swapaxes(0, 1))


def test_absent_types_and_types_without_neighbours_are_missing():
    adata = make_table(sizes=(60, 60))
    first = (adata.obs["image"] == "core 0") & (adata.obs["cell_type"] == "M")
    adata.obs.loc[first, "cell_type"] = "T"
    nm.tl.co_occurrence(adata, distances=[1e-6, 100])
    table = adata.uns["co_occurrence"].set_index(["image", "distance"]).sort_index()
    assert table.loc[("core 0", 1e-6), "ratio"].isna().all()
    far = table.loc[("core 0", 100)]
    assert (far["ratio"].isna() == ((far["cell_type"] == "M") | (far["neighbor"] == "M"))).all()
    np.testing.assert_allclose(far["ratio"].dropna(), 1, atol=0.1)
    assert table.loc[("core 1", 100), "ratio"].notna().all()


@pytest.mark.parametrize("store", ["h5ad", "zarr"])
def test_survives_files_and_refuses_wrong_distances(tmp_path, store):
    adata = make_table(sizes=(30,))
    with pytest.raises(ValueError, match="positive and ascending"):
        nm.tl.co_occurrence(adata, distances=[20, 10])
    assert not adata.uns
    nm.tl.co_occurrence(adata, distances=[20])
    path = tmp_path / f"table.{store}"
    adata.write_h5ad(path) if store == "h5ad" else adata.write_zarr(path)
    again = ad.read_h5ad(path) if store == "h5ad" else ad.read_zarr(path)
    pd.testing.assert_frame_equal(again.uns["co_occurrence"], adata.uns["co_occurrence"])
