import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import nextmarker as nm
from nextmarker._coordinates import pixel_size
from nextmarker._regions import read_regions

XY = ("x", "y")


def image(**kwargs):
    pixels = np.random.default_rng(0).poisson(3, (2, 60, 80)).astype(np.uint16)
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=["DNA", "CD3"], **kwargs)


def two_images() -> SpatialData:
    """As readers of other packages make them: both in one coordinate system, with a scale that says no unit."""
    where = {"global": Scale([0.5, 0.5], XY)}
    return SpatialData(images={"a": image(transformations=dict(where)), "b": image(transformations=dict(where))})


@pytest.mark.parametrize(
    ("arguments", "kwargs", "expected"),
    [
        ((0.5,), {}, {"a": 0.5, "b": 0.5}),
        ((np.float32(2),), {"images": "b"}, {"a": None, "b": 2.0}),
        (({"a": 0.25},), {}, {"a": 0.25, "b": None}),
    ],
)
def test_sizes_are_stated_for_all_or_by_image(arguments, kwargs, expected):
    sdata = two_images()
    nm.pp.set_pixel_size(sdata, *arguments, **kwargs)
    assert {name: pixel_size(sdata, name) for name in expected} == expected
    assert sdata.attrs["nextmarker_pixel_size"] == {name: size for name, size in expected.items() if size}


def test_every_step_knows_the_size_of_a_pyramid_from_elsewhere(capsys):
    sdata = SpatialData(images={"a": image(scale_factors=[2], transformations={"global": Identity()})})
    nm.pp.set_pixel_size(sdata, 0.5)
    nm.pp.add_cells(sdata, pd.DataFrame({"x": [10, 30, 50], "y": [20, 40, 20]}), progress=False)
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], [[5.25, 10.25], [15.25, 20.25], [25.25, 10.25]])
    model = nm.tl.train(sdata, 5, unit="micrometre", training=nm.nn.TrainingConfig(steps=2), progress=False)
    assert (model.config.patch_size, model.config.pixel_size) == (10, 0.5)


def test_the_size_survives_crop_join_rename_and_store(tmp_path):
    sdata = two_images()
    nm.pp.set_pixel_size(sdata, {"a": 0.5, "b": 2.0})
    sdata.images["new"] = sdata["b"]
    del sdata.images["b"]
    cut = sdata.query.bounding_box(
        axes=XY, min_coordinate=[5, 5], max_coordinate=[30, 20], target_coordinate_system="global"
    )
    joined = sd.concatenate({"P1": cut})
    joined.write(tmp_path / "joined.zarr")
    stored = sd.read_zarr(tmp_path / "joined.zarr")
    assert {name: pixel_size(stored, name) for name in stored.images} == {"a-P1": 0.5, "new-P1": 2.0}


def test_correcting_a_size_moves_no_cell():
    sdata = two_images()
    sdata.labels["masks_a"] = Labels2DModel.parse(
        np.eye(60, 80, dtype=np.int32), dims=("y", "x"), transformations={"a": Identity()}
    )
    set_transformation(sdata["a"], Identity(), "a")
    nm.pp.set_pixel_size(sdata, 0.5)
    frame = pd.DataFrame({"x": [10, 30, 50], "y": [20, 40, 20], "image": ["a", "b", "a"]})
    nm.pp.add_cells(sdata, frame, progress=False)
    before = [region.centres for region in read_regions(sdata)]
    nm.pp.set_pixel_size(sdata, {"a": 1.0})
    after = read_regions(sdata)
    assert [region.pixel_size for region in after] == [1.0, 0.5]
    for region, centres in zip(after, before, strict=True):
        np.testing.assert_allclose(region.centres, centres)
    assert get_transformation(sdata["cells_b"], "micrometre") == Scale([0.5, 0.5], XY)


@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        ("0.5", TypeError, "'a'.*number"),
        (True, TypeError, "'a'.*number"),
        (0, ValueError, "implausible"),
        (-1, ValueError, "implausible"),
        (float("nan"), ValueError, "implausible"),
        (5e-7, ValueError, "implausible.*in micrometres"),
        ({"a": 0.5, "c": 0.5}, KeyError, "'c'"),
        ({"a": 0.5, "b": 500}, ValueError, "implausible"),
    ],
)
def test_what_is_no_pixel_size_changes_nothing(size, error, match):
    sdata = two_images()
    with pytest.raises(error, match=match):
        nm.pp.set_pixel_size(sdata, size)
    assert list(sdata.coordinate_systems) == ["global"]
    assert "nextmarker_pixel_size" not in sdata.attrs


def test_nothing_is_changed_if_one_of_the_images_cannot_be_related_to_its_cells():
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=60)
    nm.pp.set_pixel_size(sdata, 1.0)
    set_transformation(sdata["truth_tissue_2"], Scale([0.0, 0.0], axes=("x", "y")), "tissue_2")
    with pytest.raises(ValueError, match="'tissue_2'.*set_transformation"):
        nm.pp.set_pixel_size(sdata, 0.5)
    scale = get_transformation(sdata["tissue_1"], "micrometre").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_array_equal(scale, np.eye(3))
