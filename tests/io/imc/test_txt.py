"""Exports of imaging mass cytometry that the tests write, whole and damaged."""

import numpy as np
import pytest

import nextmarker as nm
from nextmarker import _keys


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


def test_a_value_that_is_no_number_is_refused_when_it_is_read(slide):
    path = slide[0].with_name("slide_ROI_001_1.txt")
    lines = path.read_text().splitlines()
    fields = lines[5].split("\t")
    path.write_text("\n".join([*lines[:5], "\t".join([*fields[:7], "??", *fields[8:]]), *lines[6:], ""]))
    sdata = nm.io.read_imc_txt(path)
    with pytest.raises(ValueError, match=r"slide_ROI_001_1\.txt is damaged: could not convert"):
        sdata["slide_ROI_001_1"].compute()


def test_a_truncated_export_has_the_lines_that_are_whole(tmp_path, imc):
    pixels = imc.counts()
    path = tmp_path / "slide_1.txt"
    imc.write_txt(path, pixels)
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
        "line 2 does not have 8",
    ),
    "no metal": (lambda lines: [lines[0].replace("(Pr141Di)", ""), *lines[1:]], "'CD3\\(Er170Di\\)'"),
    "another file": (lambda lines: ["Start with the first slide.", *lines[1:]], "not an export"),
    "a value is missing": (
        lambda lines: [*lines[:9], lines[9].replace("384\t", ""), *lines[10:]],
        "line 10 does not have 9",
    ),
    "a value too many": (lambda lines: [*lines[:9], "1\t" + lines[9], *lines[10:]], "line 10 does not have 9"),
    "a place outside": (
        lambda lines: [*lines[:9], lines[9].replace("\t1\t1\t", "\t1\t1e9\t"), *lines[10:]],
        "35 pixels",
    ),
    "a place far outside of a single row": (
        lambda lines: [*lines[:4], lines[4].replace("\t3\t0\t", "\t1e7\t0\t")],
        "4 pixels for an image of",
    ),
}


@pytest.mark.parametrize("case", DAMAGED_TXT)
def test_a_damaged_export_is_refused(tmp_path, imc, case):
    change, reason = DAMAGED_TXT[case]
    path = tmp_path / "slide_1.txt"
    imc.write_txt(path, imc.counts())
    path.write_text("\n".join([*change(path.read_text().splitlines()), ""]))
    with pytest.raises(ValueError, match=rf"slide_1\.txt: .*{reason}"):
        nm.io.read_imc_txt(path)


def test_an_export_with_labels_of_windows_is_decoded_and_says_so(tmp_path, imc):
    imc.write_txt(tmp_path / "slide_1.txt", imc.counts(), labels=["αSMA", "µ", "DNA1"][1:] + ["ß"], encoding="cp1252")
    with pytest.warns(UserWarning, match="not UTF-8: read as Windows-1252"):
        image = nm.io.read_imc_txt(tmp_path / "slide_1.txt")["slide_1"]
    assert image["c"].values.tolist() == ["µ", "DNA1", "ß"]
