"""Nearest neighbours of cells, exact for few and approximate for many."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from nextmarker.tl._kernels import keep_nearest, measure

if TYPE_CHECKING:
    from collections.abc import Callable

# The time of an exact search is quadratic: under a minute for this many cells with 256 features on two cores.
EXACT_UP_TO = 50_000
PART = 250  # cells of a part, on average
LARGEST = 1_000  # a larger part is divided at random
SEARCHED = 32  # parts that are searched for the neighbours of a cell
LEARNED_FROM = 64  # cells for each part
ROUNDS = 8  # of k-means
ROWS_AT_ONCE = 32_768


def nearest_neighbors(embedding: np.ndarray, n_neighbors: int, random_state: int) -> sparse.csr_matrix:
    """Compute the distances to the nearest neighbours, `n_neighbors` per row, excluding the cell itself."""
    if len(embedding) <= EXACT_UP_TO:
        graph = NearestNeighbors(n_neighbors=n_neighbors).fit(embedding).kneighbors_graph(mode="distance")
        return sparse.csr_matrix(graph)
    indices, distances = Parts(embedding, random_state).nearest(embedding, n_neighbors + 1)
    is_other = indices != np.arange(len(indices))[:, None]
    is_other[is_other.all(axis=1), -1] = False  # if the cell itself was not found, among duplicates
    ends = np.arange(len(indices) + 1) * n_neighbors
    return sparse.csr_matrix((distances[is_other], indices[is_other], ends), shape=(len(indices), len(indices)))


class Parts:
    """Cells divided by k-means into parts, of which only the closest are searched for the neighbours of a cell.

    Up to 8,000 cells all parts are searched, so neighbours are exact. Results do not depend on the number of threads.

    Parameters
    ----------
    cells
        Float (cells, features).
    random_state
        Seed of k-means.
    """

    def __init__(self, cells: np.ndarray, random_state: int) -> None:
        self._cells = np.ascontiguousarray(cells, dtype=np.float32)
        self._centres = _learn_centres(self._cells, random_state)
        (closest,) = _by_blocks(lambda block: [self._closest(block, 1)[:, 0]], self._cells)
        parts = _rows_of(closest, len(self._centres))
        pieces = np.array([-(-len(part) // LARGEST) for part in parts])
        self._members = [piece for part, n in zip(parts, pieces, strict=True) if n for piece in np.array_split(part, n)]
        self._centres = self._centres.repeat(pieces, axis=0)

    def nearest(self, queries: np.ndarray, n_nearest: int) -> list[np.ndarray]:
        """Find the nearest cells of each query, float (queries, features).

        Returns
        -------
        Their rows, int32, and their distances, float32, (queries, n_nearest), from the nearest.
        """
        return _by_blocks(lambda block: self._search(block, n_nearest), queries)

    def _search(self, queries: np.ndarray, n_nearest: int) -> list[np.ndarray]:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        rows = np.full((len(queries), n_nearest), -1, np.int32)
        distances = np.full((len(queries), n_nearest), np.inf, np.float32)
        searched = self._closest(queries, min(SEARCHED, len(self._centres)))
        asking = _rows_of(searched.ravel(), len(self._centres))
        for members, centre, entries in zip(self._members, self._centres, asking, strict=True):
            own = entries // searched.shape[1]
            squares = _squares(queries[own] - centre, self._cells[members] - centre)
            keep_nearest(squares, own, members, rows, distances)
        few = rows[:, -1] < 0  # cells in the parts that were searched
        if few.any():
            rows[few] = NearestNeighbors(n_neighbors=n_nearest).fit(self._cells).kneighbors(queries[few])[1]
        measure(queries, self._cells, rows, distances)
        order = distances.argsort(axis=1, kind="stable")
        return [np.take_along_axis(each, order, 1) for each in (rows, distances)]

    def _closest(self, queries: np.ndarray, count: int) -> np.ndarray:
        """Find the parts whose centres are closest to each query, (queries, count), in any order."""
        middle = self._centres.mean(axis=0)
        squares = _squares(np.asarray(queries, np.float32) - middle, self._centres - middle)
        return squares.argpartition(count - 1, axis=1)[:, :count]


def _learn_centres(cells: np.ndarray, random_state: int) -> np.ndarray:
    """Find the centres of parts by k-means in a sample of the cells, float32 (parts, features)."""
    n_parts = -(-len(cells) // PART)
    chosen = np.random.default_rng(random_state).permutation(len(cells))[: LEARNED_FROM * n_parts]
    means = KMeans(n_parts, init="random", n_init=1, max_iter=ROUNDS, random_state=random_state)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct cells than parts
        return means.fit(cells[np.sort(chosen)]).cluster_centers_


def _squares(queries: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Squared distances, (queries, cells)."""
    squares = queries @ cells.T
    squares *= -2
    squares += (cells**2).sum(axis=1)
    squares += (queries**2).sum(axis=1)[:, None]
    return squares


def _rows_of(parts: np.ndarray, n_parts: int) -> list[np.ndarray]:
    """Rows of each part."""
    order = parts.argsort(kind="stable")
    return np.split(order, np.searchsorted(parts[order], np.arange(1, n_parts)))


def _by_blocks(function: Callable[[np.ndarray], list[np.ndarray]], cells: np.ndarray) -> list[np.ndarray]:
    """Call a function for blocks of cells in several threads, and join each of its results."""
    blocks = (cells[start : start + ROWS_AT_ONCE] for start in range(0, len(cells), ROWS_AT_ONCE))
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return [np.concatenate(parts) for parts in zip(*pool.map(function, blocks), strict=True)]
