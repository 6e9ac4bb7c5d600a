"""The pages of a TIFF: found, checked and decoded so that no file can make reading hang, or fill the memory.

The structure is checked before a library sees it. What a page claims is checked before its pixels are read: whether
they lie in the file, and whether a piece of it fits into memory. What is decoded must have the size that was claimed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_PAGES = 10_000
MOST_TAGS = 4_096  # in a page
LARGEST_PIECE = 2**30  # bytes of a strip or tile in memory: it is decoded whole
SMALL_PIECE = 2**26  # bytes up to which a piece may be compressed by any factor
HIGHEST_COMPRESSION = 5_000  # of larger pieces

# Tags that tell where the pixels are, and the types that they may have: SHORT, LONG, LONG8
LAYOUT = {256, 257, 273, 278, 279, 322, 323, 324, 325}
WHOLE_NUMBERS = {3, 4, 16}

# Compressions whose decoders stop at the size asked for, and pictures, which have a size of their own that is checked
BOUNDED = {"NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD", "ZSTD_DEPRECATED"}
JPEG = {"JPEG"}
JPEG_2000 = {"JPEG2000", "JPEG_2000_LOSSY", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"}
MIXED = JPEG | {"APERIO_JP2000_YCBC"}  # of pictures with several values for each pixel
JPEG_2000_START = b"\xff\x4f\xff\x51"

# What decoders and header parsers raise when the bytes make no sense; imagecodecs' errors are RuntimeErrors.
DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, struct.error, EOFError)


def explained(path: Path, error: Exception) -> str:
    """Turn what went wrong into a message on the file; those that name it are ours."""
    return str(error) if str(path) in str(error) else f"{path} is damaged: its header cannot be read ({error!r})."


@dataclass(frozen=True)
class Plane:
    """Where one channel lies in a TIFF."""

    page: int
    """Number of the page, from 0."""
    offset: int
    """Where the page's header begins in the file."""
    sample: int = 0
    """Which of several channels in the page, where it stores them one after another."""
    skipped_bytes: int = 0
    """Where the pixels begin after those of the page, for planes without a header of their own."""


def find_pages(path: Path) -> list[int]:
    """Find where the header of each page begins.

    Raises
    ------
    ValueError
        If the file is no TIFF, if its pages lead back to each other, if there are more than `MOST_PAGES`, or if one
        lies beyond the end of the file.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        offsets: list[int] = []
        seen: set[int] = set()
        for offset in _chain(path, file):
            if offset in seen:
                msg = f"{path} is damaged: its pages lead in a circle, page {len(offsets)} back to an earlier one."
                raise ValueError(msg)
            if offset >= size:
                msg = f"{path} is not complete: page {len(offsets)} lies beyond its end. Copy it again."
                raise ValueError(msg)
            if len(offsets) == MOST_PAGES:
                msg = f"{path} has more than {MOST_PAGES:,} pages: no image has as many channels."
                raise ValueError(msg)
            seen.add(offset)
            offsets.append(offset)
    if not offsets:
        msg = f"{path} is a TIFF without a page."
        raise ValueError(msg)
    return offsets


def _chain(path: Path, file: BinaryIO) -> Iterator[int]:
    """Follow the headers from one to the next."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(f"{order}H", head[2:4])[0] if order and len(head) >= 8 else None
    if version not in (42, 43):
        what = "empty" if not head else "not a TIFF that can be read: its first bytes are those of another kind of file"
        msg = f"{path} is {what}. Readable are TIFFs of all kinds, .mcd files and their .txt exports."
        raise ValueError(msg)
    count, tag_size, pointer, first = ("H", 12, "I", 4) if version == 42 else ("Q", 20, "Q", 8)
    (offset,) = struct.unpack_from(f"{order}{pointer}", head.ljust(16, b"\0"), first)
    while offset:
        yield offset
        file.seek(offset)
        tags = _unpack(path, file, f"{order}{count}")
        if tags > MOST_TAGS:
            msg = f"{path} is damaged: a page claims to have {tags} tags."
            raise ValueError(msg)
        file.seek(tags * tag_size, 1)
        offset = _unpack(path, file, f"{order}{pointer}")


def _unpack(path: Path, file: BinaryIO, form: str) -> int:
    raw = file.read(struct.calcsize(form))
    if len(raw) < struct.calcsize(form):
        msg = f"{path} is not complete: it ends within the header of a page. Copy it again."
        raise ValueError(msg)
    return int(struct.unpack(form, raw)[0])


def read_header(tif: tifffile.TiffFile, number: int, offset: int) -> tifffile.TiffPage:
    """Read what a page says of itself."""
    try:
        tif.filehandle.seek(offset)
        return tifffile.TiffPage(tif, index=number)
    except DAMAGE as error:
        msg = f"{tif.filehandle.path} is damaged: the header of page {number} cannot be read ({error})."
        raise ValueError(msg) from error


def check_page(page: tifffile.TiffPage) -> None:
    """Refuse a page whose pixels cannot be read, from its header alone."""
    try:
        problem = _problem(page)
    except DAMAGE as error:
        problem = f"its header is damaged ({error})."
    if problem:
        msg = f"{page.parent.filehandle.path}, page {page.index}: {problem}"
        raise ValueError(msg)


def _problem(page: tifffile.TiffPage) -> str | None:
    size = f"{page.imagewidth} x {page.imagelength} pixels"
    if page.dtype is None or page.dtype.kind not in "uif" or not isinstance(page.bitspersample, int):
        return f"pixels of {page.bitspersample} bits and the type {page.dtype} are no counts."
    if _compression(page) not in BOUNDED | JPEG | JPEG_2000:
        return f"its compression {_compression(page)} is not supported. Save it again with LZW, zlib or ZSTD."
    if page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel < 3:
        return f"its header is damaged: a colour picture with {page.samplesperpixel} value(s) for each pixel."
    if page.samplesperpixel > 1 and page.planarconfig not in (1, 2):
        return f"its header is damaged: it does not say how the {page.samplesperpixel} values of a pixel are stored."
    if is_interleaved(page) and (_compression(page) in MIXED or page.photometric == tifffile.PHOTOMETRIC.YCBCR):
        return "a colour picture whose compression mixes its colours; counts of channels cannot be read from it."
    if min(page.imagewidth, page.imagelength) < 1 or page.imagedepth > 1:
        return f"its header is damaged: {size}, {page.imagedepth} deep."
    if wrong := [tag.name for tag in page.tags if tag.code in LAYOUT and tag.dtype not in WHOLE_NUMBERS]:
        return f"its header is damaged: {wrong} are no whole numbers."
    pieces = prod(page.chunked)
    if len(page.dataoffsets) != pieces or len(page.databytecounts) != pieces:
        found = min(len(page.dataoffsets), len(page.databytecounts))
        return f"its header is damaged: {size} are {pieces} strips or tiles, but it lists {found}."
    if is_plain(page):
        return _cut_short(page, page.dataoffsets[0] + page.nbytes)
    starts, counts = np.array(page.dataoffsets, dtype=np.uint64), np.array(page.databytecounts, dtype=np.uint64)
    order = np.argsort(starts)
    ends = (starts + counts)[order]
    inside = (starts[order][1:] < ends[:-1]) & (starts[order][1:] != starts[order][:-1])  # equal ones may share pixels
    if inside.any():
        return "its header is damaged: strips or tiles begin inside each other."
    return _cut_short(page, int(ends.max())) or _too_large(page)


def _cut_short(page: tifffile.TiffPage, end: int) -> str | None:
    if end <= page.parent.filehandle.size:
        return None
    return (
        f"{page.imagewidth} x {page.imagelength} pixels do not lie in the file, which ends before: it is not complete. "
        "Copy it again."
    )


def _too_large(page: tifffile.TiffPage) -> str | None:
    """Refuse strips and tiles that would fill the memory, before any is allocated."""
    piece = prod(page.chunks) * data_type(page).itemsize
    factor = page.nbytes / max(sum(page.databytecounts), 1)
    if piece <= SMALL_PIECE or (piece <= LARGEST_PIECE and factor <= HIGHEST_COMPRESSION):
        return None
    return (
        f"a strip or tile would take {piece / 2**20:,.0f} MiB of memory, {factor:,.0f} times its size in the file. "
        "It is damaged, or must be saved again in tiles."
    )


def data_type(page: tifffile.TiffPage) -> np.dtype:
    """Type of the pixels, in the byte order of the machine."""
    if page.dtype is None:
        msg = f"pixels of {page.bitspersample} bits are no counts."
        raise ValueError(msg)
    return page.dtype.newbyteorder("=")


def _compression(page: tifffile.TiffPage) -> str:
    return page.compression.name if isinstance(page.compression, tifffile.COMPRESSION) else str(page.compression)


def is_plain(page: tifffile.TiffPage) -> bool:
    """Whether the pixels of a page lie in the file as they are, one after another."""
    return page.is_final and sum(page.databytecounts) == page.nbytes


def is_interleaved(page: tifffile.TiffPage) -> bool:
    """Whether the values of a pixel lie side by side, and not in a plane each."""
    return page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG


def is_colour(page: tifffile.TiffPage) -> bool:
    """Whether a page calls itself a colour picture, or looks like one."""
    return page.photometric == tifffile.PHOTOMETRIC.RGB or is_interleaved(page)


def read_block(path: Path, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
    """Read some pixels of one channel.

    Raises
    ------
    ValueError
        If they cannot be decoded.
    """
    with tifffile.TiffFile(path) as tif:
        page = read_header(tif, plane.page, plane.offset)
        check_page(page)
        if plane.skipped_bytes or is_plain(page):
            return _map_block(tif, page, plane, rows, columns)
        return _decode_block(path, page, plane, rows, columns)


def _map_block(
    tif: tifffile.TiffFile, page: tifffile.TiffPage, plane: Plane, rows: slice, columns: slice
) -> np.ndarray:
    height, width, samples = page.imagelength, page.imagewidth, page.samplesperpixel
    shape = (height, width, samples) if is_interleaved(page) else (samples, height, width)
    dtype = data_type(page).newbyteorder(tif.byteorder)
    start = page.dataoffsets[0] + plane.skipped_bytes
    mapped = np.memmap(tif.filehandle.path, dtype=dtype, mode="r", offset=start, shape=shape)
    pixels = mapped[rows, columns, plane.sample] if is_interleaved(page) else mapped[plane.sample, rows, columns]
    return np.array(pixels, dtype=dtype.newbyteorder("="))


def _decode_block(path: Path, page: tifffile.TiffPage, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
    top, left = rows.start, columns.start
    block = np.zeros((rows.stop - top, columns.stop - left), data_type(page))
    interleaved = is_interleaved(page)
    for number, row, column in _pieces(page, 0 if interleaved else plane.sample, rows, columns):
        piece = _decode(path, page, plane, number, plane.sample if interleaved else 0)
        if piece is None:
            continue
        piece = piece[max(top - row, 0) : rows.stop - row, max(left - column, 0) : columns.stop - column]
        y, x = max(row - top, 0), max(column - left, 0)
        target = block[y : y + piece.shape[0], x : x + piece.shape[1]]
        target[...] = piece[: target.shape[0], : target.shape[1]]
    return block


def _pieces(page: tifffile.TiffPage, sample: int, rows: slice, columns: slice) -> Iterator[tuple[int, int, int]]:
    """Strips or tiles that hold the pixels asked for: number, first row, first column."""
    height, width = page.chunks[:2]
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    for i in range(rows.start // height, -(-rows.stop // height)):
        for j in range(columns.start // width, -(-columns.stop // width)):
            yield (sample * down + i) * across + j, i * height, j * width


def _decode(path: Path, page: tifffile.TiffPage, plane: Plane, number: int, value: int) -> np.ndarray | None:
    """Decode one strip or tile, (y, x); None where the file leaves it out, as it may if all is zero."""
    offset, count = page.dataoffsets[number], page.databytecounts[number]
    if offset == 0 and count == 0:
        return None
    page.parent.filehandle.seek(offset)
    data = page.parent.filehandle.read(count)
    try:
        _check_picture(page, data)
        piece, place, shape = page.decode(data, number, **_jpeg(page))
    except (*DAMAGE, MemoryError) as error:
        raise ValueError(_damaged(path, plane, number, str(error))) from error
    height, width = min(shape[1], page.imagelength - place[2]), min(shape[2], page.imagewidth - place[3])
    if piece is None or len(data) < count or piece.shape[1] < height or piece.shape[2] < width:
        raise ValueError(_damaged(path, plane, number, "it holds too few pixels"))
    if page.compression == tifffile.COMPRESSION.NONE and len(data) not in _sizes(page, shape):
        raise ValueError(_damaged(path, plane, number, f"it has {len(data)} bytes, not {_sizes(page, shape)[0]}"))
    return piece[0, :, :, value]


def _sizes(page: tifffile.TiffPage, shape: tuple[int, ...]) -> tuple[int, int]:
    """Bytes that an uncompressed strip or tile may have: the last strip may be filled up to the size of the others."""
    bits = page.bitspersample * shape[2] * shape[3]
    row = -(-bits // 8)
    return shape[1] * row, page.chunks[0] * row


def _jpeg(page: tifffile.TiffPage) -> dict[str, bytes | None]:
    compressed = _compression(page) in JPEG
    return {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if compressed else {}


def _check_picture(page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse a picture larger than its strip or tile: its decoder takes memory for all of it."""
    if _compression(page) in JPEG:
        at = 2
        while data[at + 1] not in range(0xC0, 0xC4):  # the segment that tells the size
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        height, width = struct.unpack_from(">2H", data, at + 5)
    elif _compression(page) in JPEG_2000:
        right, bottom, left, top = struct.unpack_from(">4I", data, data.index(JPEG_2000_START) + 8)
        height, width = bottom - top, right - left
    else:
        return
    if height * width > prod(page.chunks[:2]):
        msg = f"it claims to have {width} x {height} pixels"
        raise ValueError(msg)


def _damaged(path: Path, plane: Plane, number: int, why: str) -> str:
    return f"{path} is damaged: strip or tile {number} of page {plane.page} cannot be decoded ({why})."
