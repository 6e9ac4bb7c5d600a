import dask.array as da
import numpy as np
import pytest
import xarray as xr

from nextmarker.pp._labels import label_centroids


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint64])
@pytest.mark.parametrize("tile_size", [7, 1000])
def test_label_centroids(dtype: type, tile_size: int) -> None:
    labels = np.zeros((30, 50), dtype)
    labels[2:5, 10:20] = 7
    labels[6:8, 6:8] = 3
    labels[20:29, 40:45] = 100
    lazy = xr.DataArray(da.from_array(labels, chunks=16), dims=("y", "x"))
    names, area, centres = label_centroids(lazy, tile_size)
    assert names.tolist() == [3, 7, 100]
    assert area.tolist() == [4, 30, 45]
    np.testing.assert_allclose(centres, [[7, 7], [15, 3.5], [42.5, 24.5]])
