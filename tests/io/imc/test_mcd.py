"""Acquisitions of .mcd files that the tests write, whole and damaged."""

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd

import nextmarker as nm
from nextmarker import _keys

MARKERS = ["Ag107", "Cytoker", "DNA1"]


def read_quietly(reader, path, **options):
    """Read, where a warning is expected."""
    with pytest.warns(UserWarning, match="While reading"):
        return reader(path, **options)


def test_every_acquisition_of_an_mcd_file_is_an_image(slide):
    path, first, second = slide
    sdata = nm.io.read_mcd(path)
    assert list(sdata.images) == ["slide_ROI_001_1", "slide_tumour_2"]
    for name, pixels in zip(sdata.images, (first, second), strict=True):
        image = sdata[name]
        assert image.dims == ("c", "y", "x")
        assert image.dtype == np.float32
        assert image["c"].values.tolist() == MARKERS
        assert isinstance(image.data, da.Array)
        np.testing.assert_array_equal(image, pixels)


def test_metals_labels_and_acquisition_are_kept(slide, imc):
    sdata = nm.io.read_mcd(slide[0])
    assert sdata.attrs[_keys.CHANNELS]["slide_ROI_001_1"] == {
        "name": MARKERS,
        "original_name": imc.labels,
        "metal": imc.metals,
    }
    assert sdata.attrs[_keys.ACQUISITIONS]["slide_tumour_2"] == {
        "sample": "slide",
        "acquisition": 2,
        "description": "tumour",
        "start_time": "2021-03-05T13:36:08+01:00",
        "slide_x": 31080.0,
        "slide_y": 13449.0,
    }
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"slide_ROI_001_1": 1.0, "slide_tumour_2": 1.0}


def test_what_was_read_survives_writing(slide):
    sdata = nm.io.read_mcd(slide[0])
    sdata.write(slide[0].parent / "slide.zarr")
    back = sd.read_zarr(slide[0].parent / "slide.zarr")
    assert back.attrs[_keys.ACQUISITIONS] == sdata.attrs[_keys.ACQUISITIONS]
    assert back.attrs[_keys.CHANNELS] == sdata.attrs[_keys.CHANNELS]
    np.testing.assert_array_equal(back["slide_tumour_2"], slide[2])


def test_pixels_are_read_when_they_are_needed_and_block_by_block(tmp_path, imc):
    pixels = np.zeros((3, 3, 1030), np.float32)
    pixels[:, 2, 1027] = [7771, 7772, 7773]
    imc.write_mcd(tmp_path / "wide.mcd", imc.Acquisition(1, pixels))
    image = nm.io.read_mcd(tmp_path / "wide.mcd")["wide_1"]
    assert image.data.chunks == ((3,), (3,), (1024, 6))
    np.testing.assert_array_equal(image, pixels)
    content = (tmp_path / "wide.mcd").read_bytes()
    (tmp_path / "wide.mcd").write_bytes(content.replace(np.float32(7773).tobytes(), np.float32(7774).tobytes()))
    assert image[2, 2, 1027] == 7774


def test_pixel_size_of_the_file_and_of_the_user(tmp_path, imc):
    for axis in ("XY", "X"):
        steps = {f"AblationDistanceBetweenShots{letter}": 2 for letter in axis}
        imc.write_mcd(tmp_path / f"{axis}.mcd", imc.Acquisition(1, imc.counts(), xml=steps))
    assert nm.io.read_mcd(tmp_path / "XY.mcd").attrs[_keys.PIXEL_SIZE] == {"XY_1": 2.0}
    assert nm.io.read_mcd(tmp_path / "X.mcd", pixel_size=3).attrs[_keys.PIXEL_SIZE] == {"X_1": 3.0}
    imc.write_txt(tmp_path / "X_1.txt", imc.counts())  # cannot know better
    with pytest.raises(ValueError, match="not square"):
        nm.io.read_mcd(tmp_path / "X.mcd")


def test_an_mcd_file_without_acquisitions(tmp_path, imc):
    imc.write_mcd(tmp_path / "slide.mcd")
    with pytest.raises(ValueError, match="lists no acquisition"):
        nm.io.read_mcd(tmp_path / "slide.mcd")


def test_pixels_in_any_order_go_to_their_place(tmp_path, imc):
    pixels = imc.counts()
    order = np.random.default_rng(0).permutation(35)
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, pixels, order=order))
    imc.write_txt(tmp_path / "other_1.txt", pixels, order=order)
    np.testing.assert_array_equal(nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"], pixels)
    np.testing.assert_array_equal(nm.io.read_imc_txt(tmp_path / "other_1.txt")["other_1"], pixels)


def test_an_acquisition_without_signal_is_kept(tmp_path, imc):
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, np.zeros((3, 4, 5))))
    assert nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"].values.sum() == 0


BAD = {
    "not acquired": ({"DataStartOffset": 0, "DataEndOffset": 0}, "was not acquired"),
    "beyond the end": ({"DataEndOffset": 10**9}, "but the file has"),
    "end before start": ({"DataEndOffset": 3}, "but the file has"),
    "no whole number": ({"MaxX": "?"}, "not an integer"),
    "no size": ({"MaxX": None}, "MaxX is missing"),
    "too large": ({"DataStartOffset": 16, "DataEndOffset": 30, "MaxX": 10**6, "MaxY": 10**6}, "has no pixels"),
    "other numbers": ({"ValueBytes": 8}, "not of 4"),
    "pixels of its neighbour": ({"DataStartOffset": 52, "DataEndOffset": 52 + 24 * 24}, "outside|pixels for|several"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_acquisition_among_good_ones_is_skipped_by_name(tmp_path, imc, case):
    xml, reason = BAD[case]
    good = imc.counts(1)
    path = tmp_path / "slide.mcd"
    imc.write_mcd(
        path, imc.Acquisition(1, good), imc.Acquisition(2, imc.counts(2, 6, 4), xml=xml), imc.Acquisition(3, good)
    )
    with pytest.warns(UserWarning, match=rf"acquisition 2: skipped, .*({reason})"):
        sdata = nm.io.read_mcd(path)
    assert list(sdata.images) == ["slide_1", "slide_3"]
    np.testing.assert_array_equal(sdata["slide_3"], good)
    assert nm.io.report(sdata).loc[f"{path}: acquisition 2", "status"] == "skipped"


@pytest.mark.parametrize("case", BAD)
def test_one_bad_acquisition_is_read_from_its_export(tmp_path, imc, case):
    bad = imc.counts(2, 6, 4)
    path = tmp_path / "slide.mcd"
    imc.write_mcd(path, imc.Acquisition(1, imc.counts(1)), imc.Acquisition(2, bad, "ROI_002", xml=BAD[case][0]))
    imc.write_txt(tmp_path / "slide_ROI_002_2.txt", bad)
    with pytest.warns(UserWarning, match=r"slide_ROI_002_2\.txt.*read from the \.txt export"):
        sdata = nm.io.read_mcd(path)
    np.testing.assert_array_equal(sdata["slide_ROI_002_2"], bad)
    assert sdata.attrs[_keys.ACQUISITIONS]["slide_ROI_002_2"]["start_time"].startswith("2021")


def test_an_export_is_found_by_its_number_if_its_description_is_written_otherwise(tmp_path, imc):
    bad = imc.counts(2)
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, bad, "a/b", xml={"MaxX": None}))
    imc.write_txt(tmp_path / "slide_a_b_1.txt", bad)
    np.testing.assert_array_equal(read_quietly(nm.io.read_mcd, tmp_path / "slide.mcd")["slide_a_b_1"], bad)


def test_an_acquisition_that_stopped_early_has_the_rows_that_were_scanned(tmp_path, imc):
    pixels = imc.counts()
    scanned = np.arange(4 * 7 + 3)  # of 5 x 7 pixels: three in the last row; 9 rows were planned
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, pixels, planned=(9, 7), order=scanned))
    with pytest.warns(UserWarning, match="incomplete: 32 of its 7 x 9 pixels"):
        image = nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"]
    assert image.shape == (3, 5, 7)
    np.testing.assert_array_equal(image[:, :4], pixels[:, :4])
    np.testing.assert_array_equal(image[:, 4, :3], pixels[:, 4, :3])
    assert (image[:, 4, 3:] == 0).all()


def test_an_incomplete_acquisition_is_read_from_its_export_if_that_has_more(tmp_path, imc):
    pixels = imc.counts()
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, pixels, order=np.arange(14)))
    imc.write_txt(tmp_path / "slide_1.txt", pixels)
    np.testing.assert_array_equal(read_quietly(nm.io.read_mcd, tmp_path / "slide.mcd")["slide_1"], pixels)


@pytest.mark.parametrize("name", ["slide.mcd", "slide_ROI_001_1.txt"])
def test_pixels_in_one_place_are_refused_when_they_are_read(slide, name):
    path = slide[0].with_name(name)
    sdata = nm.io.read(path)
    if name.endswith("mcd"):
        path.write_bytes(path.read_bytes().replace(np.float32([4, 3, 25]).tobytes(), np.float32([3, 3, 25]).tobytes()))
    else:
        path.write_text(path.read_text().replace("\t4\t3\t25\t", "\t3\t3\t25\t"))
    with pytest.raises(ValueError, match=rf"{name} is damaged: it has several values for one pixel"):
        sdata["slide_ROI_001_1"].compute()


def test_labels_that_repeat_get_their_metal(tmp_path, imc):
    imc.write_mcd(tmp_path / "slide.mcd", imc.Acquisition(1, imc.counts(), labels=["CD3_1((2))Ag107", "CD3", "DNA1"]))
    assert nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"]["c"].values.tolist() == ["CD3_Ag107", "CD3_Pr141", "DNA1"]


@pytest.mark.parametrize("entry", ["ChannelLabel", "ChannelName"])
def test_a_channel_that_lacks_an_entry_is_read(tmp_path, imc, entry):
    pixels, path = imc.counts(), tmp_path / "slide.mcd"
    imc.write_mcd(path, imc.Acquisition(1, pixels), imc.Acquisition(2, pixels, labels=["", "CD3", "DNA1"]))
    content = path.read_bytes()
    text = {"ChannelLabel": "<ChannelLabel>107Ag</ChannelLabel>", "ChannelName": "<ChannelName>Pr(141)</ChannelName>"}
    assert content.count(text[entry].encode("utf-16-le")) >= 1
    path.write_bytes(content.replace(text[entry].encode("utf-16-le"), b""))
    sdata = nm.io.read_mcd(path)
    metals = {"ChannelLabel": ["Ag107", "Pr141", "Ir191"], "ChannelName": ["Ag107", "", "Ir191"]}[entry]
    names = {"ChannelLabel": MARKERS, "ChannelName": ["Ag107", "Cytoker_651((3356))Pr141", "DNA1"]}[entry]
    assert sdata["slide_1"]["c"].values.tolist() == names
    assert sdata["slide_2"]["c"].values.tolist() == ["Ag107", "CD3", "DNA1"]
    assert sdata.attrs[_keys.CHANNELS]["slide_1"]["metal"] == metals
    np.testing.assert_array_equal(sdata["slide_1"], pixels)


def test_channels_without_label_and_metal_are_named_by_their_place(tmp_path, imc):
    path = tmp_path / "slide.mcd"
    imc.write_mcd(path, imc.Acquisition(1, imc.counts(), labels=["", "CD3", ""]))
    content = path.read_bytes()
    for metal in ("Ag(107)", "Ir(191)"):
        content = content.replace(f"<ChannelName>{metal}</ChannelName>".encode("utf-16-le"), b"")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="'' -> 'channel_1'"):
        sdata = nm.io.read_mcd(path)
    assert sdata["slide_1"]["c"].values.tolist() == ["channel_1", "CD3", "channel_3"]
