"""Detects cells that are not where they were detected, by comparing their mean intensities."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Recorded:
    """What the table holds of the cells of an image, numbered from 0: mean intensities and radius of the circles.

    Detects shifted cells: some crops with spatialdata that begin within a pixel shift all cells by one pixel, and each
    further crop can add a pixel. Some cells are measured again. They are shifted if all of them have the recorded
    intensity a few pixels away, but not at their centres. If the intensities in the table were changed, for example
    log-transformed, nothing is detected.
    """

    means: np.ndarray
    """(cells, markers)."""
    channels: list[int]
    """Positions of these markers among those of a tile."""
    radius: np.ndarray
    """In pixels, (cells,)."""

    def check(self, region: Region, tile: Tile) -> bool:
        """Measure cells of a tile again, and return whether there were any far enough from the edge of the image.

        Raises
        ------
        ValueError
            If they are shifted.
        """
        size = (region.pixels.sizes["x"], region.pixels.sizes["y"])
        edge = np.minimum(region.centres, size - region.centres).min(axis=1)[tile.rows]
        chosen = np.flatnonzero(edge > self.radius.max() + 1 + FARTHEST)[:MEASURED_AGAIN]
        if not chosen.size:
            return False
        recorded, radius = self.means[tile.rows[chosen]], float(self.radius[tile.rows[chosen[0]]])
        best = int(np.argmax(recorded.var(axis=0)))  # one marker is enough
        pixels = tile.pixels[:, :, [self.channels[best]]]
        off = _displacement(pixels, tile.centres[chosen], radius, recorded[:, best])
        if off:
            shift = "one pixel" if off == 1 else f"{off} pixels"
            msg = (
                f"The cells of image {region.image!r} are shifted by {shift}. Crop the whole image again, from a "
                "multiple of the pixel size, without rotation."
            )
            raise ValueError(msg)
        return True


def read_recorded(sdata: SpatialData, table_key: str, region: Region, markers: Sequence[str]) -> Recorded | None:
    """Read what the table holds of the cells of a region; None if it holds none of the markers.

    Parameters
    ----------
    markers
        Channels of the tiles, in this order.
    """
    adata = sdata.tables[table_key]
    known = [name for name in markers if name in adata.var_names]
    if adata.X is None or not known:
        return None
    means = adata[region.rows, known].to_df().to_numpy()
    return Recorded(means, [list(markers).index(name) for name in known], circle_radii(sdata, region, table_key))


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
