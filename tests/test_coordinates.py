import numpy as np
import pytest
import shapely
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel
from spatialdata.transformations import Affine, Identity, MapAxis, Scale, Sequence, Translation

from nextmarker._coordinates import apply, check_inside, pixel_size, shared_systems, spatial_system, to_pixels

XY = ("x", "y")
QUARTER_TURN = Affine([[0, -0.5, 7], [0.5, 0, 3], [0, 0, 1]], XY, XY)  # half a micrometre per pixel


def sdata(image=None, circles=None, *, attrs=None, **kwargs) -> SpatialData:
    """An image 40 pixels wide and 30 high, and circles, in the coordinate systems given."""
    pixels = np.zeros((1, 30, 40), np.uint8)
    element = Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["DNA"], transformations=image, **kwargs)
    frame = GeoDataFrame({"radius": [1.0, 1.0]}, geometry=shapely.points([[4.0, 8.0], [10.0, 6.0]]))
    return SpatialData(
        images={"a": element}, shapes={"cells": ShapesModel.parse(frame, transformations=circles)}, attrs=attrs or {}
    )


@pytest.mark.parametrize(
    ("transformation", "expected"),
    [
        (Identity(), 1.0),
        (Scale([0.39, 0.39], XY), 0.39),
        (Scale([0.39, 0.391], XY), 0.3905),
        (QUARTER_TURN, 0.5),
        (Sequence([Translation([5, 6], XY), Scale([2, 2], XY)]), 2.0),
        (Sequence([MapAxis({"x": "y", "y": "x"}), Scale([0.5, 0.5], XY)]), 0.5),
    ],
)
@pytest.mark.parametrize("name", ["micrometre", "micrometre-P1"])
@pytest.mark.parametrize("scales", [None, [2]], ids=["image", "pyramid"])
def test_pixel_size_is_that_of_the_system_in_micrometres(transformation, expected, name, scales):
    made = sdata({"global": Identity(), name: transformation}, scale_factors=scales)
    assert pixel_size(made, "a") == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("systems", [None, {"a": Scale([0.5, 0.5], XY)}, {"micrometres_of_a": Scale([0.5, 0.5], XY)}])
def test_pixel_size_is_unknown_where_no_system_is_in_micrometres(systems):
    assert pixel_size(sdata(systems), "a") is None


@pytest.mark.parametrize(
    ("systems", "stated", "expected"),
    [
        ({"a": Scale([0.5, 0.5], XY)}, 0.5, 0.5),
        ({"micrometre": Scale([0.5, 0.5], XY)}, 0.5, 0.5),
        ({"micrometre": Scale([0.5, 0.5], XY)}, 1.0, None),
        ({"a": Identity()}, 0.5, None),
        ({"micrometre": Scale([0.5, 0.5], XY), "micrometre-P1": Identity()}, None, None),
    ],
)
def test_sources_that_contradict_each_other(systems, stated, expected):
    made = sdata(systems, attrs={"nextmarker_pixel_size": {"a": stated}} if stated else {})
    if expected:
        assert pixel_size(made, "a") == expected
        return
    with pytest.raises(ValueError, match=r"'a' is contradictory.*nm.pp.set_pixel_size"):
        pixel_size(made, "a")


@pytest.mark.parametrize(
    ("sides", "match"),
    [([1e-6, 1e-6], "implausible"), ([500, 500], "implausible"), ([0.5, 1.0], "not square.*0.5 x 1 um")],
)
def test_pixel_sizes_that_cannot_be(sides, match):
    with pytest.raises(ValueError, match=rf"{match}.*nm.pp.set_pixel_size"):
        pixel_size(sdata({"micrometre": Scale(sides, XY)}), "a")


def test_places_follow_both_transformations():
    made = sdata({"global": QUARTER_TURN}, {"global": Translation([1, 2], XY)})
    places = apply(to_pixels(made, "cells", "a"), np.array([[4.0, 8.0]]))
    # (5, 10) of the system: x = -0.5 row + 7 and y = 0.5 column + 3
    np.testing.assert_allclose(places, [[14, 4]])


def test_no_common_system():
    with pytest.raises(ValueError, match=r"'cells' and image 'a'.*set_transformation"):
        to_pixels(sdata({"one": Identity()}, {"other": Identity()}), "cells", "a")


def test_systems_that_place_an_element_differently():
    apart = sdata({"one": Identity(), "two": Identity()}, {"one": Identity(), "two": Translation([0, 0.2], XY)})
    with pytest.raises(ValueError, match=r"'cells' .*'one'.* by 'two'.*set_transformation"):
        to_pixels(apart, "cells", "a")
    rounding = sdata({"one": Identity(), "two": Identity()}, {"one": Identity(), "two": Translation([0, 1e-9], XY)})
    np.testing.assert_array_equal(to_pixels(rounding, "cells", "a"), np.eye(3))


@pytest.mark.parametrize("broken", [Scale([0, 1], XY), Scale([np.nan, 1], XY)])
def test_transformations_that_lead_nowhere(broken):
    with pytest.raises(ValueError, match="'global'.*set_transformation"):
        to_pixels(sdata({"global": broken}, {"global": Identity()}), "cells", "a")


def test_systems_are_shared_in_an_order_that_has_micrometres_last():
    both = {"micrometre": Identity(), "a": Identity()}
    assert shared_systems(sdata(both, both), "cells", "a") == ["a", "micrometre"]


def test_coordinates_are_in_micrometres_where_these_are_known():
    assert spatial_system(sdata({"z": Identity(), "a": Identity(), "micrometre": Identity()}), "a") == "micrometre"
    assert spatial_system(sdata({"z": Identity(), "a": Identity()}), "a") == "a"
    assert spatial_system(sdata({"z": Identity(), "y": Identity()}), "a") == "z"


def test_the_edge_of_the_image_is_the_last_place_outside():
    pixels = sdata()["a"]
    check_inside("a", pixels, np.array([[0.0, 0.0], [39.99, 29.99]]), ["one", "two"], "")
    for place in ([40.0, 5.0], [5.0, 30.0], [-1e-6, 5.0], [np.nan, 5.0], [5.0, np.inf]):
        with pytest.raises(ValueError, match=r"1 of 2 centres .*40 pixels wide and 30 high\), first two .*fix"):
            check_inside("a", pixels, np.array([[1.0, 1.0], place]), ["one", "two"], "fix")
