import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import nextmarker as nm


def make(first, second):
    obs = pd.DataFrame({"first": first, "second": second})
    return AnnData(obs=obs.set_axis([f"cell{i}" for i in range(len(obs))]))


def test_by_hand():
    """Cluster 0 holds T T B, cluster 1 holds B B T T NK: 2 + 2 of 8 carry the most frequent label of their cluster."""
    adata = make(["T", "T", "B", "B", "B", "T", "T", "NK"], [0, 0, 0, 1, 1, 1, 1, 1])
    row = nm.metrics.agreement(adata, "first", "second").iloc[0]
    assert row["matched_accuracy"] == pytest.approx(4 / 8)
    assert (row["n_labels"], row["n_groups"], row["n_cells"], row["n_left_out"]) == (3, 2, 8, 0)
    # the other way: T holds 0 0 1 1, B holds 0 1 1, NK holds 1
    assert nm.metrics.agreement(adata, "second", "first")["matched_accuracy"].item() == pytest.approx((2 + 2 + 1) / 8)
    # pairs together in both: T T in 0, B B and T T in 1; 13 pairs in clusters, 9 in types, 28 in all
    expected = 13 * 9 / 28
    assert row["ari"] == pytest.approx((3 - expected) / ((13 + 9) / 2 - expected))


def test_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, 7, 200))
    row = nm.metrics.agreement(make(first, second), "first", "second").iloc[0]
    assert row["ari"] == pytest.approx(adjusted_rand_score(first, second))
    assert row["nmi"] == pytest.approx(normalized_mutual_info_score(first, second))


def test_names_of_labels_do_not_matter():
    row = nm.metrics.agreement(make(["T", "B", "T"], pd.Categorical([7, 3, 7])), "first", "second").iloc[0]
    assert row[["ari", "nmi", "matched_accuracy"]].tolist() == pytest.approx([1, 1, 1])


def test_cells_without_a_label_are_left_out_and_counted():
    adata = make(["T", "B", np.nan, "T", "", "B"], ["0", "1", "1", None, "0", "1"])
    row = nm.metrics.agreement(adata, "first", "second").iloc[0]
    assert (row["n_cells"], row["n_left_out"], row["ari"]) == (3, 3, 1)
    with pytest.raises(ValueError, match="No cell"):
        nm.metrics.agreement(make(["T", None], [None, "0"]), "first", "second")


def test_a_column_that_is_not_there():
    with pytest.raises(KeyError, match=r"'third'.*'first', 'second'.*groupby="):
        nm.metrics.agreement(make(["T"], ["0"]), "first", "third")
