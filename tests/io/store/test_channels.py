"""What viewers are told about the channels of a written image."""

import json

import numpy as np
import pytest
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Image3DModel

import nextmarker as nm
from nextmarker._channels import WINDOW, _starts

NAMES = ["DNA", "CD3", "HLA-DR/DP", "empty", "Ki 67"]


def make_image(pixels, **arguments):
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=NAMES[: len(pixels)], **arguments)


def written(image, path):
    nm.io.write(SpatialData(images={"slide": image}), path)
    return channels_in(path)


def channels_in(path):
    return json.loads((path / "images" / "slide" / "zarr.json").read_text())["attributes"]["ome"]["omero"]["channels"]


@pytest.fixture
def counts():
    counts = np.random.default_rng(0).poisson(3, (5, 60, 80)).astype(np.uint16)
    counts[1] *= 100
    counts[3] = 0
    return counts


@pytest.mark.parametrize("scales", [None, [2]])
def test_names_colours_and_limits(counts, tmp_path, scales):
    channels = written(make_image(counts, scale_factors=scales), tmp_path / "a.zarr")
    assert [channel["label"] for channel in channels] == NAMES
    assert len({channel["color"] for channel in channels}) == len(NAMES)
    assert all(len(bytes.fromhex(channel["color"])) == 3 for channel in channels)
    assert [channel["active"] for channel in channels] == [True, True, True, False, False]
    for channel, pixels in zip(channels, counts, strict=True):
        window = channel["window"]
        assert window["min"] == window["start"] == 0
        if pixels.any():
            assert window["end"] == pytest.approx(np.percentile(pixels, 99.5))
            assert window["max"] == pixels.max()
    assert channels[3]["window"] == {"min": 0, "max": 1, "start": 0, "end": 1}  # a window must not be empty


def test_a_channel_with_few_bright_pixels_ends_at_its_maximum(counts, tmp_path):
    counts[3, 0, 0] = 7
    assert written(make_image(counts), tmp_path / "a.zarr")[3]["window"]["end"] == 7


def test_floats_that_are_negative_or_not_finite(tmp_path):
    pixels = np.full((3, 20, 20), np.nan)
    pixels[1:, 5:, 5:] = [[[-2.0]], [[4.0]]]
    pixels[2, 6, 6] = np.inf
    _, negative, positive = windows = [c["window"] for c in written(make_image(pixels), tmp_path / "a.zarr")]
    assert np.isfinite([list(window.values()) for window in windows]).all()
    assert (negative["min"], negative["start"]) == (-2, -2)
    assert positive["end"] == 4


def test_spatialdata_reads_what_was_written(counts, tmp_path):
    written(make_image(counts), tmp_path / "a.zarr")
    again = spatialdata.read_zarr(tmp_path / "a.zarr")
    assert again["slide"]["c"].to_numpy().tolist() == NAMES
    np.testing.assert_array_equal(again["slide"], counts)


def test_all_metadata_agree_and_are_kept_with_the_image(counts, tmp_path):
    channels = written(make_image(counts), tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    sdata.attrs["note"] = "new"
    nm.io.write(sdata, tmp_path / "a.zarr", overwrite=True)
    assert channels_in(tmp_path / "a.zarr") == channels
    consolidated = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert consolidated["images/slide"]["attributes"]["ome"]["omero"]["channels"] == channels


def test_renamed_channels_are_described_anew(counts, tmp_path):
    written(make_image(counts), tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    sdata["slide"] = sdata["slide"].assign_coords(c=["a", "b", "c", "d", "e"])
    nm.io.write(sdata, tmp_path / "a.zarr", overwrite=True)
    channels = channels_in(tmp_path / "a.zarr")
    assert [channel["label"] for channel in channels] == ["a", "b", "c", "d", "e"]
    assert all("window" in channel for channel in channels)


def test_stacks_of_planes(tmp_path):
    pixels = np.arange(2 * 3 * 10 * 10, dtype=np.uint16).reshape(2, 3, 10, 10)
    channels = written(Image3DModel.parse(pixels, dims=("c", "z", "y", "x")), tmp_path / "a.zarr")
    assert [channel["window"]["max"] for channel in channels] == [299, 599]


def test_the_limits_of_a_large_image_come_from_four_places():
    for length in (1, WINDOW, WINDOW + 1, 2 * WINDOW, 40_000):
        starts = _starts(length)
        assert len(starts) <= 2
        assert 0 <= starts[0]
        assert starts[-1] < length
        assert np.all(np.diff(starts) >= WINDOW)
