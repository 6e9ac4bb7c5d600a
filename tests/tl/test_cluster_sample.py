"""Samples of images, and the vote of a sample on all cells."""

import numpy as np
import pandas as pd

from nextmarker.tl import _cluster_sample
from nextmarker.tl._cluster_sample import _draw_voters, _vote, draw_sample, spread


def test_each_image_has_its_share_of_the_sample():
    obs = pd.DataFrame({"image": np.repeat(["large", "medium", "small"], [200, 90, 10])})
    for n, expected in [(30, [20, 9, 1]), (150, [100, 45, 5])]:
        sample = draw_sample(obs, n, 0)
        assert obs["image"].iloc[sample].value_counts()[["large", "medium", "small"]].tolist() == expected
    assert draw_sample(obs, 30, 0).tolist() == draw_sample(obs, 30, 0).tolist() != draw_sample(obs, 30, 1).tolist()
    unknown = obs.assign(image=obs["image"].where(obs["image"] != "medium"))
    assert draw_sample(unknown, 30, 0).tolist() == draw_sample(obs, 30, 0).tolist()
    assert len(draw_sample(obs[[]], 30, 0)) == 30


def test_most_neighbours_in_the_sample_decide_and_the_nearest_of_equals():
    sample = np.arange(6)
    embedding = np.array([0.0, 1, 2, 3, 4, 100, 0.1, 2.1])[:, None]
    assert spread(np.array([7, 7, 8, 8, 9, 9]), sample, embedding, 0).tolist() == [7, 7, 8, 8, 9, 9, 7, 8]
    assert spread(np.array([7, 8, 8, 8, 9, 9]), sample, embedding, 0)[6] == 8


def test_a_large_sample_votes_by_a_part_of_each_cluster(monkeypatch):
    membership = np.repeat([4, 1, 0], [3000, 900, 30])
    monkeypatch.setattr(_cluster_sample, "VOTERS", 786)
    monkeypatch.setattr(_cluster_sample, "FEWEST_VOTERS", 20)
    voters, rare = _draw_voters(membership, 0)
    assert rare.tolist() == [0]
    assert np.bincount(membership[voters]).tolist() == [20, 180, 0, 0, 600]
    assert (np.diff(voters) > 0).all()
    assert not np.array_equal(voters, _draw_voters(membership, 1)[0])
    truth = np.random.default_rng(0).permutation(np.repeat(membership, 2))
    embedding = np.eye(5)[truth] + np.random.default_rng(1).normal(scale=0.1, size=(len(truth), 5))
    sample = np.concatenate([np.flatnonzero(truth == code)[: (membership == code).sum()] for code in (4, 1, 0)])
    np.testing.assert_array_equal(spread(membership, sample, embedding, 0), truth)


def test_a_rare_cluster_in_a_continuum_does_not_grow(monkeypatch):
    embedding = np.random.default_rng(0).normal(size=(6000, 3))
    sample = np.arange(4000)
    membership = (np.linalg.norm(embedding[sample], axis=1).argsort().argsort() < 40).astype(int)  # the innermost
    exact = _vote(embedding[sample], membership, embedding)
    monkeypatch.setattr(_cluster_sample, "VOTERS", 200)
    monkeypatch.setattr(_cluster_sample, "FEWEST_VOTERS", 30)
    found = spread(membership, sample, embedding, 0)
    rest = np.arange(4000, 6000)
    assert 10 < (exact[rest] == 1).sum() < 60
    assert (exact[rest] != found[rest]).sum() <= 2
    voters, _ = _draw_voters(membership, 0)
    once = _vote(embedding[sample[voters]], membership[voters], embedding[rest])
    assert (once == 1).sum() > 3 * (exact[rest] == 1).sum()
