"""Imaging mass cytometry: .mcd files and .txt exports that the tests write themselves, whole and damaged."""

from dataclasses import dataclass, field

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import nextmarker as nm
from nextmarker import _keys

LABELS = ["107Ag", "Cytoker_651((3356))Pr141", "DNA1"]
METALS = ["Ag107", "Pr141", "Ir191"]
MARKERS = ["Ag107", "Cytoker", "DNA1"]


@dataclass
class Acquisition:
    """What a test writes into an .mcd file."""

    id: int
    pixels: np.ndarray
    """(c, y, x)"""
    description: str = ""
    planned: tuple[int, int] | None = None
    """Height and width that were to be scanned."""
    order: np.ndarray | None = None
    """Of the pixels in the file."""
    xml: dict = field(default_factory=dict)
    """Entries that differ from what is right; None to leave them out."""
    labels: list = field(default_factory=lambda: LABELS)

    def records(self) -> np.ndarray:
        """(pixels, x y z and channels), as they lie in the file."""
        _, height, width = self.pixels.shape
        y, x = np.mgrid[:height, :width]
        places = np.column_stack([x.ravel(), y.ravel(), np.arange(height * width)])
        rows = np.column_stack([places, self.pixels.reshape(len(self.pixels), -1).T]).astype("<f4")
        return rows if self.order is None else rows[self.order]


def entries(tag, **values):
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in values.items() if value is not None)
    return f"<{tag}>{inner}</{tag}>"


def acquisition_xml(acquisition, start, end):
    height, width = acquisition.planned or acquisition.pixels.shape[1:]
    known = {
        "ID": acquisition.id,
        "AcquisitionROIID": acquisition.id,
        "Description": acquisition.description,
        "DataStartOffset": start,
        "DataEndOffset": end,
        "ValueBytes": 4,
        "MaxX": width,
        "MaxY": height,
        "AblationDistanceBetweenShotsX": 1,
        "AblationDistanceBetweenShotsY": 1,
        "ROIStartXPosUm": 31080000,  # the instrument writes the start times 1000
        "ROIStartYPosUm": 13449000,
        "ROIEndXPosUm": 31140.5,
        "ROIEndYPosUm": 13390.25,
        "StartTimeStamp": "2021-03-05T13:36:08+01:00",
    }
    names = [("X", "X"), ("Y", "Y"), ("Z", "Z")]
    names += [(f"{metal[:2]}({metal[2:]})", label) for metal, label in zip(METALS, acquisition.labels, strict=True)]
    channels = "".join(
        entries("AcquisitionChannel", AcquisitionID=acquisition.id, OrderNumber=n, ChannelName=name, ChannelLabel=label)
        for n, (name, label) in enumerate(names)
    )
    roi = entries("AcquisitionROI", ID=acquisition.id, PanoramaID=1)
    return roi + entries("Acquisition", **(known | acquisition.xml)) + channels


def write_mcd(path, *acquisitions):
    """Pixels first, then the schema, in UTF-16, at the end: as the instrument does."""
    body = b"\x00" * 16
    xml = entries("Slide", ID=0) + entries("Panorama", ID=1, SlideID=0, Type="Default")
    for acquisition in acquisitions:
        records = acquisition.records().tobytes()
        xml += acquisition_xml(acquisition, len(body), len(body) + len(records))
        body += records
    path.write_bytes(body + f"<MCDSchema>{xml}</MCDSchema>".encode("utf-16-le"))


def write_txt(path, pixels, labels=LABELS, metals=METALS, order=None, encoding="utf-8"):
    columns = [f"{label}({metal}Di)" for label, metal in zip(labels, metals, strict=True)]
    header = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", *columns]
    rows = Acquisition(1, pixels, order=order).records()
    lines = [
        "\t".join(["1", "2", "384", *(f"{v:.0f}" for v in row[:3]), *(f"{v:.3f}" for v in row[3:])]) for row in rows
    ]
    path.write_bytes("\n".join(["\t".join(header), *lines, ""]).encode(encoding))


def counts(seed=0, height=5, width=7):
    """Three channels with three decimals, not square."""
    return (np.random.default_rng(seed).poisson(2000, (3, height, width)) / 1000).astype(np.float32)


def read_quietly(reader, path, **options):
    """Read, where a warning is expected."""
    with pytest.warns(UserWarning, match="While reading"):
        return reader(path, **options)


@pytest.fixture
def slide(tmp_path):
    """Two acquisitions of different size, and their exports."""
    first, second = counts(1), counts(2, 6, 4)
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, first, "ROI_001"), Acquisition(2, second, "tumour"))
    write_txt(tmp_path / "slide_ROI_001_1.txt", first)
    write_txt(tmp_path / "slide_tumour_2.txt", second)
    return tmp_path / "slide.mcd", first, second


def damage(path, old, new):
    """Change the schema of an .mcd file."""
    content = path.read_bytes()
    assert content.count(old.encode("utf-16-le")) == 1
    path.write_bytes(content.replace(old.encode("utf-16-le"), new.encode("utf-16-le")))


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


def test_an_mcd_file_and_its_exports_are_equal(slide):
    path, *_ = slide
    sdata = nm.io.read_mcd(path)
    for name in sdata.images:
        export = nm.io.read_imc_txt(path.parent / f"{name}.txt")
        np.testing.assert_array_equal(export[name], sdata[name])
        assert export.attrs[_keys.CHANNELS] == {name: sdata.attrs[_keys.CHANNELS][name]}
        assert export.attrs[_keys.PIXEL_SIZE] == {name: 1.0}
        known = export.attrs[_keys.ACQUISITIONS][name]
        assert known.items() <= (sdata.attrs[_keys.ACQUISITIONS][name] | {"sample": known["sample"]}).items()


def test_metals_labels_and_acquisition_are_kept(slide):
    sdata = nm.io.read_mcd(slide[0])
    assert sdata.attrs[_keys.CHANNELS]["slide_ROI_001_1"] == {
        "name": MARKERS,
        "original_name": LABELS,
        "metal": METALS,
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


def test_pixels_are_read_when_they_are_needed_and_block_by_block(tmp_path):
    pixels = np.zeros((3, 3, 1030), np.float32)
    pixels[:, 2, 1027] = [7771, 7772, 7773]
    write_mcd(tmp_path / "wide.mcd", Acquisition(1, pixels))
    image = nm.io.read_mcd(tmp_path / "wide.mcd")["wide_1"]
    assert image.data.chunks == ((3,), (3,), (1024, 6))
    np.testing.assert_array_equal(image, pixels)
    content = (tmp_path / "wide.mcd").read_bytes()
    (tmp_path / "wide.mcd").write_bytes(content.replace(np.float32(7773).tobytes(), np.float32(7774).tobytes()))
    assert image[2, 2, 1027] == 7774


def test_pixel_size_of_the_file_and_of_the_user(tmp_path):
    for axis in ("XY", "X"):
        steps = {f"AblationDistanceBetweenShots{letter}": 2 for letter in axis}
        write_mcd(tmp_path / f"{axis}.mcd", Acquisition(1, counts(), xml=steps))
    assert nm.io.read_mcd(tmp_path / "XY.mcd").attrs[_keys.PIXEL_SIZE] == {"XY_1": 2.0}
    assert nm.io.read_mcd(tmp_path / "X.mcd", pixel_size=3).attrs[_keys.PIXEL_SIZE] == {"X_1": 3.0}
    with pytest.raises(ValueError, match="not square"):
        nm.io.read_mcd(tmp_path / "X.mcd")


def test_pixels_in_any_order_go_to_their_place(tmp_path):
    pixels = counts()
    order = np.random.default_rng(0).permutation(35)
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, pixels, order=order))
    write_txt(tmp_path / "other_1.txt", pixels, order=order)
    np.testing.assert_array_equal(nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"], pixels)
    np.testing.assert_array_equal(nm.io.read_imc_txt(tmp_path / "other_1.txt")["other_1"], pixels)


def test_an_acquisition_without_signal_is_kept(tmp_path):
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, np.zeros((3, 4, 5))))
    assert nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"].values.sum() == 0


BAD = {
    "not acquired": ({"DataStartOffset": 0, "DataEndOffset": 0}, "was not acquired"),
    "beyond the end": ({"DataEndOffset": 10**9}, "of a file of"),
    "end before start": ({"DataEndOffset": 3}, "of a file of"),
    "no whole number": ({"MaxX": "?"}, "no whole number"),
    "no size": ({"MaxX": None}, "does not tell its MaxX"),
    "too large": ({"DataStartOffset": 16, "DataEndOffset": 30, "MaxX": 10**6, "MaxY": 10**6}, "holds no pixels"),
    "other numbers": ({"ValueBytes": 8}, "not of 4"),
    "pixels of its neighbour": ({"DataStartOffset": 52, "DataEndOffset": 52 + 24 * 24}, "outside|pixels for|several"),
}


@pytest.mark.parametrize("case", BAD)
def test_one_bad_acquisition_among_good_ones_is_skipped_by_name(tmp_path, case):
    xml, reason = BAD[case]
    good = counts(1)
    path = tmp_path / "slide.mcd"
    write_mcd(path, Acquisition(1, good), Acquisition(2, counts(2, 6, 4), xml=xml), Acquisition(3, good))
    with pytest.warns(UserWarning, match=rf"acquisition 2: skipped, .*({reason})"):
        sdata = nm.io.read_mcd(path)
    assert list(sdata.images) == ["slide_1", "slide_3"]
    np.testing.assert_array_equal(sdata["slide_3"], good)
    assert nm.io.report(sdata).loc[f"{path}: acquisition 2", "status"] == "skipped"


@pytest.mark.parametrize("case", BAD)
def test_one_bad_acquisition_is_read_from_its_export(tmp_path, case):
    bad = counts(2, 6, 4)
    path = tmp_path / "slide.mcd"
    write_mcd(path, Acquisition(1, counts(1)), Acquisition(2, bad, "ROI_002", xml=BAD[case][0]))
    write_txt(tmp_path / "slide_ROI_002_2.txt", bad)
    with pytest.warns(UserWarning, match=r"slide_ROI_002_2\.txt.*read from the \.txt export"):
        sdata = nm.io.read_mcd(path)
    np.testing.assert_array_equal(sdata["slide_ROI_002_2"], bad)
    assert sdata.attrs[_keys.ACQUISITIONS]["slide_ROI_002_2"]["start_time"].startswith("2021")


def test_an_export_is_found_by_its_number_if_its_description_is_written_otherwise(tmp_path):
    bad = counts(2)
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, bad, "a/b", xml={"MaxX": None}))
    write_txt(tmp_path / "slide_a_b_1.txt", bad)
    np.testing.assert_array_equal(read_quietly(nm.io.read_mcd, tmp_path / "slide.mcd")["slide_a_b_1"], bad)


def test_an_acquisition_that_stopped_early_has_the_rows_that_were_scanned(tmp_path):
    pixels = counts()
    scanned = np.arange(4 * 7 + 3)  # of 5 x 7 pixels: three in the last row; 9 rows were planned
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, pixels, planned=(9, 7), order=scanned))
    with pytest.warns(UserWarning, match="incomplete: 32 of its 7 x 9 pixels"):
        image = nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"]
    assert image.shape == (3, 5, 7)
    np.testing.assert_array_equal(image[:, :4], pixels[:, :4])
    np.testing.assert_array_equal(image[:, 4, :3], pixels[:, 4, :3])
    assert (image[:, 4, 3:] == 0).all()


def test_an_incomplete_acquisition_is_read_from_its_export_if_that_has_more(tmp_path):
    pixels = counts()
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, pixels, order=np.arange(14)))
    write_txt(tmp_path / "slide_1.txt", pixels)
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


@pytest.mark.parametrize("keep", [0.3, 0.97])
def test_a_truncated_mcd_file_is_read_from_its_exports(slide, keep):
    path, first, second = slide
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.warns(UserWarning, match=r"slide\.mcd: skipped, its list of acquisitions.* missing or damaged"):
        sdata = nm.io.read_mcd(path)
    np.testing.assert_array_equal(sdata["slide_ROI_001_1"], first)
    np.testing.assert_array_equal(sdata["slide_tumour_2"], second)
    assert sdata.attrs[_keys.ACQUISITIONS]["slide_tumour_2"] == {
        "sample": "slide",
        "acquisition": 2,
        "description": "tumour",
    }


@pytest.mark.parametrize("content", [b"", b"no acquisitions", "<MCDSchema><a></MCDSchema>".encode("utf-16-le")])
def test_an_mcd_file_that_cannot_be_read_and_has_no_export_is_an_error(tmp_path, content):
    (tmp_path / "slide.mcd").write_bytes(content)
    for reader in (nm.io.read_mcd, nm.io.read):
        with pytest.raises(ValueError, match=r"slide\.mcd: its list of acquisitions.*0 \.txt exports"):
            reader(tmp_path / "slide.mcd")


def test_an_mcd_file_that_cannot_be_read_is_skipped_among_others(slide):
    (slide[0].parent / "other.mcd").write_bytes(b"")
    sdata = read_quietly(nm.io.read, slide[0].parent)
    assert list(sdata.images) == ["slide_ROI_001_1", "slide_tumour_2"]
    assert nm.io.report(sdata).loc[str(slide[0].parent / "other.mcd"), "status"] == "skipped"


def test_an_export_that_the_mcd_file_does_not_know_is_read_too(slide):
    more = counts(3)
    write_txt(slide[0].parent / "slide_ROI_007_7.txt", more)
    sdata = read_quietly(nm.io.read_mcd, slide[0])
    np.testing.assert_array_equal(sdata["slide_ROI_007_7"], more)


def test_a_folder_reads_an_mcd_file_and_its_exports_once(slide):
    folder = slide[0].parent
    alone = counts(4)
    write_txt(folder / "alone_1.txt", alone)
    (folder / "notes.txt").write_text("Start with the first slide.")
    sdata = nm.io.read(folder)
    assert sorted(sdata.images) == ["alone_1", "slide_ROI_001_1", "slide_tumour_2"]
    report = nm.io.report(sdata)
    assert report.loc[str(folder / "slide_tumour_2.txt"), "note"] == "slide.mcd holds the same acquisition"
    everything = nm.io.read(sorted(folder.glob("slide*")))
    assert list(everything.images) == ["slide_ROI_001_1", "slide_tumour_2"]


def test_exports_belong_to_the_longest_stem(slide):
    folder = slide[0].parent
    pixels = counts(5)
    write_mcd(folder / "slide_ROI.mcd", Acquisition(1, pixels, "001", xml={"MaxX": None}))
    assert list(read_quietly(nm.io.read_mcd, folder / "slide_ROI.mcd").images) == ["slide_ROI_001_1"]
    damage(
        slide[0], "<ID>1</ID><AcquisitionROIID>1</AcquisitionROIID>", "<ID>1</ID><AcquisitionROIID>9</AcquisitionROIID>"
    )
    assert list(nm.io.read_mcd(slide[0]).images) == ["slide_tumour_2"]


def test_tiff_files_beside_an_mcd_file_are_left_out_with_a_warning(slide):
    (slide[0].parent / "slide_ROI_001_1.ome.tiff").write_bytes(b"an export of another kind")
    with pytest.warns(UserWarning, match=r"left out: \['slide_ROI_001_1\.ome\.tiff'\]"):
        nm.io.read(slide[0].parent)


def test_a_truncated_export_has_the_lines_that_are_whole(tmp_path):
    pixels = counts()
    path = tmp_path / "slide_1.txt"
    write_txt(path, pixels)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-4]) + "\n" + lines[-4][:-9])
    with pytest.warns(UserWarning, match="(?s)last line is cut short.*incomplete: 4 of its 7 x 5"):
        image = nm.io.read_imc_txt(path)["slide_1"]
    np.testing.assert_array_equal(image[:, :4], pixels[:, :4])
    np.testing.assert_array_equal(image[:, 4, :3], pixels[:, 4, :3])
    assert (image[:, 4, 3:] == 0).all()


DAMAGED_TXT = {
    "a row is missing": (lambda lines: lines[:10] + lines[20:], "25 pixels for an image of 7 x 5"),
    "only a header": (lambda lines: lines[:1], "cannot be read|no pixels"),
    "a word": (lambda lines: [*lines[:9], lines[9].replace("384\t", "384\tx"), *lines[10:]], "cannot be read"),
    "columns run together": (
        lambda lines: [lines[0].replace(")\t1", ")1").replace(")\tC", ")C"), *lines[1:]],
        "columns",
    ),
    "no metal": (lambda lines: [lines[0].replace("(Pr141Di)", ""), *lines[1:]], "'CD3\\(Er170Di\\)'"),
    "another file": (lambda lines: ["Start with the first slide.", *lines[1:]], "no .txt export"),
    "a place outside": (
        lambda lines: [*lines[:9], lines[9].replace("\t1\t1\t", "\t1\t1e9\t"), *lines[10:]],
        "35 pixels",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_TXT)
def test_a_damaged_export_is_refused(tmp_path, case):
    change, reason = DAMAGED_TXT[case]
    path = tmp_path / "slide_1.txt"
    write_txt(path, counts())
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=rf"slide_1\.txt: .*{reason}"):
        nm.io.read_imc_txt(path)


def test_an_export_with_labels_of_windows_is_decoded_and_says_so(tmp_path):
    write_txt(tmp_path / "slide_1.txt", counts(), labels=["αSMA", "µ", "DNA1"][1:] + ["ß"], encoding="cp1252")
    with pytest.warns(UserWarning, match="not UTF-8: read as Windows-1252"):
        image = nm.io.read_imc_txt(tmp_path / "slide_1.txt")["slide_1"]
    assert image["c"].values.tolist() == ["µ", "DNA1", "ß"]


@pytest.mark.parametrize("reader", [nm.io.read_mcd, nm.io.read_imc_txt])
def test_no_such_file(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match="No such file: .*missing"):
        reader(tmp_path / "missing.mcd")
    with pytest.raises(FileNotFoundError, match=r"is a folder: read it with nm\.io\.read"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="pixel_size must be positive"):
        reader(tmp_path / "missing.mcd", pixel_size=0)


def test_labels_that_repeat_get_their_metal(tmp_path):
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, counts(), labels=["CD3_1((2))Ag107", "CD3", "DNA1"]))
    assert nm.io.read_mcd(tmp_path / "slide.mcd")["slide_1"]["c"].values.tolist() == ["CD3_Ag107", "CD3_Pr141", "DNA1"]


def test_cells_of_an_mcd_file_know_metal_sample_and_acquisition(slide):
    sdata = nm.io.read_mcd(slide[0])
    cells = {name: [[2.0, 2.0], [3.0, 4.0]] for name in sdata.images}
    nm.pp.add_cells(sdata, {n: pd.DataFrame(xy, columns=["x", "y"]) for n, xy in cells.items()}, progress=False)
    adata = sdata["table"]
    assert adata.var["original_name"].tolist() == LABELS
    assert adata.var["metal"].tolist() == METALS
    assert adata.obs["sample"].tolist() == ["slide"] * 4
    assert adata.obs["acquisition"].tolist() == ["1", "1", "2", "2"]
    sdata.write(slide[0].parent / "cells.zarr")
    back = sd.read_zarr(slide[0].parent / "cells.zarr")["table"]
    assert back.obs["sample"].tolist() == ["slide"] * 4
    assert back.var["metal"].tolist() == METALS
