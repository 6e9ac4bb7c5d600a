import warnings

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


def test_typings_without_a_name_in_common_are_told_and_numbered_clusters_are_not():
    types = ["T cell", "B cell", "T cell"]
    with pytest.warns(UserWarning, match="has 'B cells', 'T cells': no name in common.*NaN. Rename"):
        row = nm.metrics.agreement(make(types, [f"{name}s" for name in types]), "first", "second").iloc[0]
    assert (row["ari"], np.isnan(row["accuracy"]), np.isnan(row["kappa"])) == (1, True, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nm.metrics.agreement(make(types, ["3,0", "2-3,0", "12"]), "first", "second")
        nm.metrics.agreement(make([1, 2, 1], types), "first", "second")


def test_cells_without_a_label_are_left_out_and_counted():
    adata = make(["T", "B", np.nan, "T", "", "B"], ["0", "1", "1", None, "0", "1"])
    row = nm.metrics.agreement(adata, "first", "second").iloc[0]
    assert (row["n_cells"], row["n_left_out"], row["ari"]) == (3, 3, 1)
    with pytest.raises(ValueError, match="No cell"):
        nm.metrics.agreement(make(["T", None], [None, "0"]), "first", "second")


def test_a_column_that_is_not_there():
    with pytest.raises(KeyError, match=r"'third'.*'first', 'second'.*groupby="):
        nm.metrics.agreement(make(["T"], ["0"]), "first", "third")


def test_accuracy_and_kappa_by_hand():
    """6 of 8 cells have the same name; by chance (4 * 3 + 3 * 3 + 1 * 1) / 64 would."""
    adata = make(["T", "T", "T", "T", "B", "B", "B", "NK"], ["T", "T", "T", "B", "B", "B", "unsure", "NK"])
    row = nm.metrics.agreement(adata, "first", "second").iloc[0]
    chance = (4 * 3 + 3 * 3 + 1 * 1) / 64
    assert row["accuracy"] == pytest.approx(6 / 8)
    assert row["kappa"] == pytest.approx((6 / 8 - chance) / (1 - chance))


@pytest.mark.parametrize(("first", "second"), [(["T", "B"], ["0", "1"]), (["T", "T"], ["T", "T"])])
def test_kappa_is_nan_where_it_means_nothing(first, second):
    row = nm.metrics.agreement(make(first, second), "first", "second").iloc[0]
    assert np.isnan(row["kappa"])
    assert np.isnan(row["accuracy"]) == (first != second)


def test_scores_of_each_type():
    adata = make(
        pd.Categorical(["T", "T", "T", "T", "B", "B", "NK", None], categories=["T", "NK", "B", "none"]),
        ["T", "T", "T", "B", "B", "T", "unsure", "T"],
    )
    table = nm.metrics.agreement(adata, "first", "second", per_type=True).set_index("type")
    assert table.index.tolist() == ["T", "NK", "B"]
    assert table["n_cells"].tolist() == [4, 1, 2]
    assert table["recall"].tolist() == [3 / 4, 0, 1 / 2]
    np.testing.assert_allclose(table["precision"], [3 / 4, np.nan, 1 / 2])
    np.testing.assert_allclose(table["f1"], [3 / 4, 0, 1 / 2])
    with pytest.raises(ValueError, match=r"'B', 'T'.*'0', '1'.*no name in common.*map"):
        nm.metrics.agreement(make(["T", "B"], [0, 1]), "first", "second", per_type=True)
