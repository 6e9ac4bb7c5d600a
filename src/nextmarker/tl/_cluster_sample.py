"""A sample of the cells to cluster, and a vote of its cells on the clusters of all others."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from nextmarker import _keys

VOTES = 5  # cells of the sample that decide on the cluster of another cell
VOTERS = 20_000  # cells of the sample among which these are found; with more, millions of cells take hours
FEWEST_VOTERS = 100  # of a cluster, if it has so many


def draw_sample(obs: pd.DataFrame, n_sample: int | None, random_state: int) -> np.ndarray | None:
    """Draw rows at random, the same share of each image; None if all cells are clustered."""
    if n_sample is None or n_sample >= len(obs):
        return None
    order = np.random.default_rng(random_state).permutation(len(obs))
    images = obs[_keys.IMAGE].astype("category").cat.codes if _keys.IMAGE in obs else np.zeros(len(obs), int)
    in_image = pd.Series(order).groupby(np.asarray(images)[order])
    position = (in_image.cumcount() + 0.5) / in_image.transform("size")  # in its image, from 0 to 1
    return np.sort(order[position.argsort(kind="stable")[:n_sample]])


def spread(membership: np.ndarray, sample: np.ndarray, embedding: np.ndarray, random_state: int) -> np.ndarray:
    """Give each cell the cluster that most of its nearest cells in the sample have.

    Only some of a large sample vote. Rare clusters have more than their share of these voters, so the cells that they
    win are voted on again by the whole sample.
    """
    voters, rare = _draw_voters(membership, random_state)
    found = _vote(embedding[sample[voters]], membership[voters], embedding)
    again = np.flatnonzero(np.isin(found, rare))
    if again.size:
        found[again] = _vote(embedding[sample], membership, embedding[again])
    found[sample] = membership
    return found


def _vote(voters: np.ndarray, membership: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Find the cluster of most of the nearest voters of each cell; of several, that of the nearest.

    The search is exact: an approximate one starts among cells of another cluster too often, and does not leave it.
    """
    search = NearestNeighbors(n_neighbors=min(VOTES, len(voters))).fit(voters)
    votes = membership[search.kneighbors(cells, return_distance=False)]
    agreeing = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    return np.take_along_axis(votes, agreeing.argmax(axis=1)[:, None], 1)[:, 0]


def _draw_voters(membership: np.ndarray, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw about `VOTERS` rows of a sample at random, the same share of each cluster, but enough of each for a vote.

    Returns
    -------
    The rows, and the rare clusters of which more than their share was drawn.
    """
    order = pd.Series(np.random.default_rng(random_state).permutation(len(membership)))
    in_cluster = order.groupby(membership[order])
    size = in_cluster.transform("size")
    share = size * VOTERS / len(membership)
    drawn = order[in_cluster.cumcount() < share.clip(lower=FEWEST_VOTERS)]
    return np.sort(drawn.to_numpy()), np.unique(membership[order[share < size.clip(upper=FEWEST_VOTERS)]])
