"""Areas and centroids of the objects of a label image, and of the connected pieces of a foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage as ndi
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from nextmarker._regions import load

if TYPE_CHECKING:
    import xarray as xr

TILE_SIZE = 2048

_FEW_LABELS = 10  # with so few values, it may be a mask of foreground or of tissue types


class LabelledObjects(NamedTuple):
    """The objects of a label image."""

    names: np.ndarray
    """Labels, ascending, int64 (objects,)."""
    area: np.ndarray
    """Pixels of each object, int64 (objects,)."""
    centres: np.ndarray
    """Centroids (x, y) in intrinsic coordinates, float64 (objects, 2)."""


class Pieces:
    """Connected foreground, collected block by block, from left to right and from top to bottom."""

    def __init__(self, image_width: int) -> None:
        self._above = np.zeros(image_width, np.int64)  # the piece at the lowest known pixel of each column
        self._left = np.zeros(0, np.int64)  # the pieces along the right edge of the block before
        self._links: list[np.ndarray] = []
        self._sums: list[np.ndarray] = []
        self._n_pieces = 0

    def add(self, foreground: np.ndarray, origin: tuple[int, int]) -> None:
        """Add a block, bool (y, x), whose first pixel has this row and column in the image."""
        local, n_new = ndi.label(foreground)
        pieces = np.where(foreground, local + np.int64(self._n_pieces), 0)
        columns = slice(origin[1], origin[1] + pieces.shape[1])
        self._links.append(np.stack([self._above[columns], pieces[0]]))
        if origin[1] > 0:
            self._links.append(np.stack([self._left, pieces[:, 0]]))
        self._above[columns], self._left = pieces[-1], pieces[:, -1]
        self._sums.append(_sums(pieces, origin))
        self._n_pieces += n_new

    def join(self) -> tuple[np.ndarray, np.ndarray]:
        """Area of each connected piece, int (pieces,), and its centroid as row and column, float64 (pieces, 2)."""
        first, second = np.concatenate(self._links, axis=1)
        touching = (first > 0) & (second > 0)
        n_groups, group = connected_groups(first[touching] - 1, second[touching] - 1, self._n_pieces)
        piece, *moments = np.concatenate(self._sums).T
        area, rows, columns = (_total(group[piece - 1], moment, n_groups) for moment in moments)
        return area, np.column_stack([rows, columns]) / area[:, None]


def label_centroids(labels: xr.DataArray, tile_size: int = TILE_SIZE, name: str = "The mask") -> LabelledObjects:
    """Compute areas and centroids of the objects of a label image, tile by tile.

    Parameters
    ----------
    labels
        Integers, (y, x), lazy; zero is background.
    name
        Name in error messages.

    Raises
    ------
    ValueError
        If a value is negative or not an integer, or if few labels are in many pieces: a mask of foreground or types.
    """
    sums = [
        _sums(_whole(load(labels.isel(y=rows, x=columns)), name), (rows.start, columns.start))
        for rows, columns in grid(labels, tile_size)
    ]
    label, *moments = np.concatenate(sums).T
    names, group = np.unique(label, return_inverse=True)
    if 0 < len(names) <= _FEW_LABELS:
        _check_pieces(labels, names, tile_size, name)
    area, rows, columns = (_total(group, moment, len(names)) for moment in moments)
    return LabelledObjects(names, area, np.column_stack([columns, rows]) / area[:, None] + 0.5)


def _whole(values: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # values that are not integers differ afterwards
        whole = values.astype(np.int64)
    if (whole < 0).any() or (whole != values).any():
        msg = f"{name} has values that are negative or not integers. Labels of cells are 1, 2, 3 and so on."
        raise ValueError(msg)
    return whole


def _check_pieces(labels: xr.DataArray, names: np.ndarray, tile_size: int, name: str) -> None:
    pieces = Pieces(labels.sizes["x"])
    for rows, columns in grid(labels, tile_size):
        pieces.add(load(labels.isel(y=rows, x=columns)) != 0, (rows.start, columns.start))
    n_pieces = len(pieces.join()[0])
    if n_pieces >= 2 * len(names):
        msg = f"{name} has {len(names)} value(s) in {n_pieces} pieces. Number the cells: skimage.measure.label(mask)."
        raise ValueError(msg)


def _sums(labels: np.ndarray, origin: tuple[int, int]) -> np.ndarray:
    """Label, area, and sums of the rows and the columns of each object, int64 (objects, 4)."""
    names, pixels, first = group_pixels(labels)
    rows, columns = np.unravel_index(pixels, labels.shape)
    moments = (np.ones_like(rows), rows + origin[0], columns + origin[1])
    return np.column_stack([names, *(np.add.reduceat(moment, first) for moment in moments)])


def group_pixels(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort the pixels of objects by their label.

    Returns
    -------
    Labels, ascending, int64 (objects,); positions of the pixels in the flat array, int (pixels,); and where the pixels
    of each object begin among these, int (objects,).
    """
    pixels = np.flatnonzero(labels)
    of_pixels = labels.ravel()[pixels].astype(np.int64)
    order = np.argsort(of_pixels, kind="stable")
    names, first = np.unique(of_pixels[order], return_index=True)
    return names, pixels[order], first


def _total(group: np.ndarray, values: np.ndarray, n_groups: int) -> np.ndarray:
    """Sum integers by group, exactly: floats would depend on the order of the tiles."""
    total = np.zeros(n_groups, np.int64)
    np.add.at(total, group, values)
    return total


def connected_groups(first: np.ndarray, second: np.ndarray, n: int) -> tuple[int, np.ndarray]:
    """Count and number the connected groups of `n` items, given pairs of linked items."""
    if n == 0:
        return 0, np.empty(0, np.int64)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(n, n))
    return connected_components(graph, directed=False)


def grid(pixels: xr.DataArray, size: int) -> list[tuple[slice, slice]]:
    """Divide an image into tiles, from left to right and from top to bottom: the rows and columns of each."""
    height, width = pixels.sizes["y"], pixels.sizes["x"]
    return [
        (slice(top, min(top + size, height)), slice(left, min(left + size, width)))
        for top in range(0, height, size)
        for left in range(0, width, size)
    ]
