"""Neighbours that cells share."""

import numpy as np

from nextmarker.tl._neighbors import count_shared


def test_shared_neighbours_counted_by_hand():
    neighbors = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 4], [0, 1, 3]], dtype=np.int32)
    shared = np.empty_like(neighbors)
    count_shared(neighbors, shared)
    assert shared.tolist() == [[2, 2, 1], [2, 2, 1], [2, 2, 2], [1, 1, 2], [2, 2, 2]]
