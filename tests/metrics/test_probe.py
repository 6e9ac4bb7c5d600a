import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nextmarker as nm
from nextmarker.metrics import probe

OVERLAP = "neighbouring cells overlap"


def make(cells, types, images):
    obs = pd.DataFrame({"cell_type": types, "image": images}, index=[f"cell{i}" for i in range(len(cells))])
    return AnnData(obs=obs, obsm={"X_nextmarker": np.asarray(cells, dtype=float)})


@pytest.fixture
def adata():
    """Three types of unequal numbers that overlap a little, from four images."""
    rng = np.random.default_rng(0)
    types = rng.choice(["T", "B", "NK"], 240, p=[0.6, 0.3, 0.1])
    centres = {"T": [0, 0, 0], "B": [2.5, 0, 0], "NK": [0, 250, 0]}
    cells = np.array([centres[kind] for kind in types]) + rng.normal(size=(240, 3)) * [1, 100, 1]
    return make(cells, types, rng.choice(["i1", "i2", "i3", "i4"], 240))


@pytest.mark.parametrize(
    ("classifier", "estimator"),
    [("logistic", LogisticRegression(C=0.1, class_weight="balanced")), ("knn", KNeighborsClassifier(15))],
)
def test_agrees_with_sklearn(adata, classifier, estimator):
    types, images, cells = adata.obs["cell_type"], adata.obs["image"], adata.obsm["X_nextmarker"]
    pipeline = make_pipeline(StandardScaler(), estimator)
    expected = cross_val_predict(pipeline, cells, types, groups=images, cv=LeaveOneGroupOut())
    row = probe(adata, "cell_type", classifier=classifier).iloc[0]
    assert row["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(types, expected))
    assert row["macro_f1"] == pytest.approx(f1_score(types, expected, average="macro"))
    assert row["accuracy"] == pytest.approx(accuracy_score(types, expected))
    folds = [accuracy_score(types[images == name], expected[images == name]) for name in images.unique()]
    assert row["accuracy_fold_mean"] == pytest.approx(np.mean(folds))
    assert row["accuracy_fold_std"] == pytest.approx(np.std(folds, ddof=1))
    assert (row["n_folds"], row["n_types"], row["n_cells"], row["n_left_out"]) == (4, 3, 240, 0)


def test_scores_of_types_make_up_the_scores(adata):
    row = probe(adata, "cell_type").iloc[0]
    types = probe(adata, "cell_type", per_type=True)
    assert types["type"].tolist() == ["B", "NK", "T"]
    assert types["n_cells"].tolist() == adata.obs["cell_type"].value_counts()[["B", "NK", "T"]].tolist()
    assert types["recall"].mean() == pytest.approx(row["balanced_accuracy"])
    assert types["f1"].mean() == pytest.approx(row["macro_f1"])
    assert np.average(types["recall"], weights=types["n_cells"]) == pytest.approx(row["accuracy"])


def test_what_tells_the_image_only_is_found_out():
    """Each image has its own place and mostly one type: random splits read the type off the image."""
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(30), 20)
    main = rng.permutation(np.arange(30) % 3)[images]
    types = np.where(rng.random(600) < 0.9, main, rng.integers(0, 3, 600))
    cells = rng.normal(size=(30, 40))[images] + 0.01 * rng.normal(size=(600, 40))
    adata = make(cells, types, images)
    for classifier in ("logistic", "knn"):
        grouped = probe(adata, "cell_type", classifier=classifier).iloc[0]
        assert grouped["balanced_accuracy"] < 0.45
        assert grouped["n_folds"] == 10
        with pytest.warns(UserWarning, match=OVERLAP):
            random = probe(adata, "cell_type", batch_key=None, classifier=classifier).iloc[0]
        assert random["balanced_accuracy"] > 0.85
        assert random["n_folds"] == 5


@pytest.mark.parametrize(("n_images", "n_folds"), [(4, 4), (10, 10), (11, 10), (25, 10)])
def test_images_are_left_out_whole_in_at_most_ten_folds(n_images, n_folds, monkeypatch):
    """The only feature is the number of the image, so what the scaler and so the classifier sees tells which."""
    images = np.repeat(np.arange(n_images), 8)
    seen = []
    fit = StandardScaler.fit

    def spy(self, cells, *arguments, **named):
        seen.append(cells[:, 0])
        return fit(self, cells, *arguments, **named)

    monkeypatch.setattr(StandardScaler, "fit", spy)
    row = probe(make(images[:, None], ["T", "B"] * (n_images * 4), images), "cell_type").iloc[0]
    assert row["n_folds"] == len(seen) == n_folds
    left_out = [np.setdiff1d(images, training) for training in seen]
    assert sorted(np.concatenate(left_out)) == list(range(n_images))
    for training, without in zip(seen, left_out, strict=True):
        assert len(training) == 8 * (n_images - len(without))


def test_a_type_absent_from_an_image_distorts_nothing():
    """All but one cell is read right: i1 and i2 have all types, i3 lacks NK."""
    types = ["T", "B", "NK"] * 8 + ["T", "B"] * 6
    cells = np.array([[{"T": 0, "B": 5, "NK": 10}[kind]] for kind in types])
    cells[-1] = 0
    row = probe(make(cells, types, ["i1"] * 12 + ["i2"] * 12 + ["i3"] * 12), "cell_type", C=100).iloc[0]
    assert row["n_types"] == 3
    assert row["balanced_accuracy"] == pytest.approx((1 + 13 / 14 + 1) / 3)
    assert row["balanced_accuracy_fold_mean"] == pytest.approx((1 + 1 + (1 + 5 / 6) / 2) / 3)


def test_a_type_of_one_image_only_counts_as_wrong():
    types = ["T", "B", "NK"] * 4 + ["T", "B"] * 6
    cells = np.array([[{"T": 0, "B": 5, "NK": 10}[kind]] for kind in types])
    adata = make(cells, types, ["i1"] * 12 + ["i2"] * 12)
    recall = probe(adata, "cell_type", C=100, per_type=True).set_index("type")["recall"]
    assert recall.to_dict() == {"B": 1, "NK": 0, "T": 1}
    assert probe(adata, "cell_type", C=100)["balanced_accuracy"].item() == pytest.approx(2 / 3)


def test_folds_are_scored_over_the_types_they_have():
    types = ["T", "B"] * 10 + ["B"] * 10
    adata = make([[0 if kind == "T" else 5] for kind in types], types, ["i1"] * 10 + ["i2"] * 10 + ["i3"] * 10)
    row = probe(adata, "cell_type").iloc[0]
    assert row[["balanced_accuracy", "balanced_accuracy_fold_mean", "macro_f1_fold_mean"]].tolist() == [1, 1, 1]
    assert row["balanced_accuracy_fold_std"] == 0


def test_the_network_reads_what_lines_cannot(adata):
    rng = np.random.default_rng(0)
    cells = rng.uniform(-1, 1, size=(600, 2))
    adata = make(cells, np.where(cells.prod(axis=1) > 0, "same", "differ"), np.repeat(["i1", "i2", "i3"], 200))
    network, again = (probe(adata, "cell_type", classifier="mlp", random_state=3) for _ in range(2))
    assert network["balanced_accuracy"].item() > 0.9
    assert probe(adata, "cell_type")["balanced_accuracy"].item() < 0.7
    pd.testing.assert_frame_equal(network, again)


def test_the_network_alone_scores_a_fifth_of_the_cells(adata):
    with pytest.warns(UserWarning, match=OVERLAP):
        row = probe(adata, "cell_type", batch_key=None, classifier="mlp").iloc[0]
    assert (row["n_folds"], row["n_cells"]) == (1, 48)
    assert np.isnan(row["balanced_accuracy_fold_std"])
    assert row["balanced_accuracy_fold_mean"] == row["balanced_accuracy"] > 0.6
    with pytest.warns(UserWarning, match=OVERLAP):
        types = probe(adata, "cell_type", batch_key=None, classifier="mlp", per_type=True)
    shares = adata.obs["cell_type"].value_counts()[types["type"]] / 5
    assert (types["n_cells"].to_numpy() - shares).abs().max() < 1  # stratified


def test_the_network_leaves_rare_types_alone(adata):
    adata.obs.iloc[[0, 1], 0] = "rare"
    recall = probe(adata, "cell_type", classifier="mlp", per_type=True).set_index("type")["recall"]
    assert recall["rare"] == 0
    assert recall["T"] > 0.8


def test_random_splits_follow_the_seed(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, again, other = (probe(adata, "cell_type", batch_key=None, random_state=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["accuracy_fold_std"].item() != other["accuracy_fold_std"].item()


def test_grouped_splits_do_not_warn(adata):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for classifier in ("logistic", "knn", "mlp"):
            probe(adata, "cell_type", classifier=classifier)


def test_cells_without_type_or_group_are_left_out_and_counted(adata):
    reference = probe(adata[30:].copy(), "cell_type")
    adata.obs.iloc[:10, 0] = np.nan
    adata.obs.iloc[10:20, 0] = ""
    adata.obs.iloc[20:30, 1] = None
    table = probe(adata, "cell_type")
    assert table["n_left_out"].item() == 30
    pd.testing.assert_frame_equal(table.drop(columns="n_left_out"), reference.drop(columns="n_left_out"))


def test_one_row_for_each_representation(adata):
    adata.obsm["noise"] = np.random.default_rng(0).normal(size=(240, 2))
    table = probe(adata, "cell_type", use_rep=["noise", "X_nextmarker"]).set_index("representation")
    assert table.index.tolist() == ["noise", "X_nextmarker"]
    assert table["balanced_accuracy"]["noise"] < 0.5 < 0.8 < table["balanced_accuracy"]["X_nextmarker"]


def test_strength_of_regularization(adata):
    scores = [probe(adata, "cell_type", C=C)["accuracy"].item() for C in (1e-6, 1)]
    assert scores[0] != scores[1]


def test_bad_input(adata):
    with pytest.raises(ValueError, match=r"'forest'.*'logistic', 'knn', 'mlp'"):
        probe(adata, "cell_type", classifier="forest")
    with pytest.raises(ValueError, match="C="):
        probe(adata, "cell_type", C=0)
    with pytest.raises(KeyError, match=r"'patient'.*'cell_type', 'image'.*batch_key="):
        probe(adata, "cell_type", batch_key="patient")
    with pytest.raises(ValueError, match=r"'i1' in .obs\['image'\].*batch_key=None"):
        probe(adata[adata.obs["image"] == "i1"].copy(), "cell_type")
    adata.obs["cell_type"] = np.where(adata.obs["image"] == "i1", "T", "B")
    with pytest.raises(ValueError, match=r"'logistic' needs at least two.*\['B'\].*label_key="):
        probe(adata, "cell_type")
    with pytest.raises(KeyError, match="X_pca"):
        nm.metrics.probe(adata, "cell_type", use_rep="X_pca")
