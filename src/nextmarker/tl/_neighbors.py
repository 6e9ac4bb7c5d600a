"""Nearest neighbours of cells, exact for few and approximate for many."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

# The time of an exact search is quadratic: under a minute for this many cells with 256 features on two cores.
EXACT_UP_TO = 50_000


def nearest_neighbors(embedding: np.ndarray, n_neighbors: int, random_state: int) -> sparse.csr_matrix:
    """Compute the distances to the nearest neighbours, `n_neighbors` per row, excluding the cell itself."""
    if len(embedding) <= EXACT_UP_TO:
        graph = NearestNeighbors(n_neighbors=n_neighbors).fit(embedding).kneighbors_graph(mode="distance")
        return sparse.csr_matrix(graph)
    from pynndescent import NNDescent

    indices, distances = NNDescent(embedding, n_neighbors=n_neighbors + 1, random_state=random_state).neighbor_graph
    is_other = indices != np.arange(len(indices))[:, None]
    is_other[is_other.all(axis=1), -1] = False  # if the cell itself was not found, among duplicates
    ends = np.arange(len(indices) + 1) * n_neighbors
    return sparse.csr_matrix((distances[is_other], indices[is_other], ends), shape=(len(indices), len(indices)))
