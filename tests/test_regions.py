from collections.abc import Callable

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

import nextmarker as nm
from nextmarker._coordinates import full_resolution
from nextmarker._regions import Region, read_image, read_overview, read_regions, shared_markers
from nextmarker.pp import add_cells, set_pixel_size


def image(names: list[str], **kwargs: object) -> object:
    raw = np.arange(len(names) * 30 * 50, dtype=np.uint16).reshape(len(names), 30, 50)
    return Image2DModel.parse(da.from_array(raw), dims=("c", "y", "x"), c_coords=names, **kwargs)


def tissue() -> SpatialData:
    sdata = SpatialData(images={"a": image(["DNA", "CD3"]), "b": image(["DNA", "CD3"])})
    set_pixel_size(sdata, {"b": 0.5})
    frame = pd.DataFrame({"x": [10, 20, 5], "y": [11, 3, 4], "image": ["a", "a", "b"]})
    add_cells(sdata, frame, progress=False)
    return sdata


def test_regions_hold_the_cells_of_each_image() -> None:
    a, b = read_regions(tissue())
    assert (a.name, a.image, a.pixel_size) == ("cells_a", "a", None)
    assert (b.name, b.image, b.pixel_size) == ("cells_b", "b", 0.5)
    np.testing.assert_array_equal(a.centres, [[10.5, 11.5], [20.5, 3.5]])
    np.testing.assert_array_equal(b.centres, [[5.5, 4.5]])
    assert a.centres.dtype == np.float64
    assert (a.rows.tolist(), b.rows.tolist()) == ([0, 1], [2])
    assert a.pixels.dims == ("c", "y", "x")


def test_rows_follow_a_table_that_was_sorted_and_filtered() -> None:
    sdata = tissue()
    table = sdata["table"][[2, 1]].copy()
    del sdata.tables["table"]
    sdata.tables["table"] = table
    by_image = {region.image: region for region in read_regions(sdata)}
    np.testing.assert_array_equal(by_image["a"].centres, [[20.5, 3.5]])
    assert by_image["a"].rows.tolist() == [1]
    assert by_image["b"].rows.tolist() == [0]


def test_table_that_does_not_exist() -> None:
    with pytest.raises(KeyError, match=r"'table'.*nm.pp.detect_cells"):
        read_regions(tissue(), "other")


def test_table_that_names_no_image() -> None:
    sdata = tissue()
    del sdata["table"].obs["image"]
    with pytest.raises(KeyError, match=r"'image'.*nm.pp.add_cells"):
        read_regions(sdata)


def test_circles_that_are_gone() -> None:
    sdata = tissue()
    del sdata.shapes["cells_b"]
    with pytest.raises(KeyError, match=r"'cells_b'.*'cells_a'"):
        read_regions(sdata)


def test_table_and_circles_out_of_step() -> None:
    sdata = tissue()
    sdata.shapes["cells_a"] = sdata.shapes["cells_a"].iloc[:1]
    with pytest.raises(ValueError, match="1 cells of the table"):
        read_regions(sdata)


def test_table_without_cells() -> None:
    sdata = tissue()
    sdata.tables.data["table"] = sdata["table"][:0].copy()  # SpatialData itself refuses such a table
    with pytest.raises(ValueError, match="no cells"):
        read_regions(sdata)


def test_image_is_read_at_full_resolution_and_lazily() -> None:
    sdata = SpatialData(images={"a": image(["DNA", "CD3"], scale_factors=[2, 2])})
    found = read_image(sdata, "a")
    assert found.shape == (2, 30, 50)
    assert found["c"].to_numpy().tolist() == ["DNA", "CD3"]
    assert isinstance(found.data, da.Array)
    np.testing.assert_array_equal(found.to_numpy(), np.arange(2 * 30 * 50).reshape(2, 30, 50))


def test_channel_names_become_strings() -> None:
    sdata = SpatialData(images={"a": Image2DModel.parse(np.ones((2, 4, 5)), dims=("c", "y", "x"))})
    assert read_image(sdata, "a")["c"].to_numpy().tolist() == ["0", "1"]


def test_image_that_does_not_exist() -> None:
    with pytest.raises(KeyError, match=r"'c'.*'a', 'b'"):
        read_image(tissue(), "c")


def test_channels_of_one_name() -> None:
    sdata = tissue()
    twice = xr.concat([sdata.images["a"], sdata.images["a"]], dim="c")
    broken = SpatialData()
    broken.images.data["a"] = twice
    with pytest.raises(ValueError, match=r"'CD3', 'DNA'.*set_channel_names"):
        read_image(broken, "a")


def test_shared_markers() -> None:
    sdata = SpatialData(images={"a": image(["DNA", "CD3", "CD8"]), "b": image(["CD8", "DNA", "CD3"])})
    assert shared_markers(sdata, ["a", "b"]) == ["DNA", "CD3", "CD8"]
    assert shared_markers(sdata, ["b", "a"]) == ["CD8", "DNA", "CD3"]
    assert shared_markers(sdata, ["a", "b"], ["CD3"]) == ["CD3"]
    sdata.images["c"] = image(["DNA", "CD4"])
    with pytest.raises(ValueError, match=r"'c'.*lacks 'CD3', 'CD8' and also has 'CD4'.*markers=\['DNA'\]"):
        shared_markers(sdata, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"'CD3' in image 'c'"):
        shared_markers(sdata, ["a", "c"], ["CD3"])


def test_scale_between_pixels_of_two_sizes() -> None:
    a, b = read_regions(tissue())
    assert isinstance(b, Region)
    assert b.scale(1.0) == 2
    assert a.scale(None) == b.scale(None) == 1
    with pytest.raises(ValueError, match="'a' are unknown.*nm.pp.set_pixel_size"):
        a.scale(1.0)


@pytest.mark.parametrize("model_pixel", [0.011 / 1.2, 50.0])
def test_pixels_that_cannot_be_of_one_kind(model_pixel) -> None:
    _, b = read_regions(tissue())
    with pytest.raises(ValueError, match=r"pixels of .* um, and image 'b' has pixels of 0.5 um"):
        b.scale(model_pixel)


def test_markers_that_an_image_lacks_are_named():
    image = Image2DModel.parse(np.ones((2, 8, 8)), dims=("c", "y", "x"), c_coords=["DNA", "CD3"])
    sdata = SpatialData(images={"a": image})
    message = r"'CD8' in image 'a'.*'DNA', 'CD3'.*set_channel_names\('a'"
    with pytest.raises(ValueError, match=message):
        shared_markers(sdata, ["a"], ["CD3", "CD8"])


def test_neighbour_distances_in_pixels() -> None:
    pixels = xr.DataArray(np.zeros((1, 9, 9)), dims=("c", "y", "x"))
    centres = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 6.0]])
    region = Region("cells", "a", pixels, centres, np.arange(3), 0.5)
    np.testing.assert_allclose(region.neighbour_distances(), [5, 2, 2])
    alone = Region("cells", "a", pixels, centres[:1], np.arange(1), 0.5)
    assert alone.neighbour_distances().size == 0


def test_an_overview_is_read_at_the_coarsest_scale_that_is_large_enough() -> None:
    counts = np.arange(2 * 64 * 80).reshape(2, 64, 80)
    image = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["a", "b"], scale_factors=[2, 2])
    sdata = SpatialData(images={"pyramid": image, "flat": full_resolution(image)})
    for most, step in [(81, 1), (80, 1), (41, 1), (40, 2), (21, 2), (20, 4), (5, 4)]:
        pixels, width = read_overview(sdata, "pyramid", most)
        assert (width, pixels.sizes["x"], pixels["c"].to_numpy().tolist()) == (step, 80 // step, ["a", "b"])
    pixels, width = read_overview(sdata, "flat", 20)
    assert (width, pixels.sizes["x"]) == (1, 80)


@pytest.mark.parametrize("given", ["table", "path"])
@pytest.mark.parametrize(
    "call",
    [
        lambda given: nm.io.report(given),
        lambda given: nm.pp.detect_cells(given, "DNA"),
        lambda given: nm.pp.add_masks(given, {}),
        lambda given: nm.pp.integrate(given, "masks"),
        lambda given: nm.tl.train(given),
    ],
)
def test_a_table_or_path_is_not_taken_for_the_object_with_the_images(
    given: str, call: Callable[[object], None]
) -> None:
    what = tissue()["table"] if given == "table" else "slides/"
    with pytest.raises(TypeError, match="with the images, got (AnnData|str). Pass sdata"):
        call(what)


@pytest.mark.parametrize(
    "call",
    [
        nm.tl.embed,
        nm.pl.cells,
        nm.pl.patches,
        nm.pl.matches,
        nm.pp.match_cells,
        nm.get.views,
        lambda table: nm.get.cell_attribution(table, 0, "model.safetensors"),
    ],
)
def test_a_table_is_not_taken_for_the_object_with_the_images(call: Callable[[object], None]) -> None:
    table = tissue()["table"]
    table.obs["nextmarker"] = pd.Categorical(["0", "0", "1"])
    with pytest.raises(TypeError, match="with the images, got AnnData. Pass sdata"):
        call(table)
