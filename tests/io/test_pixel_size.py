"""The size of a pixel: as files state it, in any spelling, and what no instrument has."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm
from nextmarker import _keys
from nextmarker.io._pixel_size import length, micrometres, stated_size

PIXELS = np.ones((2, 30, 40), np.uint16)


def write_ome(path, **size):
    attributes = " ".join(f'PhysicalSize{key}="{value}"' for key, value in size.items())
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="40" SizeY="30" '
        f'SizeC="2" SizeZ="1" SizeT="1" {attributes}><Channel ID="Channel:0:0" Name="DNA"/>'
        '<Channel ID="Channel:0:1" Name="CD3"/><TiffData/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, PIXELS, photometric="minisblack", metadata=None, description=xml.encode())


def size_of(path, **options):
    """Pixel size of the image in a file, and the note in the report."""
    sdata = nm.io.read(path, **options)
    [image] = sdata.images
    return sdata.attrs[_keys.PIXEL_SIZE].get(image), nm.io.report(sdata)["note"].iloc[0]


MICROMETRE = [
    "µm",
    "μm",
    "um",
    "UM",
    " um ",
    "um.",
    "micron",
    "Microns",
    "Micrometers",
    "micrometre",
    "\\u00B5m",
    "Âµm",
]


@pytest.mark.parametrize("unit", [*MICROMETRE, "um/px", "µm / pixel", "um per pixel"])
def test_a_micrometre_however_it_is_spelled(unit):
    assert micrometres(unit) == 1


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("nm", 1e-3),
        ("Nanometers", 1e-3),
        ("Å", 1e-4),
        ("mm", 1e3),
        ("MM", 1e3),
        ("cm", 1e4),
        ("m", 1e6),
        ("inch", 25400),
    ],
)
def test_other_units_of_length(unit, expected):
    assert micrometres(unit) == expected


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "", "?m", "Mm", "s", "1"])
def test_what_is_not_a_unit_of_length(unit):
    assert micrometres(unit) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0.5", 0.5),
        ("0,5", 0.5),
        (" 5e-1", 0.5),
        ("1,000.5", None),
        ("0", None),
        ("-1", None),
        ("nan", None),
        ("?", None),
    ],
)
def test_numbers_with_point_or_comma(text, number):
    assert length(text) == number


@pytest.mark.parametrize(
    ("sizes", "units", "expected", "note"),
    [
        (("500", "500"), ("nm", None), (0.5, 0.5), "unit of one axis only"),
        (("500", "500"), (None, "nm"), (0.5, 0.5), "unit of one axis only"),
        (("500", "0.5"), ("nm", None), (0.5, 0.5), ""),  # micrometres, as OME says
        (("0.5", "0.5"), (None, None), (0.5, 0.5), ""),
        (("0.5", None), ("µm", None), (0.5, 0.5), "size of one axis only"),
        ((None, "500"), ("nm", None), (0.5, 0.5), "size of one axis only"),
        (("0.5", "0.6"), ("µm", "µm"), (0.5, 0.6), ""),
        (("1", "1"), ("pixel", "pixel"), None, "'1 pixel' by '1 pixel', is not used"),
        (("0", "0"), ("µm", "µm"), None, "is not used"),
        (("0.5", "?"), (None, None), None, "is not used"),
        ((None, None), ("µm", "µm"), None, ""),
    ],
)
def test_what_stands_on_one_axis_only(sizes, units, expected, note):
    stated = stated_size(sizes, units)
    assert stated.size == (None if expected is None else pytest.approx(expected))
    assert note in stated.note
    assert bool(note) == bool(stated.note)


@pytest.mark.parametrize(
    ("header", "expected", "note"),
    [
        ({"X": 500, "XUnit": "nm", "Y": 500}, 0.5, "taken for both"),
        ({"X": "0,5", "Y": "0,5"}, 0.5, ""),
        ({"X": 0.5, "Y": 0.5, "XUnit": "um.", "YUnit": "Microns"}, 0.5, ""),
        ({"X": 1, "Y": 1, "XUnit": "pixel", "YUnit": "pixel"}, None, "is not used"),
        ({"X": "unknown", "Y": "unknown"}, None, "is not used"),
    ],
)
def test_what_an_ome_header_states_is_used_or_reported(tmp_path, recwarn, header, expected, note):
    write_ome(tmp_path / "core.ome.tif", **header)
    size, found = size_of(tmp_path / "core.ome.tif")
    assert size == (None if expected is None else pytest.approx(expected))
    assert note in found
    assert not [w for w in recwarn if w.category is UserWarning]


@pytest.mark.parametrize("stated", ["0,5", "?", 1e-6, 5000, 0])
def test_a_given_pixel_size_wins_over_any_header(tmp_path, stated):
    write_ome(tmp_path / "core.ome.tif", X=stated, Y=7)
    assert size_of(tmp_path / "core.ome.tif", pixel_size=0.4) == (0.4, "")


@pytest.mark.parametrize(("stated", "unit"), [(5e-7, "µm"), (0.5, "mm"), (0.5, "nm")])
def test_a_size_in_the_wrong_unit_is_refused_with_the_way_out(tmp_path, stated, unit):
    write_ome(tmp_path / "core.ome.tif", X=stated, XUnit=unit, Y=stated, YUnit=unit)
    with pytest.raises(ValueError, match=r"core\.ome\.tif states a pixel size of .* micrometres.*pixel_size="):
        nm.io.read(tmp_path / "core.ome.tif")


@pytest.mark.parametrize("size", [1e-6, 0.009, 101, 1e6])
def test_a_given_pixel_size_in_the_wrong_unit_is_refused(tmp_path, size):
    write_ome(tmp_path / "core.ome.tif")
    with pytest.raises(ValueError, match="must be 0.01 to 100"):
        nm.io.read(tmp_path / "core.ome.tif", pixel_size=size)


def write_imagej(path, unit, resolution=(2, 2)):
    metadata = {"axes": "CYX", "unit": unit, "Labels": ["a", "b"]}
    tifffile.imwrite(path, PIXELS, imagej=True, resolution=resolution, metadata=metadata)


@pytest.mark.parametrize(
    ("unit", "pixels", "expected"), [("um", 2, 0.5), ("micron", 4, 0.25), ("Microns", 2, 0.5), ("cm", 20000, 0.5)]
)
def test_units_of_imagej(tmp_path, unit, pixels, expected):
    write_imagej(tmp_path / "core.tif", unit, (pixels, pixels))
    assert size_of(tmp_path / "core.tif") == (pytest.approx(expected), "")


@pytest.mark.parametrize("unit", ["inch", "pixel", "furlong"])
def test_units_of_imagej_that_say_nothing_of_the_tissue(tmp_path, unit):
    write_imagej(tmp_path / "core.tif", unit, (300, 300))
    size, note = size_of(tmp_path / "core.tif")
    assert size is None
    assert f"its unit is '{unit}'" in note


def test_imagej_in_the_wrong_unit(tmp_path):
    write_imagej(tmp_path / "core.tif", "m", (2, 2))
    with pytest.raises(ValueError, match=r"core\.tif states a pixel size of 500000 micrometres"):
        nm.io.read(tmp_path / "core.tif")


def test_resolution_tags_of_a_plain_stack_are_reported_not_used(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="minisblack", resolution=(2e4, 2e4), resolutionunit=3)
    size, note = size_of(tmp_path / "a.tif", channel_names=["a", "b"])
    assert size is None
    assert "0.5 by 0.5 micrometres per pixel, are not used" in note
    tifffile.imwrite(tmp_path / "b.tif", PIXELS, photometric="minisblack", resolution=(72, 72), resolutionunit=2)
    assert size_of(tmp_path / "b.tif", channel_names=["a", "b"]) == (None, "")


@pytest.mark.parametrize("resolution", [None, (1, 1), (2, 2)])
def test_mibi_resolution_that_is_missing_or_wrong(tmp_path, resolution):
    page = {"image.type": "SIMS", "channel.mass": 3, "channel.target": "a"}
    options = {"resolution": resolution, "resolutionunit": 3} if resolution else {}
    tifffile.imwrite(tmp_path / "a.tiff", PIXELS[0], metadata=page, software="IonpathMIBIv1.0", **options)
    if resolution == (2, 2):
        with pytest.raises(ValueError, match=r"a\.tiff states a pixel size of 5000 micrometres"):
            nm.io.read_tiff(tmp_path / "a.tiff")
    else:
        assert nm.io.read_tiff(tmp_path / "a.tiff").attrs[_keys.PIXEL_SIZE] == {}


def test_imaging_mass_cytometry(tmp_path, imc):
    step = "AblationDistanceBetweenShots"
    for name, value in {"metres": "1e-6", "comma": "0,5", "words": "?"}.items():
        xml = {f"{step}X": value, f"{step}Y": value}
        imc.write_mcd(tmp_path / f"{name}.mcd", imc.Acquisition(1, imc.counts(), xml=xml))
    with pytest.raises(ValueError, match=r"metres\.mcd: acquisition 1 states a pixel size of 1e-06"):
        nm.io.read_mcd(tmp_path / "metres.mcd")
    assert size_of(tmp_path / "metres.mcd", pixel_size=1)[0] == 1
    assert size_of(tmp_path / "comma.mcd")[0] == 0.5
    size, note = size_of(tmp_path / "words.mcd")
    assert size == 1
    assert "is not used" in note


def test_steinbock(tmp_path):
    (tmp_path / "panel.csv").write_text("channel,name,keep\nIr191,DNA,1\nEr170,CD3,1\n")
    (tmp_path / "img").mkdir()
    tifffile.imwrite(tmp_path / "img" / "core.tiff", PIXELS, photometric="minisblack", metadata=None)
    table = tmp_path / "images.csv"
    table.write_text('image,width_px,acquisition_width_um\ncore.tiff,40,"20,0"\n')
    assert size_of(tmp_path)[0] == 0.5
    table.write_text("image,width_px,acquisition_width_um\ncore.tiff,40,4e-5\n")
    with pytest.raises(ValueError, match=r"core\.tiff states a pixel size of 1e-06"):
        nm.io.read(tmp_path)
    assert size_of(tmp_path, pixel_size=1)[0] == 1
