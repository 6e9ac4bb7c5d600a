import numpy as np
import pandas as pd
import pytest
import shapely
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

import nextmarker as nm
from nextmarker._regions import read_regions


def two_images() -> SpatialData:
    images = {
        name: Image2DModel.parse(np.ones((1, 60, 80)), dims=("c", "y", "x"), c_coords=["DNA"]) for name in ("a", "b")
    }
    sdata = SpatialData(images=images)
    frame = pd.DataFrame({"x": [10, 70, 30, 75], "y": [20, 40, 20, 55], "image": ["a", "a", "a", "b"]})
    nm.pp.add_cells(sdata, frame, progress=False)
    sdata["table"].obs["kept"] = ["one", "two", "three", "four"]
    return sdata


def test_cells_outside_go_from_table_and_circles():
    sdata = two_images()
    sdata["cells_a"].loc[0, "geometry"] = shapely.Point(np.nan, 3)
    sdata.images["a"] = sdata["a"].isel(x=slice(0, 50))
    assert nm.pp.remove_outside_cells(sdata) == 2
    assert sdata["table"].obs["kept"].tolist() == ["three", "four"]
    assert sdata["cells_a"].index.tolist() == [2]
    assert [len(region.rows) for region in read_regions(sdata)] == [1, 1]
    assert nm.pp.remove_outside_cells(sdata) == 0


def test_an_image_without_cells_loses_its_circles(tmp_path):
    sdata = two_images()
    sdata.images["b"] = sdata["b"].isel(x=slice(0, 50))
    assert nm.pp.remove_outside_cells(sdata) == 1
    assert list(sdata.shapes) == ["cells_a"]
    nm.io.write(sdata, tmp_path / "left.zarr")


def test_nothing_left():
    sdata = two_images()
    for name in ("a", "b"):
        sdata.images[name] = sdata[name].isel(x=slice(0, 5))
    with pytest.raises(ValueError, match=r"nm.pp.detect_cells"):
        nm.pp.remove_outside_cells(sdata)
    assert sdata["table"].n_obs == 4


def test_a_table_that_does_not_exist():
    with pytest.raises(KeyError, match=r"'table'.*nm.pp.detect_cells"):
        nm.pp.remove_outside_cells(two_images(), table_key="other")
