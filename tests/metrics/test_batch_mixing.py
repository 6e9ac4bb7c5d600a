import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import silhouette_score

import nextmarker as nm
from nextmarker.metrics import _shared


def make(cells, patients, types="T"):
    obs = pd.DataFrame({"patient": patients, "cell_type": types}, index=[f"cell{i}" for i in range(len(cells))])
    return AnnData(obs=obs, obsm={"X_nextmarker": np.asarray(cells, dtype=float)})


def mixing(adata, **arguments):
    return nm.metrics.batch_mixing(adata, "patient", **arguments)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.95, 0.05), (0.6, 0.2, 0.1, 0.1)])
@pytest.mark.parametrize("n_neighbors", [3, 20])
def test_random_mixing_is_one_whatever_the_sizes(shares, n_neighbors):
    rng = np.random.default_rng(0)
    patients = np.repeat([f"p{i}" for i in range(len(shares))], (np.array(shares) * 300).astype(int))
    cells = rng.normal(size=(len(patients), 3))
    tables = [mixing(make(cells, rng.permutation(patients)), n_neighbors=n_neighbors) for _ in range(60)]
    assert np.mean([table["neighbor_entropy"].item() for table in tables]) == pytest.approx(1, abs=0.04)
    assert np.mean([table["silhouette"].item() for table in tables]) == pytest.approx(0, abs=0.05)


def test_batches_apart():
    rng = np.random.default_rng(0)
    patients = np.repeat(["p1", "p2"], [150, 50])
    row = mixing(make(rng.normal(size=(200, 2)) + 100 * (patients == "p1")[:, None], patients)).iloc[0]
    assert row["neighbor_entropy"] == 0
    assert row["silhouette"] > 0.95


def test_entropy_by_hand():
    """Cells a, a, b, a, a, b, a on a line, the two nearest of each: the cells on either side, or the next two."""
    cells = [[0], [1.0], [2.1], [3.3], [4.6], [6.0], [7.5]]
    patients = list("aabaaba")
    row = mixing(make(cells, patients), n_neighbors=2).iloc[0]
    neighbors = ["ab", "ab", "aa", "ba", "ab", "aa", "ba"]
    observed = np.mean([len(set(pair)) == 2 for pair in neighbors])  # in bits
    by_chance = (5 * 2) / (7 * 6 / 2)  # pairs of different patients among all pairs
    assert row["neighbor_entropy"] == pytest.approx(observed / by_chance)
    assert row["silhouette"] == pytest.approx(silhouette_score(cells, patients))


def test_small_types_use_fewer_neighbours():
    """Of 10 cells the 30 nearest would be all others, mixed in any case."""
    rng = np.random.default_rng(0)
    patients = np.repeat(["p1", "p2"], 5)
    apart = make(rng.normal(size=(10, 2)) + 100 * (patients == "p1")[:, None], patients)
    assert mixing(apart)["neighbor_entropy"].item() == 0
    assert np.isnan(mixing(apart[2:8].copy())["neighbor_entropy"].item())


def test_within_types_and_their_weighted_mean():
    """T mixed and B apart; NK from one patient only; T in p1 and B in p2 mostly, so that patients differ overall."""
    rng = np.random.default_rng(0)
    types = np.repeat(["T", "B", "NK"], [200, 100, 20])
    patients = np.concatenate([rng.permutation(["p1"] * 170 + ["p2"] * 30), ["p1"] * 20 + ["p2"] * 80, ["p2"] * 20])
    cells = rng.normal(size=(320, 2)) + 50 * np.array(["T", "B", "NK"]).searchsorted(types, sorter=[1, 2, 0])[:, None]
    cells[(types == "B") & (patients == "p1")] += 1000
    adata = make(cells, patients, pd.Categorical(types, categories=["T", "B", "NK"]))
    table = mixing(adata, label_key="cell_type").set_index("type")
    assert table.index.tolist() == ["T", "B", "NK", "all"]
    assert table["n_cells"].tolist() == [200, 100, 20, 320]
    assert table["n_batches"].tolist() == [2, 2, 1, 2]
    assert table.loc["T", "neighbor_entropy"] == pytest.approx(1, abs=0.15)
    assert table.loc["T", "silhouette"] < 0.1
    assert table.loc["B", "silhouette"] > 0.9
    assert table.loc["B", "neighbor_entropy"] < 0.6  # 20 cells have fewer than 30 neighbours of their own
    assert table.loc["NK", ["silhouette", "neighbor_entropy"]].isna().all()
    for column in ("silhouette", "neighbor_entropy"):
        assert table.loc["all", column] == pytest.approx((200 * table[column]["T"] + 100 * table[column]["B"]) / 300)
    assert mixing(adata)["neighbor_entropy"].item() < table.loc["T", "neighbor_entropy"] - 0.3


def test_every_representation_and_cells_left_out():
    rng = np.random.default_rng(0)
    adata = make(rng.normal(size=(60, 2)), rng.permutation(["p1", "p2"] * 30), rng.permutation(["T", "B"] * 30))
    adata.obsm["other"] = rng.normal(size=(60, 2))
    reference = mixing(adata[10:].copy(), label_key="cell_type", use_rep=["X_nextmarker", "other"])
    adata.obs.iloc[:4, 0] = np.nan
    adata.obs.iloc[4:10, 1] = ""
    table = mixing(adata, label_key="cell_type", use_rep=["X_nextmarker", "other"])
    assert table["representation"].tolist() == ["X_nextmarker"] * 3 + ["other"] * 3
    assert table["type"].tolist() == ["B", "T", "all"] * 2
    assert (table["n_left_out"] == 10).all()
    pd.testing.assert_frame_equal(table.drop(columns="n_left_out"), reference.drop(columns="n_left_out"))


def test_large_types_are_sampled_with_a_seed(monkeypatch):
    rng = np.random.default_rng(0)
    adata = make(rng.normal(size=(400, 2)), rng.permutation(["p1"] * 300 + ["p2"] * 100))
    monkeypatch.setattr(_shared, "SAMPLE", 150)
    first, again, other = (mixing(adata, random_state=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["neighbor_entropy"].item() != other["neighbor_entropy"].item()
    assert first["n_cells"].item() == 400


def test_bad_input():
    adata = make(np.ones((9, 2)), ["p1"] * 9)
    with pytest.raises(ValueError, match=r"'p1'.*batch_key="):
        mixing(adata)
    with pytest.raises(ValueError, match="n_neighbors=1"):
        mixing(adata, n_neighbors=1)
    with pytest.raises(KeyError, match=r"'kind'.*label_key="):
        mixing(adata, label_key="kind")
