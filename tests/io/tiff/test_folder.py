"""Folders: the channels of one image, images, and what else lies in them."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm

NAMES = ["DNA1", "CD3", "pan CK/7"]


@pytest.fixture
def counts():
    """Three channels, not square, not a multiple of anything."""
    return np.random.default_rng(0).poisson(200, (3, 70, 110)).astype(np.uint16)


def write_ome(path, counts):
    header = {"axes": "CYX", "Channel": {"Name": NAMES}}
    tifffile.imwrite(path, counts, ome=True, metadata=header, photometric="minisblack")


def write_channels(folder, counts, names=NAMES[:2]):
    folder.mkdir()
    for name, channel in zip(names, counts, strict=False):
        tifffile.imwrite(folder / f"{name}.tif", channel)


def test_folder_of_channels_is_one_image(tmp_path, counts):
    write_channels(tmp_path / "Point1", counts)
    (tmp_path / "Point1" / "._CD3.tif").write_bytes(b"left by a file system")
    for sdata in (nm.io.read_folder(tmp_path / "Point1"), nm.io.read(str(tmp_path / "Point1"))):
        assert list(sdata.images) == ["Point1"]
        assert sdata["Point1"]["c"].values.tolist() == ["CD3", "DNA1"]
        np.testing.assert_array_equal(sdata["Point1"], counts[[1, 0]])


def test_folder_of_folders_and_stacks_is_read_whole_but_no_deeper(tmp_path, counts):
    write_channels(tmp_path / "Point2", counts)
    write_channels(tmp_path / "Point1", counts)
    (tmp_path / "deep").mkdir()
    write_channels(tmp_path / "deep" / "Point3", counts)
    write_ome(tmp_path / "core.ome.tiff", counts)
    assert list(nm.io.read(tmp_path).images) == ["core", "Point1", "Point2"]


def test_a_folder_within_that_is_no_image_is_told_with_the_way_to_read_it(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts)
    for part in ("stacks", "broken", "deep"):
        (tmp_path / part).mkdir()
    write_ome(tmp_path / "stacks" / "other.ome.tif", counts)
    (tmp_path / "broken" / "CD3.tif").write_bytes(b"")
    write_channels(tmp_path / "deep" / "Point3", counts)
    with pytest.warns(UserWarning, match=r"(?s)CD3\.tif is empty.*stacks: skipped, it has whole images") as record:
        sdata = nm.io.read(tmp_path)
    assert "deep" not in str(record[0].message)
    report = nm.io.report(sdata)
    assert report.loc[str(tmp_path / "broken" / "CD3.tif"), "status"] == "skipped"
    assert "name the folder" in report.loc[str(tmp_path / "deep"), "note"]
    named = ["stacks", "deep/Point3"]
    assert list(nm.io.read([tmp_path / part for part in named]).images) == ["other", "Point3"]


def test_masks_beside_stacks_are_left_out_with_a_warning(tmp_path, counts):
    write_ome(tmp_path / "core_image.ome.tif", counts)
    tifffile.imwrite(tmp_path / "core_mask.tif", counts[0])
    with pytest.warns(UserWarning, match=r"core_mask\.tif") as record:
        sdata = nm.io.read(tmp_path)
    assert record[0].filename == __file__
    assert list(sdata.images) == ["core_image"]


def test_a_folder_without_images_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match="It contains nothing"):
        nm.io.read(tmp_path)
    (tmp_path / "panel.csv").touch()
    with pytest.raises(ValueError, match=r"No images in .* It contains panel\.csv"):
        nm.io.read(tmp_path)
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match=r"old: it has no TIFF files"):
        nm.io.read(tmp_path)
    with pytest.raises(ValueError, match=r"no TIFF file; it contains old/, panel\.csv"):
        nm.io.read_folder(tmp_path)


def test_channels_of_different_shape_or_data_type(tmp_path, counts):
    write_channels(tmp_path / "Point1", counts)
    tifffile.imwrite(tmp_path / "Point1" / "CD8.tif", counts[0, :30])
    with pytest.raises(ValueError, match=r"differ in shape: .*CD8\.tif \(30, 110\)"):
        nm.io.read(tmp_path)
    tifffile.imwrite(tmp_path / "Point1" / "CD8.tif", counts[0].astype(np.uint8))
    with pytest.raises(ValueError, match=r"differ in dtype: .*CD8\.tif uint8"):
        nm.io.read_folder(tmp_path / "Point1")


def test_a_stack_in_a_folder_of_channels(tmp_path, counts):
    write_channels(tmp_path / "Point1", counts)
    write_ome(tmp_path / "Point1" / "all.tif", counts)
    with pytest.raises(ValueError, match=r"several channels: \{'all\.tif': 3\}"):
        nm.io.read_folder(tmp_path / "Point1")
