"""Directories of steinbock, laid out by the tests."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm
from nextmarker import _keys

PANEL = "channel,name,keep,ilastik\nIr191,DNA1,1,1\nXe131,,0,\nEr170,CD3,1,\nHLA,,1,\n"
IMAGES = (
    "image,width_px,height_px,source_file,acquisition_id,acquisition_description,acquisition_start_x_um,"
    "acquisition_start_y_um,acquisition_width_um\n"
    "core_001.tiff,40,30,raw/core.mcd,1,ROI_001,100.5,20,20.0\n"
)


def write_tiff(path, pixels):
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=None)


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(3, (3, 30, 40)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, counts):
    (tmp_path / "panel.csv").write_text(PANEL)
    (tmp_path / "images.csv").write_text(IMAGES)
    for number in (1, 2):
        write_tiff(tmp_path / "img" / f"core_00{number}.tiff", counts * number)
        write_tiff(tmp_path / "masks_deepcell" / f"core_00{number}.tiff", (counts[0] * number).astype(np.uint16))
    return tmp_path


@pytest.mark.parametrize("reader", [nm.io.read_steinbock, nm.io.read])
def test_images_are_named_by_the_panel_and_have_their_masks(folder, counts, reader):
    sdata = reader(folder)
    assert list(sdata.images) == ["core_001", "core_002"]
    assert sdata["core_002"]["c"].values.tolist() == ["DNA1", "CD3", "HLA"]
    assert sdata["core_002"].dtype == np.float32
    np.testing.assert_array_equal(sdata["core_002"], counts * 2)
    np.testing.assert_array_equal(sdata["masks_core_002"], counts[0] * 2)
    assert np.issubdtype(sdata["masks_core_002"].dtype, np.integer)
    assert sdata.attrs[_keys.CHANNELS]["core_001"] == {
        "name": ["DNA1", "CD3", "HLA"],
        "original_name": ["Ir191", "Er170", "HLA"],
        "metal": ["Ir191", "Er170", ""],
    }


def test_the_table_of_images_tells_where_they_come_from(folder):
    sdata = nm.io.read_steinbock(folder)
    assert sdata.attrs[_keys.ACQUISITIONS]["core_001"] == {
        "sample": "core",
        "acquisition": 1,
        "description": "ROI_001",
        "slide_x": 100.5,
        "slide_y": 20.0,
    }
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"core_001": 0.5}
    assert nm.io.read_steinbock(folder, pixel_size=2).attrs[_keys.PIXEL_SIZE] == {"core_001": 2.0, "core_002": 2.0}


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"a,b\n1,2\n", IMAGES.replace("20.0", "?").encode()])
def test_a_table_of_images_that_says_nothing_does_no_harm(folder, content):
    (folder / "images.csv").unlink()
    if content is not None:
        (folder / "images.csv").write_bytes(content)
    assert nm.io.read_steinbock(folder).attrs[_keys.PIXEL_SIZE] == {}


def test_masks_are_taken_from_the_first_folder_in_the_alphabet(folder, counts):
    write_tiff(folder / "masks" / "core_001.tiff", np.ones((30, 40), np.uint8))
    sdata = nm.io.read_steinbock(folder)
    assert list(sdata.labels) == ["masks_core_001"]
    assert (sdata["masks_core_001"] == 1).all()


def test_an_image_that_does_not_fit_the_panel_is_skipped(folder, counts):
    write_tiff(folder / "img" / "core_002.tiff", counts[:2])
    (folder / "img" / "core_003.tiff").write_bytes(b"II*\x00damaged")
    with pytest.warns(UserWarning, match=r"(?s)core_002\.tiff.*2 channels.*core_003\.tiff"):
        sdata = nm.io.read(folder)
    assert list(sdata.images) == ["core_001"]


@pytest.mark.parametrize("masks", [np.ones((30, 41), np.uint16), np.ones((30, 40), np.float32)])
def test_masks_that_do_not_fit_are_left_out(folder, masks):
    write_tiff(folder / "masks_deepcell" / "core_001.tiff", masks)
    with pytest.warns(UserWarning, match=f"masks left out: .*core_001.tiff has .* pixels of {masks.dtype}"):
        sdata = nm.io.read_steinbock(folder)
    assert list(sdata.labels) == ["masks_core_002"]
    assert list(sdata.images) == ["core_001", "core_002"]


def test_a_panel_of_the_users_own_comes_on_top(folder, counts):
    (folder / "mine.csv").write_text("channel,name\nEr170,T cells\nDNA1,\n")
    sdata = nm.io.read_steinbock(folder, panel=folder / "mine.csv")
    assert sdata["core_001"]["c"].values.tolist() == ["T cells", "DNA1"]
    np.testing.assert_array_equal(sdata["core_001"], counts[[1, 0]])


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not a steinbock directory.*panel\.csv"):
        nm.io.read_steinbock(tmp_path)
