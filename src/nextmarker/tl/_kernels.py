"""Counts the neighbours that cells share, compiled."""

from __future__ import annotations

from nextmarker.nn.cpu import compiled


@compiled
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
