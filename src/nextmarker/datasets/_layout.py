"""Positions and types of synthetic cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from nextmarker.datasets._truth import apportion

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(Protocol):
    """The attributes of a cell type that determine its position."""

    @property
    def share(self) -> float:
        """Share of all cells."""

    @property
    def habitat(self) -> int:
        """Number of the landscape in which it occurs."""

    @property
    def cohesion(self) -> float:
        """How strongly it is bound to its habitat; 0 is random."""


def smooth_noise(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Random landscape of hills about `scale` pixels wide, with mean 0 and standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), scale, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def spread(tissue: np.ndarray, n_points: int, rng: np.random.Generator) -> np.ndarray:
    """Spread points evenly but irregularly over a mask (Lloyd's iteration); (x, y), float (points, 2)."""
    pixels = np.argwhere(tissue)[:, ::-1] + 0.5
    points = pixels[rng.choice(len(pixels), n_points, replace=False)]
    for _ in range(10):
        _, nearest = cKDTree(points).query(pixels)
        sizes = np.bincount(nearest, minlength=n_points)
        points = np.column_stack([np.bincount(nearest, axis, n_points) / sizes for axis in pixels.T])
    return points


def choose_types(kinds: Sequence[Kind], habitats: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Assign types one after the other to the free cells that fit best; int (cells,)."""
    n_cells = habitats.shape[1]
    chosen = np.full(n_cells, -1)
    sizes = apportion([kind.share for kind in kinds], n_cells)
    for number, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        suits = kind.cohesion * habitats[kind.habitat] + rng.normal(size=n_cells)
        suits[chosen >= 0] = -np.inf
        chosen[np.argsort(-suits)[:size]] = number
    return chosen
