"""Mean intensity of each marker in a circle around each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextmarker._progress import Advance, ignore
from nextmarker._tiles import stream_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker._regions import Region

TILE_SIZE = 1024


def circle_means(
    region: Region, markers: Sequence[str], radius: float, advance: Advance = ignore, *, tile_size: int = TILE_SIZE
) -> np.ndarray:
    """Average the pixels whose centre is within `radius` of a cell centre; each chunk is read once.

    Parameters
    ----------
    region
        Image and cells, with rows numbered from 0.
    markers
        Channels to average.
    radius
        In pixels, at least 1, so that every circle contains a pixel.

    Returns
    -------
    Raw counts, float32 (cells, markers).
    """
    means = np.zeros((len(region.rows), len(markers)), np.float32)
    size = (region.pixels.sizes["x"], region.pixels.sizes["y"])
    for tile in stream_tiles(region, markers, tile_size=tile_size, margin=int(np.ceil(radius)) + 1):
        origin = np.rint(region.centres[tile.rows[0]] - 0.5 - tile.centres[0]).astype(int)
        means[tile.rows] = tile.circle_means(radius, first=-origin, end=size - origin)
        advance(len(tile.rows))
    return means
