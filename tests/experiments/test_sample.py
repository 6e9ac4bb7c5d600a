"""Clusters of a sample, against clusters of all cells."""

import numpy as np

from experiments import sample


def test_a_sample_of_separate_types_has_the_clusters_of_all(monkeypatch):
    monkeypatch.setattr(sample, "SAMPLES", (600, 5000))
    cells = sample.mix(np.random.default_rng(0), 1500, 4, 1.0)
    scores = sample.agreement(cells)
    assert list(scores) == ["sample of 600", "another seed"]
    assert min(scores.values()) > 0.99


def test_resampled_cells_lie_between_neighbours():
    rng = np.random.default_rng(0)
    embedding = np.repeat([[0.0, 0.0], [50.0, 50.0]], 40, axis=0) + rng.normal(0, 0.1, (80, 2))
    cells = sample.resample(rng, embedding, 500)
    assert cells.shape == (500, 2)
    far = np.abs(cells - 25).min(axis=1)
    assert (far > 5).all()  # never between the two groups
