"""Pages of a TIFF: checked before memory is allocated, and read strip by strip or tile by tile."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_PAGES = 10_000
LARGEST_PIECE = 2**30  # bytes of a decoded strip or tile

# decoders that stop at the requested size; those of pictures may mix the colours
MIXED = {"JPEG", "APERIO_JP2000_YCBC"}
READABLE = {
    *("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD", "ZSTD_DEPRECATED"),
    *("JPEG2000", "JPEG_2000_LOSSY", "APERIO_JP2000_RGB", *MIXED),
}

# Raised by decoders and header parsers for damaged files; errors of imagecodecs are RuntimeErrors.
DAMAGE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError),
    *(struct.error, EOFError),
)


def explained(path: Path | str, error: BaseException, what: str = "its header") -> str:
    """Message about a damaged file; our own messages, which name the file, are kept."""
    return str(error) if str(path) in str(error) else f"{path} is damaged: {what} cannot be read ({error!r})."


@dataclass(frozen=True)
class Plane:
    """Position of a channel in a TIFF."""

    page: int
    """Number of the page, from 0."""
    sample: int = 0
    """Number of the channel, if the page stores several one after another."""
    skipped_bytes: int = 0
    """Bytes from the pixels of the page to those of the plane, for planes without a page."""


def check_start(path: Path) -> None:
    """Check the first bytes of a file.

    Raises
    ------
    ValueError
        If it is not a TIFF.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if len(head) < 8 or head[:4] not in STARTS:
        msg = f"{path} is {'another kind of file' if head else 'empty'}, not a TIFF, .mcd file or .txt export."
        raise ValueError(msg)


def read_pages(tif: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Read the tags of each page.

    Raises
    ------
    ValueError
        If pages refer to each other in a circle, lie beyond the end of the file, or are more than `MOST_PAGES`.
    """
    path = tif.filehandle.path
    pages: dict[int, tifffile.TiffPage] = {}
    while (page := _page(tif, len(pages))) is not None:
        if page.offset in pages:
            msg = f"{path} is damaged: page {len(pages)} refers back to an earlier one."
            raise ValueError(msg)
        if len(pages) == MOST_PAGES:
            msg = f"{path} has more than {MOST_PAGES:,} pages, too many for an image."
            raise ValueError(msg)
        pages[page.offset] = page
    tif.filehandle.seek(tif.pages.next_page_offset or 0)
    if tif.filehandle.read(tif.tiff.offsetsize) != bytes(tif.tiff.offsetsize):  # another page should follow
        msg = f"{path} is not complete: it ends before the header of page {len(pages)}. Copy it again."
        raise ValueError(msg)
    if not pages:
        msg = f"{path} is a TIFF without pages."
        raise ValueError(msg)
    return list(pages.values())


def _page(tif: tifffile.TiffFile, number: int) -> tifffile.TiffPage | None:
    try:
        return tif.pages.get(number)  # type: ignore[return-value]
    except IndexError:
        return None


def check_page(page: tifffile.TiffPage) -> None:
    """Raise an error if, by its header, the pixels of a page cannot be read."""
    problem = _problem(page)
    if problem:
        msg = f"{page.parent.filehandle.path}, page {page.index}: {problem}"
        raise ValueError(msg)


def _problem(page: tifffile.TiffPage) -> str:
    size = f"{page.imagewidth} x {page.imagelength} pixels"
    compression, pieces = getattr(page.compression, "name", str(page.compression)), prod(page.chunked)
    if page.dtype is None or page.dtype.kind not in "uif" or not isinstance(page.bitspersample, int):
        return f"pixels of {page.bitspersample} bits and the type {page.dtype} are not counts."
    if compression not in READABLE:
        return f"its compression {compression} is not supported. Save it again with LZW, zlib or ZSTD."
    if page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel < 3:
        return f"its header is damaged: a colour picture with {page.samplesperpixel} value(s) per pixel."
    if page.samplesperpixel > 1 and page.planarconfig not in (1, 2):
        return f"its header is damaged: the order of its {page.samplesperpixel} values per pixel is missing."
    if is_interleaved(page) and (compression in MIXED or page.photometric == tifffile.PHOTOMETRIC.YCBCR):
        return "the compression of this colour picture mixes its channels, so counts cannot be read."
    if min(page.imagewidth, page.imagelength) < 1 or page.imagedepth > 1:
        return f"its header is damaged: {size}, {page.imagedepth} deep."
    found = min(len(page.dataoffsets), len(page.databytecounts))
    if found != pieces:
        return f"its header is damaged: {size} are {pieces} strips or tiles, but it lists {found}."
    if max(map(add, page.dataoffsets, page.databytecounts)) > page.parent.filehandle.size:
        return f"it is not complete: it ends before its {size}. Copy it again."
    piece = prod(page.chunks) * page.dtype.itemsize
    if not is_plain(page) and piece > LARGEST_PIECE:
        return f"a strip or tile would take {piece / 2**20:,.0f} MiB of memory. Save it again in tiles."
    is_whole = compression == "NONE" and page.bitspersample == 8 * page.dtype.itemsize
    if is_whole and page.databytecounts[0] not in (0, piece):  # strips of zeros may be left out
        return f"its header is damaged: a strip or tile has {page.databytecounts[0]} bytes, not {piece}."
    return ""


def data_type(page: tifffile.TiffPage) -> np.dtype:
    """Data type of the pixels, in the byte order of the machine."""
    return page.dtype.newbyteorder("=")  # type: ignore[union-attr]


def is_plain(page: tifffile.TiffPage) -> bool:
    """Whether the pixels are stored uncompressed, one after another."""
    return page.is_final and sum(page.databytecounts) == page.nbytes


def is_interleaved(page: tifffile.TiffPage) -> bool:
    """Whether the channels of a pixel are stored together, not in separate planes."""
    return page.samplesperpixel > 1 and page.planarconfig == tifffile.PLANARCONFIG.CONTIG


def is_colour(page: tifffile.TiffPage) -> bool:
    """Whether a page is a colour picture, by its tags or its shape."""
    return page.photometric == tifffile.PHOTOMETRIC.RGB or is_interleaved(page)


def read_block(path: Path, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
    """Read some pixels of one channel, and only the strips or tiles that hold them.

    Raises
    ------
    ValueError
        If they cannot be decoded.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            page: Any = tif.pages.get(plane.page)
            check_page(page)
            return (_map if is_plain(page) else _decode)(page, plane, rows, columns)
    except (*DAMAGE, MemoryError) as error:
        raise ValueError(explained(path, error)) from error


def _map(page: tifffile.TiffPage, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
    """Read uncompressed pixels."""
    dtype, start = data_type(page).newbyteorder(page.parent.byteorder), page.dataoffsets[0] + plane.skipped_bytes
    mapped = page.parent.filehandle.memmap_array(dtype, page.shape, start)
    axes: dict[str, Any] = {"Y": rows, "X": columns, "S": plane.sample}
    return np.array(mapped[tuple(axes[axis] for axis in page.axes)], data_type(page))


def _decode(page: tifffile.TiffPage, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
    """Decode and combine strips or tiles; those that the file leaves out are zero."""
    block = np.zeros((rows.stop - rows.start, columns.stop - columns.start), data_type(page))
    sample, value = (0, plane.sample) if is_interleaved(page) else (plane.sample, 0)
    file = page.parent.filehandle
    for number in _pieces(page, sample, rows, columns):
        start, count = page.dataoffsets[number], page.databytecounts[number]
        if start == count == 0:
            continue
        file.seek(start)
        data = file.read(count) if start else b""  # no pixels are at the start of a file
        try:
            decoded: Any = page.decode(data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
        except (*DAMAGE, MemoryError) as error:
            raise ValueError(explained(file.path, error, f"strip or tile {number} of page {page.index}")) from error
        piece, (*_, y, x, _), _ = decoded
        part = piece[0, max(rows.start - y, 0) : rows.stop - y, max(columns.start - x, 0) : columns.stop - x, value]
        target = block[max(y - rows.start, 0) :, max(x - columns.start, 0) :]
        target[: part.shape[0], : part.shape[1]] = part
    return block


def _pieces(page: tifffile.TiffPage, sample: int, rows: slice, columns: slice) -> list[int]:
    """Numbers of the strips or tiles that hold the given pixels."""
    height, width = page.chunks[:2]
    down, across = -(-page.imagelength // height), -(-page.imagewidth // width)
    return [
        (sample * down + i) * across + j
        for i in range(rows.start // height, -(-rows.stop // height))
        for j in range(columns.start // width, -(-columns.stop // width))
    ]
