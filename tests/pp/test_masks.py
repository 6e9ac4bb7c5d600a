"""Masks of other programs."""

import numpy as np
import pytest
import spatialdata
import tifffile
from spatialdata.transformations import get_transformation

import nextmarker as nm
from tests.copies import made_once


@pytest.fixture
def sdata():
    return tissue()


@made_once
def tissue():
    return nm.datasets.synthetic_tissue(n_images=2, n_cells=60)


@pytest.fixture
def masks(sdata):
    return {image: sdata[f"masks_{image}"].to_numpy() for image in sdata.images}


def test_masks_from_files_are_those_of_the_images(sdata, masks, tmp_path):
    first, second = masks
    tifffile.imwrite(tmp_path / "first.tiff", masks[first].astype(np.uint16))
    np.save(tmp_path / "second.npy", masks[second].astype(np.float32))
    nm.pp.add_masks(sdata, {first: tmp_path / "first.tiff", second: str(tmp_path / "second.npy")}, key_added="cells2")
    for image, mask in masks.items():
        added = sdata.labels[f"cells2_{image}"]
        assert added.dtype.kind in "ui"
        np.testing.assert_array_equal(added.to_numpy(), mask)
        assert get_transformation(added, get_all=True) == get_transformation(sdata[image], get_all=True)


def test_added_masks_are_integrated_and_saved_like_those_of_the_reader(sdata, masks, tmp_path):
    nm.pp.integrate(sdata, "masks", progress=False)
    expected = sdata["intensity"].X
    nm.pp.add_masks(sdata, masks, overwrite=True)
    nm.io.write(sdata, tmp_path / "out.zarr")
    reloaded = spatialdata.read_zarr(tmp_path / "out.zarr")
    del reloaded.tables["intensity"]
    nm.pp.integrate(reloaded, "masks", progress=False)
    np.testing.assert_array_equal(reloaded["intensity"].X, expected)


def test_one_mask_for_one_image(masks):
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=60)
    (image,) = sdata.images
    nm.pp.add_masks(sdata, sdata[f"masks_{image}"].to_numpy(), key_added="own")
    assert f"own_{image}" in sdata.labels


@pytest.mark.parametrize(
    ("broken", "error", "match"),
    [
        (lambda mask: mask[:-1], ValueError, "pixels, and the image"),
        (lambda mask: (mask > 0).astype(int), ValueError, "skimage.measure.label"),
        (lambda mask: mask - 0.5, ValueError, "not integers"),
        (lambda mask: "missing.tif", KeyError, "missing.tif"),
        (lambda mask: "mask.png", TypeError, "mask.png"),
        (lambda mask: {"a": 1}, TypeError, "dict"),
    ],
)
def test_nothing_is_added_if_one_mask_is_wrong(sdata, masks, broken, error, match):
    first, second = masks
    before = set(sdata.labels)
    with pytest.raises(error, match=match):
        nm.pp.add_masks(sdata, {first: masks[first], second: broken(masks[second])}, key_added="own")
    assert set(sdata.labels) == before


def test_names_and_images(sdata, masks):
    with pytest.raises(ValueError, match="overwrite=True"):
        nm.pp.add_masks(sdata, masks)
    with pytest.raises(ValueError, match="a dict"):
        nm.pp.add_masks(sdata, next(iter(masks.values())), key_added="own")
    with pytest.raises(KeyError, match="other"):
        nm.pp.add_masks(sdata, {"other": next(iter(masks.values()))}, key_added="own")
