"""Loops over cells and their neighbours, compiled by numba and kept for other processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

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
def keep_nearest(squares, queries, members, nearest, distances):  # type: ignore[no-untyped-def]
    """Enter cells among the nearest of each query, which are sorted by distance.

    Parameters
    ----------
    squares
        Squared distances, (queries, members).
    queries
        Rows of `nearest` and `distances`.
    members
        Numbers of the cells.
    nearest, distances
        Numbers and squared distances of the nearest cells so far, (all queries, neighbours).
    """
    last = nearest.shape[1] - 1
    for query in range(len(queries)):
        row = queries[query]
        for member in range(len(members)):
            square = squares[query, member]
            if square < distances[row, last]:
                at = last
                while at > 0 and distances[row, at - 1] > square:
                    distances[row, at] = distances[row, at - 1]
                    nearest[row, at] = nearest[row, at - 1]
                    at -= 1
                distances[row, at] = square
                nearest[row, at] = members[member]


@_compile
def measure(queries, cells, nearest, distances):  # type: ignore[no-untyped-def]
    """Fill in the distance from each query to its nearest cells."""
    for row in range(len(queries)):
        for at in range(nearest.shape[1]):
            total = np.float32(0)
            for feature in range(queries.shape[1]):
                difference = queries[row, feature] - cells[nearest[row, at], feature]
                total += difference * difference
            distances[row, at] = np.sqrt(total)


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
