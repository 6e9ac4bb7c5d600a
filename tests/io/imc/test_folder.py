"""Files of imaging mass cytometry side by side: what is read, once, from which, into which table."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import nextmarker as nm
from nextmarker import _keys


def read_quietly(reader, path, **options):
    """Read, where a warning is expected."""
    with pytest.warns(UserWarning, match="While reading"):
        return reader(path, **options)


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


def test_an_export_that_the_mcd_file_does_not_know_is_read_too(slide, imc):
    more = imc.counts(3)
    imc.write_txt(slide[0].parent / "slide_ROI_007_7.txt", more)
    sdata = read_quietly(nm.io.read_mcd, slide[0])
    np.testing.assert_array_equal(sdata["slide_ROI_007_7"], more)


def test_a_folder_reads_an_mcd_file_and_its_exports_once(slide, imc):
    folder = slide[0].parent
    alone = imc.counts(4)
    imc.write_txt(folder / "alone_1.txt", alone)
    (folder / "notes.txt").write_text("Start with the first slide.")
    sdata = nm.io.read(folder)
    assert sorted(sdata.images) == ["alone_1", "slide_ROI_001_1", "slide_tumour_2"]
    report = nm.io.report(sdata)
    assert report.loc[str(folder / "slide_tumour_2.txt"), "note"] == "it belongs to an acquisition of slide.mcd"
    everything = nm.io.read(sorted(folder.glob("slide*")))
    assert list(everything.images) == ["slide_ROI_001_1", "slide_tumour_2"]


def test_exports_belong_to_the_longest_stem(slide, imc):
    folder = slide[0].parent
    pixels = imc.counts(5)
    imc.write_mcd(folder / "slide_ROI.mcd", imc.Acquisition(1, pixels, "001", xml={"MaxX": None}))
    assert list(read_quietly(nm.io.read_mcd, folder / "slide_ROI.mcd").images) == ["slide_ROI_001_1"]
    imc.write_mcd(slide[0], imc.Acquisition(2, slide[2], "tumour"))
    assert list(nm.io.read_mcd(slide[0]).images) == ["slide_tumour_2"]


def test_tiff_files_beside_an_mcd_file_are_left_out_with_a_warning(slide):
    (slide[0].parent / "slide_ROI_001_1.ome.tiff").write_bytes(b"an export of another kind")
    with pytest.warns(UserWarning, match=r"left out: \['slide_ROI_001_1\.ome\.tiff'\]"):
        nm.io.read(slide[0].parent)


@pytest.mark.parametrize("reader", [nm.io.read_mcd, nm.io.read_imc_txt])
def test_no_such_file(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match="No such file: .*missing"):
        reader(tmp_path / "missing.mcd")
    with pytest.raises(FileNotFoundError, match=r"is a folder: read it with nm\.io\.read"):
        reader(tmp_path)
    with pytest.raises(ValueError, match="must be positive"):
        reader(tmp_path / "missing.mcd", pixel_size=0)


def test_cells_of_an_mcd_file_know_metal_sample_and_acquisition(slide, imc):
    sdata = nm.io.read_mcd(slide[0])
    cells = {name: [[2.0, 2.0], [3.0, 4.0]] for name in sdata.images}
    nm.pp.add_cells(sdata, {n: pd.DataFrame(xy, columns=["x", "y"]) for n, xy in cells.items()}, progress=False)
    adata = sdata["table"]
    assert adata.var["original_name"].tolist() == imc.labels
    assert adata.var["metal"].tolist() == imc.metals
    assert adata.obs["sample"].tolist() == ["slide"] * 4
    assert adata.obs["acquisition"].tolist() == ["1", "1", "2", "2"]
    sdata.write(slide[0].parent / "cells.zarr")
    back = sd.read_zarr(slide[0].parent / "cells.zarr")["table"]
    assert back.obs["sample"].tolist() == ["slide"] * 4
    assert back.var["metal"].tolist() == imc.metals
