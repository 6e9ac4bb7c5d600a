"""Nearest neighbours of cells: exact for small tables, approximate for large ones."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from nextmarker.nn.cpu import compiled

# The time of an exact search is quadratic: under a minute for this many cells with 256 features on two cores.
EXACT_UP_TO = 50_000


def nearest_neighbors(embedding: np.ndarray, n_neighbors: int, random_state: int) -> sparse.csr_matrix:
    """Distances from each cell to its nearest others, (cells, cells), with `n_neighbors` entries a row."""
    if len(embedding) <= EXACT_UP_TO:
        graph = NearestNeighbors(n_neighbors=n_neighbors).fit(embedding).kneighbors_graph(mode="distance")
        return sparse.csr_matrix(graph)
    from pynndescent import NNDescent

    indices, distances = NNDescent(embedding, n_neighbors=n_neighbors + 1, random_state=random_state).neighbor_graph
    is_other = indices != np.arange(len(indices))[:, None]
    is_other[is_other.all(axis=1), -1] = False  # if the cell itself was not found, among duplicates
    ends = np.arange(len(indices) + 1) * n_neighbors
    return sparse.csr_matrix((distances[is_other], indices[is_other], ends), shape=(len(indices), len(indices)))


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
