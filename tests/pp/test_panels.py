"""Panels that differ in order, extent and spelling."""

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import xarray as xr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine, Identity, get_transformation

import nextmarker as nm
from nextmarker import _keys

PANELS = {"a": ["DNA1", "CD3", "CD45RO"], "b": ["CD8", "CD45-RO", "DNA1"]}
ALIASES = {"CD45RO": "CD45-RO"}


def pixels_of(panel, dtype=np.uint16, shape=(20, 31)):
    """Each channel has its own constant: the number of characters and the first letter of its name."""
    return np.stack([np.full(shape, len(name) * 100 + ord(name[0])) for name in panel]).astype(dtype)


def images(panels=PANELS, scale_factors=None, dtype=np.uint16):
    affine = Affine([[2, 0, 5], [0, 2, 7], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    return SpatialData(
        images={
            name: Image2DModel.parse(
                da.from_array(pixels_of(panel, dtype), chunks=(1, 16, 16)),
                dims=("c", "y", "x"),
                c_coords=panel,
                scale_factors=scale_factors,
                transformations={name: Identity(), "slide": affine},
            )
            for name, panel in panels.items()
        }
    )


def test_intersection_keeps_what_all_images_have_in_the_order_of_the_first():
    sdata = images()
    report = nm.pp.match_panels(sdata, aliases=ALIASES)
    for name, old in {"a": ["DNA1", "CD45RO"], "b": ["DNA1", "CD45-RO"]}.items():
        assert sdata[name]["c"].values.tolist() == ["DNA1", "CD45-RO"]
        np.testing.assert_array_equal(sdata[name], pixels_of(old))
    expected = pd.DataFrame(
        [["present", "alias", "dropped", "missing"], ["present", "present", "missing", "dropped"]],
        index=["a", "b"],
        columns=["DNA1", "CD45-RO", "CD3", "CD8"],
    )
    pd.testing.assert_frame_equal(report, expected)
    assert sdata.attrs[_keys.PANELS] == expected.T.to_dict()


def test_union_fills_with_zeros():
    sdata = images()
    report = nm.pp.match_panels(sdata, aliases=ALIASES, join="union")
    markers = ["DNA1", "CD3", "CD45-RO", "CD8"]
    for name in "ab":
        assert sdata[name]["c"].values.tolist() == markers
        assert sdata[name].dtype == np.uint16
    np.testing.assert_array_equal(sdata["a"][:3], pixels_of(PANELS["a"]))
    assert (sdata["a"].sel(c="CD8") == 0).all()
    np.testing.assert_array_equal(sdata["b"].sel(c=["CD8", "CD45-RO", "DNA1"]), pixels_of(PANELS["b"]))
    assert (sdata["b"].sel(c="CD3") == 0).all()
    assert report.loc["a"].tolist() == ["present", "present", "alias", "filled"]
    assert report.loc["b"].tolist() == ["present", "filled", "present", "present"]


@pytest.mark.parametrize("join", ["intersection", "union"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_scales_transformations_and_data_types_stay(join, dtype):
    sdata, before = (images(scale_factors=[2], dtype=dtype) for _ in range(2))
    nm.pp.match_panels(sdata, join=join)
    for name in "ab":
        assert isinstance(sdata[name], xr.DataTree)
        Image2DModel().validate(sdata[name])
        assert list(sdata[name].children) == ["scale0", "scale1"]
        small = sdata[name]["scale1"]["image"]
        assert small.shape[1:] == before[name]["scale1"]["image"].shape[1:]
        assert small.dtype == dtype
        np.testing.assert_array_equal(small.sel(c="DNA1"), before[name]["scale1"]["image"].sel(c="DNA1"))
        found, expected = (get_transformation(s[name], get_all=True) for s in (sdata, before))
        assert found == expected
        low, expected_low = (
            get_transformation(s[name]["scale1"]["image"], to_coordinate_system="slide") for s in (sdata, before)
        )
        assert low == expected_low


def test_nothing_is_computed():
    def refuse(block):
        pytest.fail("pixels were read")

    sdata = images()
    for name in sdata.images:
        sdata[name].data = da.map_blocks(refuse, sdata[name].data, meta=np.empty((0, 0, 0), np.uint16))
    nm.pp.match_panels(sdata, join="union")
    assert isinstance(sdata["a"].data, da.Array)
    assert sdata["a"].data.chunksize[1:] == (16, 16)


def test_order_alone():
    sdata = images({"a": ["DNA1", "CD3"], "b": ["CD3", "DNA1"]})
    first = sdata["a"]
    assert (nm.pp.match_panels(sdata) == "present").all(axis=None)
    assert sdata["a"] is first
    np.testing.assert_array_equal(sdata["b"], pixels_of(["DNA1", "CD3"]))


def test_the_order_of_images_and_other_images_stay():
    sdata = images(PANELS | {"stain": ["r", "g", "b"]})
    report = nm.pp.match_panels(sdata, images=["b", "a"])
    assert list(sdata.images) == ["a", "b", "stain"]
    assert sdata["stain"]["c"].values.tolist() == ["r", "g", "b"]
    assert list(report.index) == ["b", "a"]


def test_names_before_are_kept_and_reach_the_table():
    sdata = images()
    sdata.attrs[_keys.CHANNELS] = {
        "a": {"name": PANELS["a"], "original_name": ["191Ir", "170Er_CD3", "RO"], "metal": ["Ir191", "Er170", "Nd142"]}
    }
    nm.pp.match_panels(sdata, aliases=ALIASES, join="union")
    assert sdata.attrs[_keys.CHANNELS] == {
        "a": {
            "name": ["DNA1", "CD3", "CD45-RO", "CD8"],
            "original_name": ["191Ir", "170Er_CD3", "RO", ""],
            "metal": ["Ir191", "Er170", "Nd142", ""],
        },
        "b": {"name": ["DNA1", "CD3", "CD45-RO", "CD8"], "original_name": ["DNA1", "", "CD45-RO", "CD8"]},
    }
    cells = pd.DataFrame({"x": [5, 5], "y": [5, 9], "image": ["a", "b"]})
    nm.pp.add_cells(sdata, cells, progress=False)
    assert sdata["table"].var["original_name"].tolist() == ["191Ir; DNA1", "170Er_CD3", "RO; CD45-RO", "CD8"]
    assert sdata["table"].var["metal"].tolist() == ["Ir191", "Er170", "Nd142", ""]


def test_result_survives_writing(tmp_path):
    sdata = images(scale_factors=[2])
    nm.pp.match_panels(sdata, aliases=ALIASES, join="union")
    sdata.write(tmp_path / "matched.zarr")
    back = sd.read_zarr(tmp_path / "matched.zarr")
    assert back.attrs[_keys.PANELS] == sdata.attrs[_keys.PANELS]
    assert back["a"]["scale0"]["c"].values.tolist() == ["DNA1", "CD3", "CD45-RO", "CD8"]
    np.testing.assert_array_equal(back["a"]["scale0"]["image"], sdata["a"]["scale0"]["image"])


@pytest.mark.parametrize(
    ("panels", "options", "message"),
    [
        (PANELS, {"join": "outer"}, "join='outer'.*'intersection', 'union'"),
        (PANELS, {"aliases": {"CD45": "CD45-RO"}}, r"'CD45'.*'CD45RO'.*aliases="),
        (PANELS, {"aliases": {"CD3": "CD8", "CD8": "T"}}, r"refer to \['CD8'\]"),
        (PANELS, {"aliases": {"CD3": "DNA1"}}, r"\['DNA1', 'CD3'\] of image 'a' the same name"),
        ({"a": ["CD3"], "b": ["CD8"]}, {}, "no marker in common"),
    ],
)
def test_what_cannot_be_matched_changes_nothing(panels, options, message):
    sdata = images(panels)
    with pytest.raises(ValueError, match=message):
        nm.pp.match_panels(sdata, **options)
    assert {name: sdata[name]["c"].values.tolist() for name in sdata.images} == panels
    assert sdata.attrs == {}


def test_an_image_that_is_not_there():
    with pytest.raises(KeyError, match="No image 'c'"):
        nm.pp.match_panels(images(), images=["a", "c"])
