"""Mean intensity of every marker in a circle around every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextmarker._cells import circle_radii, read_pixels
from nextmarker._tiles import Tile, stream_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

    from nextmarker._cells import Region

TILE_SIZE = 1024
WINDOW = 128
"""Side, in pixels, of the window in which cells are measured again."""


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


def refuse_displaced(sdata: SpatialData, regions: Sequence[Region], table_key: str) -> None:
    """Refuse cells that lie one pixel off: spatialdata places them so after some crops that begin within a pixel.

    The table holds the mean intensity of each cell. A few cells of each image are measured again; only if all of them
    have that intensity one pixel away, and not where they are, is the displacement proven. A table whose intensities
    were changed, by a logarithm for instance, proves nothing.

    Raises
    ------
    ValueError
        If the cells of an image are displaced.
    """
    adata = sdata.tables[table_key]
    for region in regions:
        radius = circle_radii(sdata, region, table_key)
        near = _near(region, margin=radius.max() + 2)
        known = [name for name in adata.var_names if name in region.pixels["c"].to_numpy()]
        if adata.X is None or not known or not near.size:
            continue
        recorded = adata[region.rows[near], known].to_df()
        marker = recorded.var().fillna(0).idxmax()  # one is enough, and quick to read
        if _is_displaced(region, str(marker), near, radius[near], recorded[marker].to_numpy()):
            msg = (
                f"The cells of image {region.image!r} lie one pixel off, as spatialdata places them after a crop that "
                "begins within a pixel. Crop again, beginning at a multiple of the pixel size."
            )
            raise ValueError(msg)


def _near(region: Region, margin: float) -> np.ndarray:
    """Cells around the middle one, whose circles lie within the image, int (cells,)."""
    size = np.array([region.pixels.sizes["x"], region.pixels.sizes["y"]])
    middle = region.centres[len(region.centres) // 2]
    edge = np.minimum(region.centres, size - region.centres).min(axis=1)
    return np.flatnonzero((np.abs(region.centres - middle).max(axis=1) < WINDOW / 2) & (edge > margin))


def _is_displaced(region: Region, marker: str, near: np.ndarray, radius: np.ndarray, recorded: np.ndarray) -> bool:
    """Whether the intensities of some cells are those of places one pixel further, and not of their own."""
    low, high = (edge(region.centres[near], axis=0).astype(int) for edge in (np.min, np.max))
    reach = int(np.ceil(radius.max())) + 3
    first, last = np.maximum(low - reach, 0), high + reach
    block = read_pixels(region.image, region.pixels.sel(c=[marker]), slice(first[1], last[1]), slice(first[0], last[0]))
    pixels = block.transpose(1, 2, 0)

    def fits(shift: tuple[int, int]) -> bool:
        tile = Tile(pixels, region.centres[near] - 0.5 - first + shift, np.arange(len(near)))
        means = _tile_means(tile, float(radius[0]), first=np.zeros(2), end=np.array(pixels.shape[1::-1]))
        return np.allclose(means[:, 0], recorded, rtol=1e-3, atol=1e-3)

    return not fits((0, 0)) and any(fits(shift) for shift in ((1, 0), (0, 1), (1, 1)))
