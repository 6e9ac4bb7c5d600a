"""Planes that are channels though the file calls them something else: colours, time points, z-planes."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm

NAMES = ["DAPI", "CD3", "CK", "CD20", "CD8"]
COUNTS = np.random.default_rng(0).poisson(200, (5, 70, 110)).astype(np.uint16)
CYCLES = np.random.default_rng(1).poisson(200, (3, 4, 40, 50)).astype(np.uint16)
OF_CYCLES = [f"cycle{t}_{c}" for t in range(3) for c in ("DAPI", "A", "B", "C")]


def write_colours(path, n, planes, **options):
    pixels = COUNTS[:n] if planes == "separate" else np.moveaxis(COUNTS[:n], 0, -1)
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig=planes, **options)


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 16},
        {"compression": "zlib", "rowsperstrip": 16},
        {"compression": "lzw", "tile": (32, 48), "predictor": True},
        {"tile": (32, 48), "byteorder": ">"},
        {"ome": True},
    ],
)
def test_values_of_a_colour_picture_are_channels_if_they_are_named(tmp_path, planes, n, options):
    path = tmp_path / "core.tif"
    write_colours(path, n, planes, **options)
    with pytest.raises(ValueError, match=rf"{n} values for each pixel, as a colour picture does.*channel_names="):
        nm.io.read(path)
    sdata = nm.io.read(path, channel_names=NAMES[:n])
    np.testing.assert_array_equal(sdata["core"], COUNTS[:n])
    np.testing.assert_array_equal(sdata["core"][1, 5:60, 40:101], COUNTS[1, 5:60, 40:101])
    assert sdata["core"]["c"].values.tolist() == NAMES[:n]
    assert "read as channels" in nm.io.report(sdata)["note"].iloc[0]
    with pytest.raises(ValueError, match=rf"{n} planes .* but channel_names has 2"):
        nm.io.read(path, channel_names=NAMES[:2])


def test_pages_of_colours_are_read_page_by_page(tmp_path):
    pages = np.random.default_rng(2).integers(0, 255, (2, 40, 50, 3), np.uint8)
    tifffile.imwrite(tmp_path / "core.tif", pages, imagej=True)
    image = nm.io.read(tmp_path / "core.tif", channel_names=list("abcdef"))["core"]
    np.testing.assert_array_equal(image, [page[..., value] for page in pages for value in range(3)])


def test_colours_that_a_compression_mixes_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb", compression="jpeg")
    with pytest.raises(ValueError, match=r"he\.tif, page 0: the compression .* mixes its channels"):
        nm.io.read(tmp_path / "he.tif", channel_names=NAMES[:3])


def test_colours_that_are_stored_in_an_unknown_way_are_refused(tmp_path):
    write_colours(tmp_path / "core.tif", 3, "contig", compression="zlib", tile=(32, 48))
    with tifffile.TiffFile(tmp_path / "core.tif", mode="r+b") as tif:
        tif.filehandle.seek(tif.pages[0].tags["PlanarConfiguration"].valueoffset)
        tif.filehandle.write(b"\0")
    with pytest.raises(ValueError, match=r"core\.tif, page 0: its header is damaged: .* 3 values per pixel"):
        nm.io.read(tmp_path / "core.tif", channel_names=NAMES[:3])


def test_a_colour_picture_beside_one_tiff_per_channel_is_skipped(tmp_path):
    folder = tmp_path / "Point1"
    folder.mkdir()
    for name, plane in zip(NAMES[:2], COUNTS, strict=False):
        tifffile.imwrite(folder / f"{name}.tif", plane)
    write_colours(folder / "overlay.tif", 3, "contig")
    for path, reader in ((folder, nm.io.read_folder), (folder, nm.io.read), (tmp_path, nm.io.read)):
        with pytest.warns(UserWarning, match=r"overlay\.tif: skipped, it has 3 values for each pixel"):
            sdata = reader(path)
        assert sdata["Point1"]["c"].values.tolist() == ["CD3", "DAPI"]


@pytest.mark.parametrize("name", ["core.tif", "core.ome.tif"])
def test_channels_of_cycles_are_read_cycle_by_cycle_if_all_are_named(tmp_path, name):
    kind = {"imagej": True} if name == "core.tif" else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / name, CYCLES, metadata={"axes": "TCYX"}, **kind)
    with pytest.raises(ValueError, match=r"3 time points x 4 channels.*If all 12 planes are channels.*channel_names="):
        nm.io.read(tmp_path / name)
    with pytest.raises(ValueError, match=r"12 planes \(3 time points x 4 channels\), but channel_names has 4"):
        nm.io.read(tmp_path / name, channel_names=OF_CYCLES[:4])
    sdata = nm.io.read(tmp_path / name, channel_names=OF_CYCLES)
    assert sdata["core"]["c"].values.tolist() == OF_CYCLES
    np.testing.assert_array_equal(sdata["core"], CYCLES.reshape(12, 40, 50))
    np.testing.assert_array_equal(sdata["core"].sel(c="cycle2_A"), CYCLES[2, 1])
    assert "3 time points x 4 channels: read as channels" in nm.io.report(sdata)["note"].iloc[0]


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "CTYX", "TZYX"])
def test_planes_come_in_the_order_of_the_header(tmp_path, axes):
    tifffile.imwrite(tmp_path / "a.ome.tif", CYCLES, metadata={"axes": axes}, photometric="minisblack")
    image = nm.io.read(tmp_path / "a.ome.tif", channel_names=OF_CYCLES)["a"]
    np.testing.assert_array_equal(image, CYCLES.reshape(12, 40, 50))


def test_planes_of_a_hyperstack_are_found_where_the_header_says(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, CYCLES[:2, :2], metadata={"axes": "TCYX"}, photometric="minisblack")
    xml = tifffile.tiffcomment(path)
    places = {(0, 0): 3, (0, 1): 1, (1, 0): 0, (1, 1): 2}  # (t, c) to page
    data = "".join(f'<TiffData FirstT="{t}" FirstC="{c}" IFD="{page}"/>' for (t, c), page in places.items())
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    tifffile.tiffcomment(path, (xml[:start] + data + xml[end:]).encode())
    image = nm.io.read(path, channel_names=list("abcd"))["a"]
    np.testing.assert_array_equal(image, CYCLES[:2, :2].reshape(4, 40, 50)[[3, 1, 0, 2]])


def test_axes_that_tifffile_describes(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CYCLES, photometric="minisblack")
    with pytest.raises(ValueError, match="3 planes x 4 planes.*If all 12 planes are channels"):
        nm.io.read(tmp_path / "a.tif")
    image = nm.io.read(tmp_path / "a.tif", channel_names=OF_CYCLES)["a"]
    np.testing.assert_array_equal(image, CYCLES.reshape(12, 40, 50))


# names of pages


def write_pages(path, names, xml=None):
    with tifffile.TiffWriter(path) as tif:
        for page, name in enumerate(names):
            description = xml if page == 0 else None
            tags = [(285, "s", 0, name, True)]
            tif.write(COUNTS[page], contiguous=False, metadata=None, description=description, extratags=tags)


def ome_xml(axis, channel=""):
    sizes = " ".join(f'Size{letter}="{3 if letter == axis else 1}"' for letter in "CZT")
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYCZT" Type="uint16" SizeX="110" SizeY="70" {sizes}>'
        f'<Channel ID="Channel:0:0"{channel}/><TiffData/></Pixels></Image></OME>'
    )


PAGES = ["DNA1(Ir191)", "CD3(Er170)", "CD20(Dy161)"]


@pytest.mark.parametrize("xml", [None, ome_xml("T"), ome_xml("C"), ome_xml("T", ' Name="Channel 0"')])
def test_names_of_pages_name_the_channels(tmp_path, xml):
    write_pages(tmp_path / "a.tif", PAGES, xml)
    sdata = nm.io.read(tmp_path / "a.tif")
    assert sdata["a"]["c"].values.tolist() == PAGES
    np.testing.assert_array_equal(sdata["a"], COUNTS[:3])
    given = nm.io.read(tmp_path / "a.tif", channel_names=["DNA1", "CD3", "CD20"])
    assert given["a"]["c"].values.tolist() == ["DNA1", "CD3", "CD20"]


def test_names_of_an_ome_header_come_before_those_of_pages(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        COUNTS[:3],
        metadata={"axes": "CYX", "Channel": {"Name": NAMES[:3]}},
        photometric="minisblack",
        extratags=[(285, "s", 0, "page", False)],
    )
    assert nm.io.read(path)["a"]["c"].values.tolist() == NAMES[:3]


@pytest.mark.parametrize(
    "names",
    [
        ["a", "a", "a"],
        ["DNA", "CD3", "CD3"],
        ["DNA", "", "CD3"],
        ["1", "2", "3"],
        ["Page 1", "Page 2", "Page 3"],
        ["1/3", "2/3", "3/3"],
        ["slice_001", "slice_002", "slice_003"],
        ["core_0", "core_1", "core_2"],  # the name of the file
    ],
)
@pytest.mark.parametrize("xml", [None, ome_xml("T")])
def test_names_of_pages_that_do_not_tell_them_apart_are_not_used(tmp_path, names, xml):
    write_pages(tmp_path / "core.tif", names, xml)
    with pytest.raises(ValueError, match="3 channels without names|has 3 time points"):
        nm.io.read(tmp_path / "core.tif")
