"""What the metrics read from a table."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat
from scipy import sparse

from nextmarker import _representations
from nextmarker._representations import read_features, read_labels, read_representations, sample

EVERY = np.ones(4, dtype=bool)


@pytest.fixture
def adata():
    return AnnData(
        X=sparse.csr_matrix(np.eye(4, 3)),
        obs=pd.DataFrame(
            {
                "type": pd.Categorical(["T", None, "B", "T"], categories=["T", "none", "B"]),
                "patient": [1, 1, 2, 2],
                "note": ["a", "b", " ", "c"],
                "blank": ["", "", np.nan, ""],
            },
            index=list("abcd"),
        ),
        obsm={"X_nextmarker": np.arange(8.0).reshape(4, 2), "frame": pd.DataFrame(np.ones((4, 1)), list("abcd"))},
        layers={"arcsinh": np.full((4, 3), 2)},
    )


def test_a_representation_is_named_by_a_string(adata):
    names = ["X", "X_nextmarker", "frame", "layers/arcsinh"]
    values = read_representations(adata, names, np.array([True, False, True, True]))
    assert list(values) == names
    np.testing.assert_array_equal(values["X"], np.eye(4, 3)[[0, 2, 3]])
    np.testing.assert_array_equal(values["X_nextmarker"], [[0, 1], [4, 5], [6, 7]])
    assert values["layers/arcsinh"].tolist() == [[2] * 3] * 3
    assert values["frame"].shape == (3, 1)
    assert list(read_representations(adata, "frame", EVERY)) == ["frame"]


def test_by_default_those_of_ours_that_are_there(adata):
    assert list(read_representations(adata, None, EVERY)) == ["X", "X_nextmarker"]
    adata.obsm["X_interpretability"] = np.ones((4, 24))
    assert list(read_representations(adata, None, EVERY)) == ["X", "X_interpretability", "X_nextmarker"]


def test_unknown_representations_are_refused_with_what_is_there(adata):
    with pytest.raises(KeyError, match=r"\['arcsinh'\].*'X', 'X_nextmarker', 'frame', 'layers/arcsinh'.*nm.tl.embed"):
        read_representations(adata, ["X", "arcsinh"], EVERY)
    with pytest.raises(KeyError, match=r"no representation.*it has none"):
        read_representations(AnnData(obs=adata.obs), None, EVERY)


def test_representations_are_finite_numbers(adata):
    adata.obsm["words"] = pd.DataFrame({"word": list("abcd")}, list("abcd"))
    with pytest.raises(ValueError, match=r"'words' holds no numbers.*object|'words' holds no numbers.*str"):
        read_representations(adata, "words", EVERY)
    adata.obsm["empty"] = np.empty((4, 0))
    with pytest.raises(ValueError, match=r"'empty' holds no numbers: its shape is \(4, 0\)"):
        read_representations(adata, "empty", EVERY)
    adata.obsm["X_nextmarker"][2, 1] = np.nan
    with pytest.raises(ValueError, match=r"of 1 cells is not finite.*'c'"):
        read_representations(adata, None, EVERY)
    assert len(read_representations(adata, None, np.array([True, True, False, False]))["X_nextmarker"]) == 2


def test_features_in_step_with_the_markers(adata):
    features = np.arange(96.0).reshape(4, 3, 8)
    adata.obsm["X_interpretability"] = features.reshape(4, -1)
    adata.layers["interpretability"] = features.mean(2)
    everything = read_representations(adata, None, EVERY)
    np.testing.assert_array_equal(everything["X_interpretability"], features.reshape(4, -1))
    np.testing.assert_array_equal(read_features(adata[::-1], 8), features[::-1].reshape(4, -1))
    moved = adata[:, [1, 0, 2]].copy()
    embedded_so = moved.copy()
    embedded_so.obsm["X_interpretability"] = features[:, [1, 0, 2]].reshape(4, -1)
    read_features(embedded_so)
    for changed in (adata[:, :2], moved, concat([adata, embedded_so])):  # .obsm is not put in the order of the first
        with pytest.raises(ValueError, match=r"'X_interpretability'.*tables of several panels.*nm.tl.embed"):
            read_representations(changed, None, np.ones(changed.n_obs, bool))
        read_representations(changed, ["X", "X_nextmarker", "layers/interpretability"], np.ones(changed.n_obs, bool))
    with pytest.raises(ValueError, match="'X_interpretability'"):
        read_features(adata, 7)


def test_embeddings_of_several_models_are_not_compared(adata):
    adata.obs["nextmarker_embedding"] = [f"{digit * 16}-00000000" for digit in "aabb"]
    with pytest.raises(ValueError, match="embedded by 2 models"):
        read_representations(adata, "X_nextmarker", EVERY)
    assert list(read_representations(adata, "X", EVERY)) == ["X"]
    assert len(read_representations(adata, "X_nextmarker", np.array([True, True, False, False]))["X_nextmarker"]) == 2


def test_labels_of_the_cells_that_have_all(adata):
    known, (types, patients) = read_labels(adata, {"target": "type", "groups": "patient"})
    assert known.tolist() == [True, False, True, True]
    assert types.tolist() == ["T", "B", "T"]
    assert types.categories.tolist() == ["T", "B"]  # in the order of the column, without those of no cell
    assert patients.categories.tolist() == ["1", "2"]
    known, (notes,) = read_labels(adata, {"groupby": "note"})
    assert notes.tolist() == ["a", "b", "c"]


def test_missing_labels_are_refused(adata):
    with pytest.raises(KeyError, match=r"'kind'.*\['type', 'patient', 'note', 'blank'\].*groups="):
        read_labels(adata, {"target": "type", "groups": "kind"})
    with pytest.raises(ValueError, match=r"No cell.*'type'.*'blank'"):
        read_labels(adata, {"first": "type", "second": "blank"})


def test_a_sample_keeps_proportions_and_rare_labels(monkeypatch):
    labels = pd.Categorical(np.random.default_rng(0).permutation(["a"] * 700 + ["b"] * 297 + ["c"] * 3))
    assert sample(labels, 0).tolist() == list(range(1000))
    monkeypatch.setattr(_representations, "SAMPLE", 100)
    chosen = sample(labels, 0)
    assert labels[chosen].value_counts().to_dict() == {"a": 70, "b": 29, "c": 2}
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(sample(labels, 0), chosen)
    assert set(sample(labels, 1)) != set(chosen)
