"""Channels of one image in a TIFF: checked, named, and read block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np

from nextmarker.io._image import Image
from nextmarker.io._names import name_channels, page_names, stem
from nextmarker.io._pixel_size import Stated, check_square
from nextmarker.io.tiff.pages import Plane, check_page, data_type, is_colour, is_plain, read_block

if TYPE_CHECKING:
    import tifffile

BLOCK = 1024  # pixels; about the height and width of a block, which consists of whole tiles or strips
PER_CENTIMETRE, PER_INCH = 3, 2  # TIFF's ResolutionUnit


@dataclass(frozen=True)
class Stack:
    """One image in a TIFF, as described by the file."""

    path: Path
    name: str
    planes: tuple[Plane, ...]
    """One per channel."""
    shape: tuple[int, int]
    dtype: np.dtype
    block: tuple[int, int]
    """Rows and columns that are read at a time."""
    channels: tuple[str, ...] | None = None
    stated: Stated = Stated()
    """Pixel size."""
    slices: bool = False
    """Whether `channels` are labels of slices, as written by ImageJ."""
    unsure: str = ""
    """Kind and number of the planes, if the file does not call them channels."""
    colour: bool = False
    """Whether the file describes it as a colour picture."""
    originals: tuple[str, ...] | None = None
    metals: tuple[str, ...] | None = None
    metadata: Mapping[str, str | float | int] = field(default_factory=dict)
    part: str = ""
    """Number among several images in the file."""

    @property
    def n_channels(self) -> int:
        """Number of planes."""
        return len(self.planes)

    @property
    def source(self) -> str:
        """File, and the part of it."""
        return f"{self.path}: {self.part}" if self.part else str(self.path)

    def pixels(self, channels: Sequence[str] | None = None) -> da.Array:
        """All pixels, lazily, (c, y, x); the names of the channels are for messages."""
        names = tuple(channels or map(str, range(self.n_channels)))
        pixels = Pixels(self.path, self.planes, names, self.shape, self.dtype)
        return da.from_array(pixels, chunks=(1, *self.block), meta=np.empty((0, 0, 0), self.dtype))


@dataclass(frozen=True)
class Pixels:
    """Indexed like an array, (c, y, x), it reads only those pixels.

    The file is opened again for each block, so no file stays open and a block can be read in another process.
    """

    path: Path
    planes: tuple[Plane, ...]
    channels: tuple[str, ...]
    plane_shape: tuple[int, int]
    dtype: np.dtype
    ndim: int = 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return (len(self.planes), *self.plane_shape)

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        # dask merges slices into the index, so only those rows and columns are read
        channels, rows, columns = (within(part, n) for part, n in zip(index, self.shape, strict=True))
        pixels = np.empty(
            (channels.stop - channels.start, rows.stop - rows.start, columns.stop - columns.start), self.dtype
        )
        for plane, channel in zip(pixels, range(channels.start, channels.stop), strict=True):
            plane[...] = self._plane(channel, rows, columns)
        # the rest of the index applies to the pixels that were read
        return pixels[tuple(shifted(part, n) for part, n in zip(index, self.shape, strict=True))]

    def _plane(self, channel: int, rows: slice, columns: slice) -> np.ndarray:
        try:
            pixels = read_block(self.path, self.planes[channel], rows, columns)
        except ValueError as error:
            msg = f"Channel {self.channels[channel]!r} cannot be read: {error} Copy it again, or leave the channel out."
            raise ValueError(msg) from error
        if pixels.shape != (rows.stop - rows.start, columns.stop - columns.start) or pixels.dtype != self.dtype:
            msg = f"{self.path} has changed since it was opened. Read it again."
            raise ValueError(msg)
        return pixels


def within(part: int | slice, length: int) -> slice:
    """Smallest slice with step 1 that contains an index."""
    picked = range(length)[part]
    picked = range(picked, picked + 1) if isinstance(picked, int) else picked
    return slice(min(picked, default=0), max(picked, default=-1) + 1)


def shifted(part: int | slice, length: int) -> int | slice:
    """The same index, counted from the start of `within`."""
    return 0 if isinstance(part, (int, np.integer)) else slice(None, None, part.indices(length)[2])


def make_stack(
    path: Path,
    pages: Sequence[tifffile.TiffPage],
    *,
    name: str = "",
    skipped_bytes: Sequence[int] = (0,),
    channels: tuple[str, ...] | None = None,
    unsure: str = "",
    **known: object,
) -> Stack:
    """Check pages and combine them.

    Parameters
    ----------
    pages
        One per channel, or with several channels one after another.
    skipped_bytes
        Offsets of the planes, if only the first has a page.
    channels, unsure
        See `Stack`. If the header does not name every plane, names of pages are used.
    """
    kinds: dict[tuple[int, int, np.dtype], int] = {}
    for page in pages:
        check_page(page)
        kinds.setdefault((page.imagewidth, page.imagelength, data_type(page)), page.index)
    if len(kinds) > 1:
        found = ", ".join(f"page {page} {x} x {y} pixels of {dtype}" for (x, y, dtype), page in kinds.items())
        msg = f"{path} has planes of several sizes or types: {found}. Save each image to its own file."
        raise ValueError(msg)
    [(width, height, dtype)] = kinds
    planes = tuple(
        Plane(page.index, sample, skip)
        for page in pages
        for skip in skipped_bytes
        for sample in range(page.samplesperpixel)
    )
    colour = any(is_colour(page) for page in pages)
    if colour:
        values = f"{max(page.samplesperpixel for page in pages)} values for each pixel, as a colour picture does"
        pages_too = f"{len(pages)} pages" if len(pages) > 1 else ""
        unsure = " x ".join(part for part in (unsure or pages_too, values) if part)
    elif (channels is None or len(channels) != len(planes)) and (names := page_names(path, pages, len(planes))):
        channels, unsure = names, ""
    return Stack(
        path,
        name or stem(path),
        planes,
        (height, width),
        dtype,
        _block(pages[0]),
        channels,
        unsure=unsure,
        colour=colour,
        **known,  # type: ignore[arg-type]
    )


def _block(page: tifffile.TiffPage) -> tuple[int, int]:
    """Height and width of a block: about `BLOCK`, and whole tiles or strips, so that none is decoded twice."""
    if is_plain(page):
        return BLOCK, BLOCK
    rows, columns = page.chunks[:2]
    return max(BLOCK // rows, 1) * rows, max(BLOCK // columns, 1) * columns


def resolution(page: tifffile.TiffPage) -> Stated:
    """Pixel size from the resolution tags; programs that do not know it write 1."""
    length = {PER_CENTIMETRE: 1e4, PER_INCH: 2.54e4}.get(page.resolutionunit)
    x, y = page.resolution
    return Stated((length / x, length / y)) if length and min(x, y) > 0 and (x, y) != (1, 1) else Stated()


def stack_image(stack: Stack, channel_names: Sequence[str] | None, pixel_size: float | None) -> Image:
    """Make an image of a stack, with names of channels and a pixel size."""
    channels = _stack_channels(stack, channel_names)
    size, remarks = known_pixel_size(stack, pixel_size)
    if stack.unsure:
        remarks = (*remarks, f"it has {stack.unsure}: read as channels, in the order of the file, since all have names")
    named = stack.channels if stack.channels and len(stack.channels) == stack.n_channels else None
    return Image(
        stack.name,
        stack.pixels(channels),
        channels,
        size,
        originals=named if channel_names is not None else stack.originals,
        metals=stack.metals,
        metadata=stack.metadata,
        source=stack.source,
        remarks=remarks,
    )


def _stack_channels(stack: Stack, channel_names: Sequence[str] | None) -> tuple[str, ...]:
    n = stack.n_channels
    if stack.unsure and channel_names is None:
        msg = (
            f"{stack.source} has {stack.unsure}. If all {n} planes are channels, name them in the order of the file: "
            f"channel_names=[...].{'' if stack.colour else ' Otherwise save one plane per channel, or a projection.'}"
        )
        raise ValueError(msg)
    return name_channels(stack.source, n, stack.channels, channel_names, stack.unsure)


def known_pixel_size(stack: Stack, pixel_size: float | None) -> tuple[float | None, tuple[str, ...]]:
    """Micrometres per pixel, as given or from the file, and notes."""
    if pixel_size is not None:
        return float(pixel_size), ()
    remarks = (stack.stated.note,) if stack.stated.note else ()
    return check_square(stack.stated.size, stack.path) if stack.stated.size else None, remarks
