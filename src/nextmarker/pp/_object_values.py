"""Sums and medians of each marker in the objects of a label image, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextmarker._progress import Advance, ignore
from nextmarker._regions import load, read_pixels
from nextmarker._tiles import whole_chunks
from nextmarker.pp._labels import group_pixels

if TYPE_CHECKING:
    import xarray as xr

    from nextmarker.pp._labels import LabelledObjects


def sum_objects(
    image: str,
    pixels: xr.DataArray,
    labels: xr.DataArray,
    objects: LabelledObjects,
    *,
    medians: bool,
    tile_size: int,
    advance: Advance = ignore,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Sum the pixels of each object, reading each chunk of the image once.

    Integers are summed exactly, so the tiles do not change the result.

    Parameters
    ----------
    image
        Name of the image, for error messages.
    pixels
        Raw counts, lazy, (c, y, x).
    labels
        Labels of the same pixels, lazy, (y, x).
    objects
        All objects of these labels.
    medians
        Whether to compute medians as well.
    tile_size
        Minimum width of a tile in pixels. A tile consists of whole chunks of the image.

    Returns
    -------
    Sums, int64 or float64 (objects, markers), and medians, float64 (objects, markers), if asked for.
    """
    exact = np.int64 if np.can_cast(pixels.dtype, np.int64) else np.float64
    sums = np.zeros((len(objects.names), pixels.sizes["c"]), exact)
    collector = _Medians(objects.area, pixels.dtype, pixels.sizes["c"]) if medians else None
    for rows, columns in whole_chunks(pixels, tile_size):
        names, at, first = group_pixels(load(labels.isel(y=rows, x=columns)))
        block = read_pixels(image, pixels, rows, columns)
        values = block.reshape(len(block), -1)[:, at]
        group = np.searchsorted(objects.names, names)
        sums[group] += np.stack([np.add.reduceat(marker, first, dtype=exact) for marker in values], axis=1)
        if collector:
            collector.add(np.repeat(group, np.diff([*first, len(at)])), values)
        advance(block[0].size)
    return sums, collector.medians if collector else None


class _Medians:
    """Collects the pixels of objects, and keeps them only until an object is complete."""

    def __init__(self, area: np.ndarray, dtype: np.dtype, n_markers: int) -> None:
        self.medians = np.zeros((len(area), n_markers))
        self._area = area
        self._group = np.empty(0, np.int64)  # the object of each pixel that waits for the rest of its object
        self._values = np.empty((n_markers, 0), dtype)

    def add(self, group: np.ndarray, values: np.ndarray) -> None:
        """Add pixels of a tile: the object of each, (pixels,), and their values, (markers, pixels)."""
        group = np.concatenate([self._group, group])
        values = np.concatenate([self._values, values], axis=1)
        complete = (np.bincount(group, minlength=len(self._area)) == self._area)[group]
        names, medians = _group_medians(group[complete], values[:, complete])
        self.medians[names] = medians
        self._group, self._values = group[~complete], values[:, ~complete]


def _group_medians(group: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median of the values (markers, pixels) of each group, (groups, markers)."""
    names, sizes = np.unique(group, return_counts=True)
    begin = np.cumsum(sizes) - sizes
    low, high = begin + (sizes - 1) // 2, begin + sizes // 2
    medians = np.empty((len(names), len(values)))
    for index, marker in enumerate(values):
        ordered = marker[np.lexsort((marker, group))].astype(np.float64)
        medians[:, index] = (ordered[low] + ordered[high]) / 2
    return names, medians
