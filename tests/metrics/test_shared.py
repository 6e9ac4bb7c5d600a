"""What the metrics share."""

import numpy as np
import pandas as pd

from nextmarker.metrics import _shared
from nextmarker.metrics._shared import sample


def test_a_sample_keeps_proportions_and_rare_labels(monkeypatch):
    labels = pd.Categorical(np.random.default_rng(0).permutation(["a"] * 700 + ["b"] * 297 + ["c"] * 3))
    assert sample(labels, 0).tolist() == list(range(1000))
    monkeypatch.setattr(_shared, "SAMPLE", 100)
    chosen = sample(labels, 0)
    assert labels[chosen].value_counts().to_dict() == {"a": 70, "b": 29, "c": 2}
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(sample(labels, 0), chosen)
    assert set(sample(labels, 1)) != set(chosen)
