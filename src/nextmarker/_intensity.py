"""Mean intensity of every marker in a circle around every cell."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from nextmarker._cells import circle_radii
from nextmarker._tiles import Tile, stream_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from nextmarker._cells import Region

TILE_SIZE = 1024
MEASURED_AGAIN = 64
"""Cells of an image whose places are checked."""
FARTHEST = 3
"""Pixels by which cells may be displaced, one for each of several crops, and it is noticed."""


def circle_means(region: Region, markers: Sequence[str], radius: float, *, tile_size: int = TILE_SIZE) -> np.ndarray:
    """Average the pixels whose centre lies within `radius` of the centre of a cell; each chunk is read once.

    Parameters
    ----------
    region
        Image and cells; its rows count from 0 to the number of its cells.
    markers
        Channels to average.
    radius
        Pixels, at least 1, so that no circle is without a pixel.

    Returns
    -------
    Raw counts, float32 (cells, markers).
    """
    means = np.zeros((len(region.rows), len(markers)), np.float32)
    size = (region.pixels.sizes["x"], region.pixels.sizes["y"])
    for tile in stream_tiles(region, markers, tile_size=tile_size, halo=int(np.ceil(radius)) + 1):
        origin = np.rint(region.centres[tile.rows[0]] - 0.5 - tile.centres[0]).astype(int)
        means[tile.rows] = _tile_means(tile, radius, first=-origin, end=size - origin)
    return means


def _tile_means(tile: Tile, radius: float, first: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Average around the cells of a tile, in which the image reaches from `first` (x, y) to before `end`."""
    nearest = np.rint(tile.centres).astype(int)
    total = np.zeros((len(nearest), tile.pixels.shape[2]))
    count = np.zeros(len(nearest))
    reach = int(np.ceil(radius)) + 1
    # One offset after the other: no patches are held in memory, and sums do not depend on the tile.
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            pixel = nearest + (dx, dy)
            inside = np.linalg.norm(pixel - tile.centres, axis=1) <= radius
            inside &= ((pixel >= first) & (pixel < end)).all(axis=1)
            column, row = pixel[inside].T
            total[inside] += tile.pixels[row, column]
            count += inside
    return total / count[:, None]


class PlaceCheck:
    """Notices cells that lie one pixel off: spatialdata places them so after some crops that begin within a pixel.

    A crop of such a crop adds another pixel. The table holds the mean intensity of each cell. Some cells of each image
    are measured again, in the first of its tiles; only if all of them have that intensity a few pixels away, and not
    where they are, is the displacement proven. A table whose intensities were changed, by a logarithm for instance,
    proves nothing.

    Parameters
    ----------
    sdata
        Images, and a table of cells.
    table_key
        Name of the table.
    markers
        Channels of the tiles, in their order.
    """

    def __init__(self, sdata: SpatialData, table_key: str, markers: Sequence[str]) -> None:
        self.sdata, self.table_key = sdata, table_key
        self.adata = sdata.tables[table_key]
        self.markers = [name for name in markers if name in self.adata.var_names]
        self.channels = [list(markers).index(name) for name in self.markers]
        self.checked: set[str] = set()

    def __call__(self, region: Region, tile: Tile) -> None:
        """Check the cells of a tile.

        Raises
        ------
        ValueError
            If they are displaced.
        """
        if region.image in self.checked or self.adata.X is None or not self.markers:
            return
        radius = circle_radii(self.sdata, region, self.table_key)
        local = np.searchsorted(region.rows, tile.rows)
        size = (region.pixels.sizes["x"], region.pixels.sizes["y"])
        edge = np.minimum(region.centres, size - region.centres).min(axis=1)[local]
        chosen = np.flatnonzero(edge > radius.max() + 1 + FARTHEST)[:MEASURED_AGAIN]
        if not chosen.size:
            return
        self.checked.add(region.image)
        recorded = self.adata[tile.rows[chosen], self.markers].to_df().to_numpy()
        best = int(np.argmax(recorded.var(axis=0)))  # one marker is enough
        pixels = tile.pixels[:, :, [self.channels[best]]]
        off = _displacement(pixels, tile.centres[chosen], float(radius[local[chosen[0]]]), recorded[:, best])
        if off:
            msg = (
                f"The cells of image {region.image!r} lie {'one pixel' if off == 1 else f'{off} pixels'} off, as "
                "spatialdata places them after a crop that begins within a pixel. Crop the whole image again, "
                "beginning at a multiple of the pixel size, in a coordinate system in which it is not turned."
            )
            raise ValueError(msg)


def _displacement(pixels: np.ndarray, centres: np.ndarray, radius: float, recorded: np.ndarray) -> int:
    """By how many pixels, at most, the places at which some cells have their intensity lie further; 0 if unproven."""
    around = (FARTHEST, FARTHEST)
    padded = np.pad(pixels, (around, around, (0, 0)))  # a shifted circle may leave the tile

    def fits(shift: tuple[int, int]) -> bool:
        tile = Tile(padded, centres + FARTHEST + shift, np.arange(len(centres)))
        means = _tile_means(tile, radius, first=np.zeros(2), end=np.array(padded.shape[1::-1]))
        return np.allclose(means[:, 0], recorded, rtol=1e-3, atol=1e-3)

    steps = range(FARTHEST + 1)
    nearest_first = sorted(product(steps, steps), key=max)
    return next((max(shift) for shift in nearest_first if fits(shift)), 0)
