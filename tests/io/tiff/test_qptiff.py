"""QPTIFF of PhenoCycler instruments, imitated after their documentation."""

import numpy as np
import pytest
import tifffile
from spatialdata.transformations import Scale, get_transformation

import nextmarker as nm
from nextmarker import _keys

RNG = np.random.default_rng(0)


def qpi(kind, name="", biomarker="", more=""):
    marker = f"<Biomarker>{biomarker}</Biomarker>" if biomarker else ""
    text = f"<ImageType>{kind}</ImageType><Name>{name}</Name>{marker}{more}"
    root = "PerkinElmer-QPI-ImageDescription"
    return f'<?xml version="1.0" encoding="utf-16"?><{root}>{text}</{root}>'


def write_qptiff(path, counts, markers=("DAPI", "CD8", "CD4"), dyes=("DAPI", "Opal 520", "Opal 520")):
    """Full resolution, thumbnail, pyramid, macro, label: the order of the instrument."""
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    plain = {"metadata": None, "software": "PerkinElmer-QPI", "photometric": "minisblack"}
    tiled = {"tile": (64, 64), "compression": "lzw", **plain}
    photo = np.zeros((20, 30, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for plane, marker, dye in zip(counts, markers, dyes, strict=True):
            description = qpi("FullResolution", dye, marker, "<SlideID>S7</SlideID>")
            tif.write(plane, description=description, **tiled, **resolution)
        tif.write(photo, description=qpi("Thumbnail"), **plain | {"photometric": "rgb"})
        for plane, dye in zip(counts, dyes, strict=True):
            tif.write(plane[::2, ::2], description=qpi("ReducedResolution", dye), **tiled)
        for kind in ["Overview", "Label"]:
            tif.write(photo, description=qpi(kind), **plain | {"photometric": "rgb"})


def test_qptiff_is_read_in_full_resolution_with_its_markers(tmp_path, recwarn):
    counts = RNG.integers(0, 255, (3, 150, 210), np.uint8)
    write_qptiff(tmp_path / "slide.qptiff", counts)
    for path in (tmp_path, tmp_path / "slide.qptiff"):
        sdata = nm.io.read(path)
        np.testing.assert_array_equal(sdata["slide"], counts)
        assert sdata["slide"]["c"].values.tolist() == ["DAPI", "CD8", "CD4"]
        assert sdata.attrs[_keys.CHANNELS]["slide"]["original_name"] == ["DAPI", "Opal 520", "Opal 520"]
        assert sdata.attrs[_keys.ACQUISITIONS] == {"slide": {"SlideID": "S7"}}
        assert get_transformation(sdata["slide"], "slide") == Scale([0.5, 0.5], axes=("x", "y"))
        left_out = nm.io.report(sdata).query("status == 'skipped'").index
        assert [source.rpartition(": ")[2] for source in left_out] == ["Label", "Overview", "Thumbnail"]
    assert not [w for w in recwarn if w.category is UserWarning]


def test_qptiff_with_a_channel_that_lost_its_description_is_refused(tmp_path):
    write_qptiff(tmp_path / "slide.qptiff", RNG.integers(0, 255, (3, 150, 210), np.uint8))
    content = (tmp_path / "slide.qptiff").read_bytes()
    (tmp_path / "slide.qptiff").write_bytes(content.replace(b"FullResolution", b"FullRexolution", 2))
    with pytest.raises(ValueError, match="page 0 has the size of a channel, but is declared as 'FullRexolution'"):
        nm.io.read(tmp_path / "slide.qptiff")


def test_qptiff_without_biomarkers_is_named_by_its_dyes(tmp_path):
    write_qptiff(
        tmp_path / "slide.qptiff", RNG.integers(0, 255, (2, 64, 64), np.uint8), ("", ""), ("DAPI", "CD8 (Opal)")
    )
    sdata = nm.io.read_tiff(tmp_path / "slide.qptiff")
    assert sdata["slide"]["c"].values.tolist() == ["DAPI", "CD8 (Opal)"]
