"""A classifier of cell types that says how sure it is, and which cells are unlike all that it has learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nextmarker.tl._neighbors import nearest_neighbors

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

N_NEIGHBORS = 10  # which must all have the type of a cell from which it is learned, as in the paper
LEAST = 10  # such cells that a type needs to be learned
MOST = 20_000  # such cells that are used, so that time increases in proportion to the number of cells
SMALL = 200  # types with fewer of them are used whole
FOLDS = 5
NEAREST = 5  # cells to which the distance of a new cell is averaged


class Prediction(NamedTuple):
    """The most probable type of each cell, its probability, and the distance to the nearest cells of this type."""

    codes: np.ndarray
    probability: np.ndarray
    distance: np.ndarray


@dataclass(frozen=True)
class Learned:
    """What was learned from some cells: how to tell types apart, and where the cells of each type are."""

    kinds: np.ndarray
    pipeline: Pipeline
    places: dict[int, NearestNeighbors]

    def scores(self, cells: np.ndarray) -> np.ndarray:
        """Logarithms of the probabilities of the types, up to a constant, float (cells, kinds)."""
        scores = self.pipeline.decision_function(cells)
        return scores if scores.ndim == 2 else np.column_stack([np.zeros_like(scores), scores])

    def distances(self, cells: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Mean distance of each cell to the nearest cells of its predicted type."""
        distances = np.empty(len(cells))
        for code, place in self.places.items():
            own = codes == code
            if own.any():
                distances[own] = place.kneighbors(cells[own])[0].mean(axis=1)
        return distances


@dataclass(frozen=True)
class Classifier:
    """A classifier with calibrated probabilities, and for each type the distance beyond which nothing is known.

    `outside` is the share of the reference cells that would lie beyond it.
    """

    learned: Learned
    temperature: float
    limits: np.ndarray
    outside: float

    def predict(self, cells: np.ndarray) -> Prediction:
        """Classify cells, float (cells, features); distances are relative to the limit of the type."""
        scores = self.learned.scores(cells)
        at = scores.argmax(axis=1)
        codes = self.learned.kinds[at]
        distance, limit = self.learned.distances(cells, codes), self.limits[at]
        relative = np.divide(distance, limit, out=np.where(distance > 0, np.inf, 0.0), where=limit > 0)
        return Prediction(codes, softmax(scores / self.temperature, axis=1).max(axis=1), relative)


def choose_training_cells(embedding: np.ndarray, codes: np.ndarray, random_state: int) -> np.ndarray:
    """Choose the cells whose type is that of all their nearest neighbours, bool (cells,); a sample of very many."""
    neighbors = nearest_neighbors(embedding, N_NEIGHBORS, random_state).indices.reshape(-1, N_NEIGHBORS)
    chosen = np.flatnonzero((codes[neighbors] == codes[:, None]).all(axis=1))
    chosen = np.random.default_rng(random_state).permutation(chosen)
    sizes = np.bincount(codes[chosen])
    quota = np.maximum(sizes * MOST // max(len(chosen), MOST), np.minimum(sizes, SMALL))
    kept = chosen[pd.Series(chosen).groupby(codes[chosen]).cumcount() < quota[codes[chosen]]]
    return np.isin(np.arange(len(codes)), kept)


def train_classifier(
    embedding: np.ndarray, codes: np.ndarray, training: np.ndarray, folds: np.ndarray, quantile: float
) -> Classifier:
    """Train a classifier on some of the cells, and measure on all how sure it may be.

    The cells of each fold are classified by what was learned from the other folds. From these come the temperature,
    which makes probabilities agree with the share of right types, and the limits of distance.

    Parameters
    ----------
    codes
        Types of the cells, all of which occur among the training cells.
    training
        Which cells are used for training, bool (cells,).
    folds
        Fold of each cell, from `divide`.
    quantile
        Share of the training cells of a type that lie within its limit.
    """
    kinds = np.unique(codes)
    scores, distance = np.empty((len(codes), len(kinds))), np.empty(len(codes))
    for fold in np.unique(folds):
        inside = folds == fold
        learned = _learn(embedding[training & ~inside], codes[training & ~inside])
        scores[inside] = learned.scores(embedding[inside])
        distance[inside] = learned.distances(embedding[inside], kinds[scores[inside].argmax(axis=1)])
    limits = np.array([np.quantile(distance[training & (codes == code)], quantile) for code in kinds])
    outside = float((distance > limits[scores.argmax(axis=1)]).mean())
    temperature = _temperature(scores, np.searchsorted(kinds, codes))
    return Classifier(_learn(embedding[training], codes[training]), temperature, limits, outside)


def divide(codes: np.ndarray, training: np.ndarray, images: np.ndarray | None, random_state: int) -> np.ndarray:
    """Divide cells into folds: by image where there are several, at random otherwise.

    A type of which only one image has enough training cells is divided at random, since it could not be learned from
    the others.
    """
    order = np.random.default_rng(random_state).permutation(len(codes))
    rank = np.empty(len(codes), dtype=int)  # of each cell in its type, in random order
    rank[order] = pd.Series(order).groupby([codes[order], training[order]]).cumcount()
    n_images = 1 if images is None else len(np.unique(images))
    if n_images < 2:
        return rank % FOLDS
    n_folds = min(FOLDS, n_images)
    folds = np.empty(len(codes), dtype=int)
    for fold, (_, inside) in enumerate(GroupKFold(n_folds).split(codes, groups=images)):
        folds[inside] = fold
    for code in np.unique(codes):
        own = codes == code
        examples = np.bincount(folds[training & own], minlength=n_folds)
        if examples.sum() - examples.max() < NEAREST:
            folds[own] = rank[own] % n_folds
    return folds


def _learn(cells: np.ndarray, codes: np.ndarray) -> Learned:
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(cells, codes)
    kinds = np.unique(codes)
    places = {code: NearestNeighbors(n_neighbors=NEAREST).fit(cells[codes == code]) for code in kinds.tolist()}
    return Learned(kinds, pipeline, places)


def _temperature(scores: np.ndarray, truth: np.ndarray) -> float:
    """By what scores have to be divided for their probabilities to be right, found by maximum likelihood.

    A small share of every cell counts as any type: otherwise no probability would be high enough where all cells are
    classified rightly.
    """
    n_cells, n_kinds = scores.shape
    rest = 1 / (n_cells + 2)
    targets = np.full_like(scores, rest / n_kinds)
    targets[np.arange(n_cells), truth] += 1 - rest

    def loss(logarithm: float) -> float:
        return -float((targets * log_softmax(scores / np.exp(logarithm), axis=1)).sum(axis=1).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))
