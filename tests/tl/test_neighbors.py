"""Neighbours of cells, and the neighbours that they share."""

import sys
from types import SimpleNamespace

import numpy as np
from sklearn.neighbors import NearestNeighbors

from nextmarker.tl import _neighbors
from nextmarker.tl._neighbors import count_shared, nearest_in_sample


class Exact:
    """An exact search in the form of pynndescent."""

    def __init__(self, cells, random_state):
        self.cells = cells

    def query(self, cells, k):
        distances, rows = NearestNeighbors(n_neighbors=k).fit(self.cells).kneighbors(cells)
        return rows, distances


def test_many_cells_are_searched_by_pynndescent_in_the_sample(monkeypatch):
    rng = np.random.default_rng(0)
    sample, cells = rng.normal(size=(50, 4)), rng.normal(size=(200, 4))
    exact = nearest_in_sample(sample, cells, 5, 0)
    assert exact.shape == (200, 5)
    assert (np.linalg.norm(cells[:, None] - sample, axis=2).argmin(axis=1) == exact[:, 0]).all()
    monkeypatch.setattr(_neighbors, "EXACT_UP_TO", 10)
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=Exact))
    np.testing.assert_array_equal(nearest_in_sample(sample, cells, 5, 0), exact)


def test_shared_neighbours_counted_by_hand():
    neighbors = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 4], [0, 1, 3]], dtype=np.int32)
    shared = np.empty_like(neighbors)
    count_shared(neighbors, shared)
    assert shared.tolist() == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [1, 1, 2], [2, 2, 2]]
