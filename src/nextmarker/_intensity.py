"""Mean intensity of every marker in a circle around every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextmarker._tiles import Tile, stream_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker._cells import Region

TILE_SIZE = 1024


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
    for tile in stream_tiles(region, markers, tile_size=tile_size, halo=int(np.ceil(radius)) + 1):
        means[tile.rows] = _tile_means(tile, radius)
    return means


def _tile_means(tile: Tile, radius: float) -> np.ndarray:
    height, width, n_markers = tile.pixels.shape
    nearest = np.rint(tile.centres).astype(int)
    total = np.zeros((len(nearest), n_markers))
    count = np.zeros(len(nearest))
    reach = int(np.ceil(radius)) + 1
    # One offset after the other: no patches are held in memory, and sums do not depend on the tile.
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            column, row = (nearest + (dx, dy)).T
            distance = np.hypot(column - tile.centres[:, 0], row - tile.centres[:, 1])
            inside = (distance <= radius) & (0 <= row) & (row < height) & (0 <= column) & (column < width)
            total[inside] += tile.pixels[row[inside], column[inside]]
            count += inside
    return total / count[:, None]
