"""OME-TIFF: several images in a file, pyramids, and the data types of instruments."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm
from nextmarker import _keys

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(200, (3, 70, 110)).astype(np.uint16)
NAMES = ["DNA1", "CD3", "CK"]


def header(names, **more):
    return {"axes": "CYX", "Channel": {"Name": names}, **more}


def write_series(path, images, **options):
    with tifffile.TiffWriter(path, ome=True, **options) as tif:
        for name, pixels, names in images:
            tif.write(pixels, photometric="minisblack", metadata=header(names, Name=name))


def replace_in_header(path, old, new):
    """Change a word of the header to one of the same length."""
    content = path.read_bytes()
    assert content.count(old) >= 1
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def test_each_series_is_an_image_with_its_name(tmp_path, recwarn):
    other = RNG.poisson(9, (2, 33, 40)).astype(np.uint16)
    write_series(tmp_path / "cores.ome.tif", [("core A", COUNTS, NAMES), ("core B", other, NAMES[:2])])
    sdata = nm.io.read(tmp_path / "cores.ome.tif")
    assert list(sdata.images) == ["core_A", "core_B"]
    np.testing.assert_array_equal(sdata["core_A"], COUNTS)
    np.testing.assert_array_equal(sdata["core_B"], other)
    assert sdata["core_B"]["c"].values.tolist() == NAMES[:2]
    assert nm.io.report(sdata)["status"].tolist() == ["read", "read"]
    assert not [w for w in recwarn if w.category is UserWarning]


def test_slide_labels_and_thumbnails_are_left_out_and_reported(tmp_path, recwarn):
    thumbnail = np.zeros((3, 7, 11), np.uint16)
    images = [("tissue", COUNTS, NAMES), ("label image", thumbnail, NAMES), ("Macro", thumbnail, NAMES)]
    write_series(tmp_path / "slide.ome.tif", images)
    sdata = nm.io.read(tmp_path / "slide.ome.tif")
    assert list(sdata.images) == ["tissue"]
    report = nm.io.report(sdata)
    assert report["status"].tolist() == ["read", "skipped", "skipped"]
    assert report.index.str.contains("label image").sum() == 1
    assert not [w for w in recwarn if w.category is UserWarning]


def test_a_series_that_cannot_be_read_is_skipped(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.ome.tif", ome=True) as tif:
        tif.write(COUNTS, photometric="minisblack", metadata=header(NAMES, Name="tissue"))
        tif.write(np.zeros((9, 9, 3), np.uint8), photometric="rgb", metadata={"Name": "histology"})
    with pytest.warns(UserWarning, match="histology: skipped.*colour picture"):
        sdata = nm.io.read(tmp_path / "mixed.ome.tif")
    assert list(sdata.images) == ["tissue"]


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
@pytest.mark.parametrize("options", [{}, {"tile": (32, 48), "compression": "zlib", "predictor": True}])
def test_data_types(tmp_path, dtype, options):
    pixels = COUNTS.astype(dtype)
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="minisblack", metadata=header(NAMES), **options)
    image = nm.io.read(tmp_path / "a.ome.tif")["a"]
    assert image.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "packbits", "lzma", "jpeg2000"])
def test_compressions(tmp_path, compression):
    options = {"compression": compression, "tile": (32, 48), "metadata": header(NAMES), "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", COUNTS, **options)
    np.testing.assert_array_equal(nm.io.read(tmp_path / "a.ome.tif")["a"], COUNTS)


def test_jpeg(tmp_path):
    pixels = np.repeat(np.uint8([[[7]], [[200]]]), 64, axis=1).repeat(96, axis=2)  # even, so nothing is lost
    options = {"compression": "jpeg", "tile": (32, 48), "metadata": header(["a", "b"]), "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, **options)
    np.testing.assert_array_equal(nm.io.read(tmp_path / "a.ome.tif")["a"], pixels)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_full_resolution_of_tiled_pyramids_is_read_by_tiles(tmp_path, bigtiff, byteorder):
    pixels = RNG.integers(0, 4000, (2, 300, 500), np.uint16)
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", bigtiff=bigtiff, byteorder=byteorder) as tif:
        options = {"tile": (128, 128), "compression": "zlib", "photometric": "minisblack"}
        tif.write(pixels, subifds=2, metadata=header(["a", "b"], PhysicalSizeX=0.3, PhysicalSizeY=0.3), **options)
        tif.write(pixels[:, ::2, ::2], subfiletype=1, **options)
        tif.write(pixels[:, ::4, ::4], subfiletype=1, **options)
    sdata = nm.io.read(tmp_path / "slide.ome.tif")
    np.testing.assert_array_equal(sdata["slide"], pixels)
    np.testing.assert_array_equal(sdata["slide"][1, 100:140:3, 499:2:-7], pixels[1, 100:140:3, 499:2:-7])
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"slide": 0.3}


def test_only_the_tiles_asked_for_are_decoded(tmp_path):
    path = tmp_path / "slide.ome.tif"
    pixels = RNG.integers(0, 4000, (2, 128, 256), np.uint16)
    options = {"tile": (64, 64), "compression": "zlib", "photometric": "minisblack"}
    tifffile.imwrite(path, pixels, metadata=header(["a", "b"]), **options)
    with tifffile.TiffFile(path) as tif:
        damaged = tif.pages[1].dataoffsets[5] + 40  # second row of tiles, second column
    content = bytearray(path.read_bytes())
    content[damaged : damaged + 8] = b"\xff" * 8
    path.write_bytes(content)
    image = nm.io.read(path)["slide"]
    np.testing.assert_array_equal(image[1, :64], pixels[1, :64])
    np.testing.assert_array_equal(image[1, :, 128:], pixels[1, :, 128:])
    with pytest.raises(ValueError, match=r"Channel 'b' cannot be read: .*slide\.ome\.tif is damaged: .* 5 of page 1"):
        image[1, 64:70, 64:70].compute()


def test_an_enormous_image_opens_if_its_tiles_are_small(tmp_path):
    path = tmp_path / "slide.ome.tif"
    tiles = (np.zeros((4096, 4096), np.uint8) for _ in range(16))
    options = {"tile": (4096, 4096), "compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(tiles, shape=(1, 16384, 16384), dtype=np.uint8, metadata=header(["a"]), **options)
    image = nm.io.read(path)["slide"]
    assert image.shape == (1, 16384, 16384)
    assert int(image[0, 9000:9010, 15000:15010].max()) == 0


def test_names_that_are_empty_or_repeat_are_numbered_and_reported(tmp_path):
    write_series(tmp_path / "a.ome.tif", [("a", COUNTS, ["CD3", "", "CD3"])])
    with pytest.warns(UserWarning, match="'' -> 'channel_2'") as record:
        sdata = nm.io.read(tmp_path / "a.ome.tif")
    assert record[0].filename == __file__
    assert sdata["a"]["c"].values.tolist() == ["CD3", "channel_2", "CD3_2"]
    assert sdata.attrs[_keys.CHANNELS]["a"]["original_name"] == ["CD3", "", "CD3"]


def test_given_names_keep_those_of_the_file(tmp_path):
    write_series(tmp_path / "a.ome.tif", [("a", COUNTS, NAMES)])
    sdata = nm.io.read(tmp_path / "a.ome.tif", channel_names=["x", "y", "z"])
    assert sdata.attrs[_keys.CHANNELS] == {"a": {"name": ["x", "y", "z"], "original_name": NAMES}}


def test_planes_are_found_where_the_header_says(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_series(path, [("a", COUNTS, NAMES)])
    data = '<TiffData FirstC="0" IFD="2"/><TiffData FirstC="1" IFD="0"/><TiffData FirstC="2" IFD="1"/>'
    xml = tifffile.tiffcomment(path)
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    tifffile.tiffcomment(path, (xml[:start] + data + xml[end:]).encode())
    np.testing.assert_array_equal(nm.io.read(path)["a"], COUNTS[[2, 0, 1]])


# headers that contradict the file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'SizeX="110"', b'SizeX="109"', "states 109 x 70 pixels"),
        (b'SizeC="3"', b'SizeC="9"', "states 9 planes, but 3 are found"),
        (b'PlaneCount="3"', b'PlaneCount="1"', "states 3 planes, but 1 are found"),
        (b'IFD="0"', b'IFD="7"', "states 3 planes, but 0 are found"),
        (b'SizeZ="1"', b'SizeZ="2"', "states 6 planes, but 3 are found"),
        (b"XYCZT", b"XYCCT", "DimensionOrder 'XYCCT'"),
        (b'SizeY="70"', b'SizeY="x0"', "header cannot be read"),
        (b"<Pixels", b"<Pixel<", "XML of its header cannot be read"),
        (b"<Image ", b"<Imagf ", "XML of its header cannot be read"),
    ],
)
def test_headers_that_contradict_the_file(tmp_path, old, new, message):
    path = tmp_path / "a.ome.tif"
    write_series(path, [("a", COUNTS, NAMES)])
    replace_in_header(path, old, new)
    with pytest.raises(ValueError, match=message):
        nm.io.read(path)


def test_planes_placed_twice(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_series(path, [("a", COUNTS, NAMES)])
    xml = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, xml.replace("<TiffData", '<TiffData FirstC="1" IFD="0"/><TiffData', 1).encode())
    with pytest.raises(ValueError, match="plane 0"):
        nm.io.read(path)


@pytest.mark.parametrize(
    "description", ["ImageJ=1.0\nimages=999999999\nchannels=999999999", "[" * 100_000, '{"shape": "x"}']
)
def test_descriptions_that_promise_too_much(tmp_path, description):
    tifffile.imwrite(tmp_path / "a.tif", COUNTS[0], description=description, metadata=None)
    with pytest.raises(ValueError, match=r"a\.tif (is not complete|has 1 channel without a name.*mask)"):
        nm.io.read(tmp_path / "a.tif")


def test_entities_and_other_files_are_refused(tmp_path):
    path = tmp_path / "a.ome.tif"
    write_series(path, [("a", COUNTS, NAMES)])
    xml = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, xml.replace("<OME", '<!DOCTYPE x [<!ENTITY a "aaaa">]><OME', 1).encode())
    with pytest.raises(ValueError, match="header with entities"):
        nm.io.read(path)
    elsewhere = '<TiffData IFD="0" PlaneCount="3"><UUID FileName="../other.ome.tif">urn:uuid:1</UUID></TiffData>'
    assert '<TiffData IFD="0" PlaneCount="3"/>' in xml
    tifffile.tiffcomment(path, xml.replace('<TiffData IFD="0" PlaneCount="3"/>', elsewhere).encode())
    with pytest.raises(ValueError, match=r"planes in another file, '\.\./other\.ome\.tif'"):
        nm.io.read(path)
