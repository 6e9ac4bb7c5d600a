"""Pairs of cell centres and segmented objects in one image: in its mask first, else the nearest, one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.spatial import KDTree

from nextmarker._coordinates import apply
from nextmarker.pp._labels import label_centroids

if TYPE_CHECKING:
    from nextmarker._objects import Objects

NONE = -1
"""Position of an object where a centre has none."""


@dataclass(frozen=True)
class Located:
    """Objects of a table that are in the labels of an image, in ascending order of their labels."""

    objects: Objects
    """The label image."""
    instances: np.ndarray
    """Labels, int64 (objects,)."""
    rows: np.ndarray
    """Positions of the objects in the table, int (objects,)."""
    centres: np.ndarray
    """Centroids (x, y) in pixels of the image, float64 (objects, 2)."""
    diameters: np.ndarray
    """Diameters of circles of the same area, in pixels of the image, float64 (objects,)."""

    @property
    def n_lost(self) -> int:
        """Number of objects of the table that are not in the labels."""
        return len(self.objects.rows) - len(self.rows)


def locate(objects: Objects) -> Located:
    """Compute where the objects lie, and how large they are."""
    there = label_centroids(objects.labels, name=f"The label image {objects.name!r}")
    instances, of_labels, of_table = np.intersect1d(there.names, objects.instances, return_indices=True)
    pixel_area = abs(np.linalg.det(objects.matrix[:2, :2]))
    return Located(
        objects,
        instances,
        objects.rows[of_table],
        apply(objects.matrix, there.centres[of_labels]),
        2 * np.sqrt(there.area[of_labels] * pixel_area / np.pi),
    )


def pair(centres: np.ndarray, located: Located, max_distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair centres with objects.

    Parameters
    ----------
    centres
        Centres (x, y) in pixels of the image, float64 (cells, 2).
    max_distance
        Largest distance in pixels between a centre outside of all masks and a centroid.

    Returns
    -------
    Position of the object of each centre, `NONE` where there is none, int (cells,), and the distance between the centre
    and the centroid in pixels, NaN where there is none, float64 (cells,).
    """
    if not len(centres) or not len(located.rows):
        return np.full(len(centres), NONE), np.full(len(centres), np.nan)
    labels = _labels_at(centres, located.objects)
    inside = labels > 0
    distance, nearest = KDTree(located.centres).query(centres)
    chosen = np.where(inside, _find(labels, located.instances), np.where(distance <= max_distance, nearest, NONE))
    distance = np.linalg.norm(centres - located.centres[chosen], axis=1)
    kept = _one_to_one(chosen, distance, inside)
    return np.where(kept, chosen, NONE), np.where(kept, distance, np.nan)


def _labels_at(centres: np.ndarray, objects: Objects) -> np.ndarray:
    """Label under each centre, zero outside of the label image, int64 (cells,)."""
    pixel = np.floor(apply(np.linalg.inv(objects.matrix), centres)).astype(int)
    there = ((pixel >= 0) & (pixel < (objects.labels.sizes["x"], objects.labels.sizes["y"]))).all(axis=1)
    x, y = (xr.DataArray(position, dims="cell") for position in pixel[there].T)
    labels = np.zeros(len(centres), np.int64)
    labels[there] = objects.labels.isel(x=x, y=y).to_numpy()
    return labels


def _find(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Position of each label among the ascending `instances`, `NONE` where it is not there."""
    position = np.searchsorted(instances, labels).clip(0, len(instances) - 1)
    return np.where(instances[position] == labels, position, NONE)


def _one_to_one(chosen: np.ndarray, distance: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Of the centres that chose the same object, keep one inside, or else the nearest; bool (cells,)."""
    order = np.lexsort((distance, ~inside))
    order = order[chosen[order] != NONE]
    _, first = np.unique(chosen[order], return_index=True)
    kept = np.zeros(len(chosen), bool)
    kept[order[first]] = True
    return kept
