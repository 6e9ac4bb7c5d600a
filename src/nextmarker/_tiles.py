"""Divides images into tiles, which hold pixels and the cells that can be cut from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import pairwise, product
from typing import TYPE_CHECKING

import numpy as np

from nextmarker._regions import read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from nextmarker._regions import Region

WINDOWS = 3
"""Number of windows along each side of an image that `sample_windows` reads."""
WINDOW_SIZE = 128
"""Maximum width of such a window in pixels."""
PLACES_PER_WINDOW = 28
READ_AT_ONCE = 1024
"""An image up to this high and wide is read once instead of window by window, since windows share chunks."""


@dataclass(frozen=True)
class Tile:
    """Pixels in memory, and the cells that can be cut from them with a margin around every centre.

    Beyond the edges of the image the margin is filled by reflection.
    """

    pixels: np.ndarray
    """Raw counts, (height, width, markers), in the dtype of the image."""
    centres: np.ndarray
    """Cell centres (x, y) as indices into `pixels`, float64 (cells, 2)."""
    rows: np.ndarray
    """Positions of the cells in the table, int (cells,)."""

    def circle_means(self, radius: float, *, first: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Average the pixels within `radius` of every cell centre, (cells, markers).

        Only pixels of the image count, from `first` (x, y) up to but not including `end`.
        """
        farthest = int(np.ceil(radius)) + 1
        # (offsets, cells, x and y)
        pixel = np.rint(self.centres).astype(int) + np.arange(-farthest, farthest + 1)[:, None, None]
        (columns, rows), (x, y) = np.moveaxis(pixel, 2, 0), np.moveaxis((pixel - self.centres) ** 2, 2, 0)
        x_inside, y_inside = np.moveaxis((pixel >= first) & (pixel < end), 2, 0)
        total = np.zeros((len(self.centres), self.pixels.shape[2]))
        count = np.zeros(len(self.centres))
        # One offset at a time: no patches are kept in memory, and sums do not depend on the tile.
        for dy, dx in np.ndindex(len(y), len(x)):
            inside = (np.sqrt(x[dx] + y[dy]) <= radius) & x_inside[dx] & y_inside[dy]
            if inside.any():
                total[inside] += self.pixels[rows[dy][inside], columns[dx][inside]]
                count += inside
        return total / count[:, None]


def stream_tiles(region: Region, markers: Sequence[str], *, tile_size: int, margin: int) -> Iterator[Tile]:
    """Read an image tile by tile, and yield every cell exactly once.

    Each chunk is read once: a tile keeps the last `2 * margin` rows and columns of the tiles before it instead of
    reading them again, and holds the cells whose surroundings are now complete.

    Parameters
    ----------
    region
        Image and cells.
    markers
        Channels to read, in this order.
    tile_size
        Minimum width of a tile in pixels. A tile consists of whole chunks of the image.
    margin
        Pixels needed on every side of a centre.
    """
    pixels = region.pixels.sel(c=list(markers))
    centres = region.centres - 0.5  # pixel i spans [i, i + 1) in SpatialData and has index i here
    row_edges = _edges(pixels, "y", tile_size)
    column_edges = _edges(pixels, "x", tile_size)
    band_of = _owner(centres[:, 1], row_edges, margin)
    column_of = _owner(centres[:, 0], column_edges, margin)

    above = np.empty((len(markers), 0, pixels.sizes["x"]), pixels.dtype)
    for band, (top, bottom) in enumerate(pairwise(row_edges)):
        left = np.empty((len(markers), above.shape[1] + bottom - top, 0), pixels.dtype)
        above_next = []
        for column, (start, stop) in enumerate(pairwise(column_edges)):
            new = read_pixels(region.image, pixels, slice(top, bottom), slice(start, stop))
            new = np.concatenate([above[:, :, start:stop], new], axis=1)
            above_next.append(_last(new, 2 * margin, axis=1))
            block = np.concatenate([left, new], axis=2)
            left = _last(block, 2 * margin, axis=2)
            mine = np.flatnonzero((band_of == band) & (column_of == column))
            if mine.size:
                corner = (bottom - block.shape[1], stop - block.shape[2])
                yield _tile(block, corner, pixels, margin, centres[mine], region.rows[mine])
        above = np.concatenate(above_next, axis=2)


def occupied_windows(region: Region, *, size: int) -> list[tuple[slice, slice]]:
    """Divide an image into windows of up to `size` pixels, and return those with cells.

    Returns
    -------
    Rows and columns of each window, in pixels.
    """
    height, width = region.pixels.sizes["y"], region.pixels.sizes["x"]
    window_of = (region.centres // size).astype(int)
    occupied = sorted({(row, column) for column, row in window_of.tolist()})
    return [
        (slice(r * size, min((r + 1) * size, height)), slice(c * size, min((c + 1) * size, width))) for r, c in occupied
    ]


def sample_windows(region: Region, markers: Sequence[str], *, margin: int) -> Iterator[Tile]:
    """Read a sample of an image: evenly spaced windows, each with random places instead of cells.

    The places are the same each time and do not depend on the cells.
    """
    rng = np.random.default_rng(0)
    pixels = _read_if_small(region.image, region.pixels.sel(c=list(markers)))
    for rows, columns in _spread(pixels):
        first, last = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
        places = first + rng.random((PLACES_PER_WINDOW, 2)) * (last - first)
        sample = replace(region, pixels=pixels, centres=places, rows=np.arange(len(places)))
        yield read_window(sample, markers, (rows, columns), margin=margin)


def fingerprint(image: str, pixels: xr.DataArray) -> np.ndarray:
    """Digest of the counts in the windows of `sample_windows`, uint8 (16,).

    It differs between images, and after any change of a whole image, but not after a retouch outside of the windows.
    """
    content = blake2b(digest_size=16)
    pixels = _read_if_small(image, pixels)
    for rows, columns in _spread(pixels):
        content.update(read_pixels(image, pixels, rows, columns).tobytes())
    return np.frombuffer(content.digest(), np.uint8)


def _read_if_small(image: str, pixels: xr.DataArray) -> xr.DataArray:
    if max(pixels.sizes["y"], pixels.sizes["x"]) > READ_AT_ONCE:
        return pixels
    return pixels.copy(data=read_pixels(image, pixels, slice(None), slice(None)))


def _spread(pixels: xr.DataArray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of evenly spaced windows."""
    sides = np.array([pixels.sizes["x"], pixels.sizes["y"]])
    for column, row in np.ndindex(WINDOWS, WINDOWS):
        middle = (np.array([column, row]) + 0.5) * sides / WINDOWS
        half = np.minimum(sides / WINDOWS, WINDOW_SIZE) / 2
        first = np.floor(middle - half).astype(int).clip(min=0)  # rounding may give -1
        last = np.minimum(np.ceil(middle + half).astype(int), sides)
        yield slice(first[1], last[1]), slice(first[0], last[0])


def read_window(region: Region, markers: Sequence[str], window: tuple[slice, slice], *, margin: int) -> Tile:
    """Read a window of an image, given as rows and columns, with its cells and a margin around it."""
    rows, columns = window
    top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
    part = region.pixels.isel(y=slice(top, rows.stop + margin), x=slice(left, columns.stop + margin))
    block = read_pixels(region.image, part.sel(c=list(markers)), slice(None), slice(None))
    x, y = region.centres.T
    mine = np.flatnonzero((y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop))
    return _tile(block, (top, left), region.pixels, margin, region.centres[mine] - 0.5, region.rows[mine])


def divide(region: Region, *, size: int, margin: int) -> Iterator[tuple[np.ndarray, Region]]:
    """Divide an image into parts of whole chunks, at least `size` wide, with a margin around them.

    Patches of a part are those of the whole image. Parts without cells are left out.

    Yields
    ------
    Which cells are in a part, bool (cells,), and the part with these cells.
    """
    x, y = region.centres.T
    for rows, columns in whole_chunks(region.pixels, size):
        mine = (y >= rows.start) & (y < rows.stop) & (x >= columns.start) & (x < columns.stop)
        top, left = max(rows.start - margin, 0), max(columns.start - margin, 0)
        pixels = region.pixels.isel(y=slice(top, rows.stop + margin), x=slice(left, columns.stop + margin))
        if mine.any():
            centres = region.centres[mine] - (left, top)
            yield mine, replace(region, pixels=pixels, centres=centres, rows=region.rows[mine])


def whole_chunks(pixels: xr.DataArray, tile_size: int) -> list[tuple[slice, slice]]:
    """Divide an image into tiles of whole chunks, at least `tile_size` wide: the rows and columns of each."""
    rows, columns = ([slice(*edges) for edges in pairwise(_edges(pixels, axis, tile_size))] for axis in "yx")
    return list(product(rows, columns))


def _edges(pixels: xr.DataArray, axis: str, tile_size: int) -> list[int]:
    """Edges of the tiles along one axis: edges of chunks, at least `tile_size` apart."""
    length = pixels.sizes[axis]
    chunks = pixels.chunksizes.get(axis)
    borders = np.cumsum(chunks).tolist() if chunks else list(range(tile_size, length, tile_size))
    edges = [0]
    for border in borders:
        if border - edges[-1] >= tile_size and border < length:
            edges.append(border)
    return [*edges, length]


def _owner(position: np.ndarray, edges: list[int], margin: int) -> np.ndarray:
    """Number of the tile of each centre: the first whose pixels extend `margin` beyond the centre."""
    return np.searchsorted(np.asarray(edges[1:-1]) - margin, position, side="right")


def _last(block: np.ndarray, count: int, axis: int) -> np.ndarray:
    start = max(block.shape[axis] - count, 0)
    return np.take(block, range(start, block.shape[axis]), axis=axis)


def _tile(
    block: np.ndarray, corner: tuple[int, int], pixels: xr.DataArray, margin: int, centres: np.ndarray, rows: np.ndarray
) -> Tile:
    """Make a tile of a block that begins at `corner` (row, column), reflected at the edges of the image."""
    reflected = [(0, 0)]
    for begin, length, axis in zip(corner, block.shape[1:], "yx", strict=True):
        reflected.append((margin if begin == 0 else 0, margin if begin + length == pixels.sizes[axis] else 0))
    block = np.pad(block, reflected, mode="symmetric")
    origin = (corner[1] - reflected[2][0], corner[0] - reflected[1][0])  # (x, y), like the centres
    return Tile(np.ascontiguousarray(block.transpose(1, 2, 0)), centres - origin, rows)
