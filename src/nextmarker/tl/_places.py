"""Detects cells that are not where they were detected, by comparing their mean intensities."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from nextmarker._regions import circle_radii
from nextmarker._tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from nextmarker._regions import Region

MEASURED_AGAIN = 64
"""Number of cells of an image that are checked."""
FARTHEST = 3
"""Largest shift in pixels that is detected; each of several crops can add one pixel."""


class PlaceCheck:
    """Detects shifted cells: some crops with spatialdata that begin within a pixel shift all cells by one pixel.

    Each further crop can add a pixel. The table holds the mean intensity of each cell. Some cells of each image are
    measured again, in its first tile. They are shifted if all of them have the recorded intensity a few pixels away,
    but not at their centres. If the intensities in the table were changed, for example log-transformed, nothing is
    detected.

    Parameters
    ----------
    sdata
        Images, and a table of cells.
    table_key
        Name of the table.
    markers
        Channels of the tiles, in this order.
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
            If they are shifted.
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
            shift = "one pixel" if off == 1 else f"{off} pixels"
            msg = (
                f"The cells of image {region.image!r} are shifted by {shift}. Crop the whole image again, from a "
                "multiple of the pixel size, without rotation."
            )
            raise ValueError(msg)


def _displacement(pixels: np.ndarray, centres: np.ndarray, radius: float, recorded: np.ndarray) -> int:
    """Largest shift in pixels at which all cells have their recorded intensity; 0 if there is none."""
    around = (FARTHEST, FARTHEST)
    padded = np.pad(pixels, (around, around, (0, 0)))  # a shifted circle may leave the tile

    def fits(shift: tuple[int, int]) -> bool:
        tile = Tile(padded, centres + FARTHEST + shift, np.arange(len(centres)))
        means = tile.circle_means(radius, first=np.zeros(2), end=np.array(padded.shape[1::-1]))
        return np.allclose(means[:, 0], recorded, rtol=1e-3, atol=1e-3)

    steps = range(FARTHEST + 1)
    nearest_first = sorted(product(steps, steps), key=max)
    return next((max(shift) for shift in nearest_first if fits(shift)), 0)
