"""What all readers share: names, masks, metadata and the report."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import get_transformation

import nextmarker as nm
from nextmarker import _keys
from nextmarker.io._image import Image, Skipped, distinct, to_spatialdata

PIXELS = np.random.default_rng(0).poisson(5, (3, 20, 30)).astype(np.uint16)


def image(name="core", channels=("DNA", "CD3", "CD8"), pixel_size=None, **known):
    return Image(name, PIXELS, channels, pixel_size, **known)


def written(sdata, folder):
    sdata.write(folder / "all.zarr")
    return sd.read_zarr(folder / "all.zarr")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        (["a", "a", "a"], ("a", "a_2", "a_3")),
        (["a", "a", "a_2"], ("a", "a_3", "a_2")),
        (["", "CD3", "  "], ("channel_1", "CD3", "channel_3")),
        (["channel_2", ""], ("channel_2", "channel_2_2")),
        ([" a", "a"], ("a", "a_2")),
    ],
)
def test_distinct_names(names, expected):
    assert distinct(names) == expected


def test_channels_that_repeat_are_numbered_and_reported(tmp_path):
    with pytest.warns(UserWarning, match="'CD3' -> 'CD3_2'"):
        sdata = to_spatialdata([image(channels=("CD3", "CD3", ""), source="core.tif")])
    for version in (sdata, written(sdata, tmp_path)):
        assert version["core"]["c"].values.tolist() == ["CD3", "CD3_2", "channel_3"]
        assert version.attrs[_keys.CHANNELS]["core"] == {
            "name": ["CD3", "CD3_2", "channel_3"],
            "original_name": ["CD3", "CD3", ""],
        }
        assert "'' -> 'channel_3'" in nm.io.report(version).loc["core.tif", "note"]


def test_names_of_the_file_and_metals_are_kept(tmp_path):
    originals, metals = ("191Ir_DNA", "CD3(3)", "CD8(4)"), ("Ir191", "Er170", "")
    sdata = to_spatialdata([image(originals=originals, metals=metals), image("other")])
    for version in (sdata, written(sdata, tmp_path)):
        assert version.attrs[_keys.CHANNELS] == {
            "core": {"name": ["DNA", "CD3", "CD8"], "original_name": list(originals), "metal": list(metals)}
        }


def test_metadata_is_kept_as_far_as_it_can_be_written(tmp_path):
    metadata = {"run": "July 3", "size": np.float32(0.5), "fov": np.int64(4), "mass": float("nan")}
    sdata = to_spatialdata([image(metadata=metadata)])
    for version in (sdata, written(sdata, tmp_path)):
        assert version.attrs[_keys.ACQUISITIONS] == {"core": {"run": "July 3", "size": 0.5, "fov": 4}}


def test_masks_lie_on_their_image(tmp_path):
    labels = np.arange(600, dtype=np.int32).reshape(20, 30)
    images = [image(labels=labels, pixel_size=0.5), image("masks_core")]
    sdata = to_spatialdata(images)
    assert list(sdata.images) == ["core", "masks_core_2"]
    for version in (sdata, written(sdata, tmp_path)):
        np.testing.assert_array_equal(version.labels["masks_core"], labels)
        found = get_transformation(version.labels["masks_core"], "core")
        np.testing.assert_array_equal(found.to_affine_matrix(("x", "y"), ("x", "y")), np.diag([0.5, 0.5, 1]))


def test_report_has_a_row_for_all_that_was_found(tmp_path):
    images = [image("a", source="run.mcd"), image("b", source="run.mcd", notes=("read from b.txt",))]
    with pytest.warns(UserWarning, match="run.mcd: skipped, no signal") as record:
        sdata = to_spatialdata(images, [Skipped("run.mcd", "no signal"), Skipped("x.tif", "empty")])
    assert "read from b.txt" in str(record[0].message)
    expected = pd.DataFrame(
        [
            ("read", "a", ""),
            ("read", "b", "read from b.txt"),
            ("skipped", "", "no signal"),
            ("skipped", "", "empty"),
        ],
        columns=["status", "image", "note"],
        index=pd.Index(["run.mcd", "run.mcd (2)", "run.mcd (3)", "x.tif"], name="source"),
    )
    pd.testing.assert_frame_equal(nm.io.report(sdata), expected)
    back = nm.io.report(written(sdata, tmp_path))
    pd.testing.assert_frame_equal(back.loc[expected.index], expected)


def test_parts_that_belong_to_the_format_are_reported_without_a_warning(recwarn):
    sdata = to_spatialdata([image(source="a.qptiff")], [Skipped("a.qptiff", "thumbnail", expected=True)])
    assert not recwarn
    assert nm.io.report(sdata)["note"].tolist() == ["", "thumbnail"]


def test_nothing_read_is_an_error_with_the_reasons():
    with pytest.raises(ValueError, match=r"Nothing could be read\.\n  a\.tif: empty\n  b\.tif: no TIFF"):
        to_spatialdata([], [Skipped("a.tif", "empty"), Skipped("b.tif", "no TIFF")])


def test_report_of_another_object():
    with pytest.raises(KeyError, match="No report"):
        nm.io.report(sd.SpatialData())
