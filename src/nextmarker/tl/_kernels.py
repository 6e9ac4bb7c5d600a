"""Counts the neighbours that cells share, compiled by numba and kept for other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def _compile(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, and keep the result where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written to
        return numba.njit(function, **options)


@_compile
def count_shared(neighbors, shared):  # type: ignore[no-untyped-def]
    """Fill in how many neighbours a cell shares with each of its own; both (cells, neighbours), with sorted rows."""
    n_neighbors = neighbors.shape[1]
    for cell in range(len(neighbors)):
        for at in range(n_neighbors):
            other = neighbors[cell, at]
            mine = theirs = count = 0
            while mine < n_neighbors and theirs < n_neighbors:
                difference = neighbors[cell, mine] - neighbors[other, theirs]
                count += difference == 0
                mine += difference <= 0
                theirs += difference >= 0
            shared[cell, at] = count
