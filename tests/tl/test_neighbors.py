"""Neighbours found in parts, against an exact search."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from nextmarker.tl import _neighbors
from nextmarker.tl._kernels import count_shared
from nextmarker.tl._neighbors import Parts, nearest_neighbors


@pytest.fixture
def cells():
    """Six groups of 500 cells, each in three dimensions of its own."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(500, 3)) @ rng.normal(size=(3, 40)) + place for place in range(6)])


def exact(cells, queries, n):
    return NearestNeighbors(n_neighbors=n).fit(cells).kneighbors(queries)


def test_all_parts_searched_is_an_exact_search(cells):
    rows, distances = Parts(cells, 0).nearest(cells[::7], 12)
    expected, expected_rows = exact(cells, cells[::7], 12)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert (rows.dtype, distances.dtype) == (np.int32, np.float32)


def test_the_closest_parts_have_almost_all_neighbours(cells, monkeypatch):
    monkeypatch.setattr(_neighbors, "PART", 25)
    rows, distances = Parts(cells, 0).nearest(cells, 12)
    expected, expected_rows = exact(cells, cells, 12)
    found = np.mean([np.isin(wanted, own).mean() for wanted, own in zip(expected_rows, rows, strict=True)])
    assert 0.99 < found <= 1
    assert (distances >= expected - 1e-5).all()
    assert (np.diff(distances, axis=1) >= 0).all()


def test_the_number_of_threads_does_not_show(cells, monkeypatch):
    monkeypatch.setattr(_neighbors, "PART", 25)
    monkeypatch.setattr(_neighbors, "ROWS_AT_ONCE", 700)
    found = []
    threads = torch.get_num_threads()
    for number in (1, 3):
        torch.set_num_threads(number)
        found.append(nearest_neighbors_in_parts(cells, monkeypatch))
    torch.set_num_threads(threads)
    for name in ("indices", "data", "indptr"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def nearest_neighbors_in_parts(cells, monkeypatch):
    monkeypatch.setattr(_neighbors, "EXACT_UP_TO", 100)
    return nearest_neighbors(cells, 10, 5)


def test_cells_far_from_zero(cells):
    far = (cells + 1000).astype(np.float32)
    rows, distances = Parts(far, 0).nearest(far[::9], 5)
    expected, _ = exact(far.astype(float), far[::9].astype(float), 5)
    np.testing.assert_allclose(distances, expected, atol=1e-3)
    np.testing.assert_array_equal(rows[:, 0], np.arange(len(far))[::9])


def test_many_equal_cells(cells, monkeypatch):
    """They are their own neighbours, and no cell is its own."""
    equal = np.concatenate([cells[:600], np.ones((2500, 40))])
    graph = nearest_neighbors_in_parts(equal, monkeypatch)
    assert (np.diff(graph.indptr) == 10).all()
    rows = np.repeat(np.arange(len(equal)), 10)
    assert (graph.indices != rows).all()
    assert (graph.data[rows >= 600] == 0).all()
    assert (graph.indices[rows >= 600] >= 600).all()
    assert max(map(len, Parts(equal, 0)._members)) <= _neighbors.LARGEST


def test_parts_with_too_few_cells(cells, monkeypatch):
    monkeypatch.setattr(_neighbors, "SEARCHED", 1)
    lonely = np.concatenate([cells, np.full((2, 40), 500.0)])
    rows, distances = Parts(lonely, 0).nearest(lonely[-2:], 4)
    np.testing.assert_allclose(distances, exact(lonely, lonely[-2:], 4)[0], rtol=1e-5)
    assert set(rows[:, :2].ravel()) == {3000, 3001}


def test_shared_neighbours_counted_by_hand():
    neighbors = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 4], [0, 1, 3]], dtype=np.int32)
    shared = np.empty_like(neighbors)
    count_shared(neighbors, shared)
    assert shared.tolist() == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [1, 1, 2], [2, 2, 2]]
