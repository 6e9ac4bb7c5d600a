"""Broken TIFFs: each is refused with a message of ours, before memory is taken, and skipped among good ones."""

import struct

import numpy as np
import pytest
import tifffile

import nextmarker as nm

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(200, (3, 70, 110)).astype(np.uint16)
NAMES = ["DNA1", "CD3", "CK"]
WIDTH, LENGTH, ROWS = 256, 257, 278  # tags


def write(path, counts=COUNTS, **options):
    tifffile.imwrite(path, counts, photometric="minisblack", metadata=None, **options)


def read(path):
    return nm.io.read(path, channel_names=NAMES)


def set_tag(path, tag, value, page=0):
    """Overwrite a value in the header, which says then what is not true."""
    with tifffile.TiffFile(path, mode="r+b") as tif:
        entry = tif.pages[page].tags[tag]
        tif.filehandle.seek(entry.valueoffset)
        tif.filehandle.write(struct.pack({3: "<H", 4: "<I"}[entry.dtype], value))


def header_of(pages):
    """A TIFF of headers alone: each a pair of an offset and the one it leads to."""
    content = bytearray(b"II*\0" + struct.pack("<I", pages[0][0]))
    for offset, following in pages:
        content = content.ljust(offset + 18, b"\0")
        content[offset : offset + 18] = struct.pack("<HHHIII", 1, WIDTH, 4, 1, 64, following)
    return bytes(content)


@pytest.mark.parametrize("length", [2, 150])
def test_pages_that_lead_in_a_circle(tmp_path, length):
    offsets = [8 + 18 * number for number in range(length)]
    (tmp_path / "a.tif").write_bytes(header_of(list(zip(offsets, [*offsets[1:], offsets[-2]], strict=True))))
    with pytest.raises(ValueError, match=f"a\\.tif is damaged: page {length} refers back"):
        read(tmp_path / "a.tif")


def test_more_pages_than_any_image_has(tmp_path):
    offsets = [8 + 18 * number for number in range(10_001)]
    parts = [struct.pack("<HHHIII", 1, WIDTH, 4, 1, 64, following) for following in [*offsets[1:], 0]]
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + b"".join(parts))
    with pytest.raises(ValueError, match="more than 10,000 pages"):
        read(tmp_path / "a.tif")


def test_a_page_beyond_the_end_and_one_cut_short(tmp_path):
    (tmp_path / "a.tif").write_bytes(header_of([(8, 5000)]))
    with pytest.raises(ValueError, match="is not complete: it ends before the header of page 1"):
        read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(header_of([(8, 0)])[:-6])
    with pytest.raises(ValueError, match="is not complete|cannot be read"):
        read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(ValueError, match="a TIFF without pages"):
        read(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0\xff\xff")
    with pytest.raises(ValueError, match="damaged: its header cannot be read .*65535"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_dimensions_that_no_memory_holds_are_refused_before_it_is_taken(tmp_path, compression):
    path = tmp_path / "bomb.tif"
    write(path, compression=compression, rowsperstrip=70)
    for tag in (WIDTH, LENGTH, ROWS):
        for page in range(3):
            set_tag(path, tag, 60_000, page)
    with pytest.raises(ValueError, match=r"bomb\.tif, page 0: .* would take 6,866 MiB of memory"):
        read(path)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (WIDTH, 0, "0 x 70 pixels"),
        (LENGTH, 4000, "strips or tiles, but it lists 5"),
        (ROWS, 1, "70 strips or tiles, but it lists 5"),
        (258, 7, "types|no counts"),  # bits of a pixel
        (262, 2, "a colour picture"),
        (WIDTH, 109, "planes of several sizes"),
    ],
)
def test_headers_that_make_no_sense(tmp_path, tag, value, message):
    write(tmp_path / "a.tif", compression="zlib", rowsperstrip=16)
    set_tag(tmp_path / "a.tif", tag, value)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.tif")


def damage_page(path, page, size=8):
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[page].dataoffsets[0], tif.pages[page].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset + count // 2 : offset + count // 2 + size] = b"\xff" * size
    path.write_bytes(content)


def test_a_damaged_page_is_an_error_that_names_it_when_its_pixels_are_needed(tmp_path):
    path = tmp_path / "a.tif"
    write(path, compression="zlib")
    damage_page(path, 1)
    image = read(path)["a"]
    np.testing.assert_array_equal(image[[0, 2]], COUNTS[[0, 2]])
    with pytest.raises(ValueError, match=r"Channel 'CD3' cannot be read: .*a\.tif is damaged: .* of page 1 cannot"):
        image[1].compute()


def test_damaged_pixels_stop_an_analysis_with_that_message(tmp_path):
    path = tmp_path / "a.tif"
    write(path, compression="zlib")
    damage_page(path, 0)
    with pytest.raises(ValueError, match="Channel 'DNA1' cannot be read"):
        nm.pp.detect_cells(read(path), nuclear_channels=["DNA1"])


def test_strips_of_another_size_than_their_pixels(tmp_path):
    write(tmp_path / "a.tif", rowsperstrip=16)
    for page in range(3):
        set_tag(tmp_path / "a.tif", WIDTH, 100, page)
    with pytest.raises(ValueError, match="a strip or tile has 3520 bytes, not 3200"):
        read(tmp_path / "a.tif")


def test_a_file_that_changes_after_it_was_opened(tmp_path):
    write(tmp_path / "a.tif", compression="zlib")
    image = read(tmp_path / "a.tif")["a"]
    write(tmp_path / "a.tif", COUNTS.astype(np.uint32), compression="zlib")
    with pytest.raises(ValueError, match="has changed since|cannot be read"):
        image.compute()


def test_one_bad_file_among_good_ones_is_skipped_and_reported(tmp_path):
    write(tmp_path / "a.tif")
    (tmp_path / "b.tif").touch()
    write(tmp_path / "c.tif", compression="zlib")
    (tmp_path / "c.tif").write_bytes((tmp_path / "c.tif").read_bytes()[:5000])
    (tmp_path / "d.tif").write_bytes(b"\x89PNG\r\n\x1a\n a picture of another kind")
    with pytest.warns(UserWarning, match=r"b\.tif: skipped, .*b\.tif is empty") as record:
        sdata = read(tmp_path)
    assert len(record) == 1
    assert record[0].filename == __file__
    assert list(sdata.images) == ["a"]
    report = nm.io.report(sdata)
    assert report["status"].tolist() == ["read", "skipped", "skipped", "skipped"]
    assert report["note"].str.contains("is empty|is not complete|another kind of file").tolist() == [
        False,
        True,
        True,
        True,
    ]


def test_nothing_but_bad_files_is_an_error_that_names_them_all(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tif").touch()
    with pytest.raises(ValueError, match=r"Nothing could be read\.\n.*a\.tif is empty.*\n.*b\.tif is empty"):
        nm.io.read(tmp_path)


def test_a_bad_channel_in_a_folder_of_channels_is_skipped(tmp_path):
    for name, plane in zip(NAMES, COUNTS, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.tif", plane)
    (tmp_path / "CD3.tif").write_bytes(b"")
    for reader in (nm.io.read, nm.io.read_folder):
        with pytest.warns(UserWarning, match=r"CD3\.tif: skipped"):
            [image] = reader(tmp_path).images.values()
        assert image["c"].values.tolist() == ["CK", "DNA1"]


def test_a_bad_folder_among_good_ones_is_skipped(tmp_path):
    for point, plane in [("Point1", COUNTS[1]), ("Point2", COUNTS[1, :30])]:
        (tmp_path / point).mkdir()
        tifffile.imwrite(tmp_path / point / "DNA1.tif", COUNTS[0])
        tifffile.imwrite(tmp_path / point / "CD3.tif", plane)
    with pytest.warns(UserWarning, match=r"Point2: skipped, The channels in .* differ in shape"):
        assert list(nm.io.read(tmp_path).images) == ["Point1"]


def test_a_compression_without_bounds_is_refused(tmp_path):
    write(tmp_path / "a.tif", tile=(64, 64), compression="png")
    with pytest.raises(ValueError, match=r"a\.tif, page 0: its compression PNG is not supported.*Save it again"):
        read(tmp_path / "a.tif")
