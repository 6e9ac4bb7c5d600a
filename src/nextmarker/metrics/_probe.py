"""How well a simple classifier reads known types from a representation."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nextmarker import _keys
from nextmarker._errors import check_option, check_value
from nextmarker._table import get_table, read_labels, read_representations
from nextmarker.metrics._shared import as_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from sklearn.base import ClassifierMixin
    from spatialdata import SpatialData

Classifier = Literal["logistic", "knn", "mlp"]

MOST_FOLDS = 10
RANDOM_FOLDS = 5
NEIGHBORS = 15
HIDDEN = 128
# The network keeps a quarter of the training cells aside, and needs each type in there.
LEAST_TO_LEARN = {"logistic": 1, "knn": 1, "mlp": 4}


class Split(NamedTuple):
    """Cells to learn from, and cells to classify, both bool (cells,)."""

    train: np.ndarray
    test: np.ndarray


def probe(
    data: AnnData | SpatialData,
    target: str,
    *,
    groups: str | None = _keys.IMAGE,
    representations: str | Sequence[str] | None = None,
    classifier: Classifier = "logistic",
    C: float = 0.1,
    per_type: bool = False,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure how well a simple classifier reads known types from each representation.

    Every cell is classified by a classifier that has seen no cell of its group: each group is left out in turn, or, if
    there are more than 10, each tenth of them. Scores are those of all cells together, so that a type absent from one
    patient distorts nothing; the scores of the single folds, over the types found there, tell how they spread. A type
    that occurs in one group only cannot be learned, and all its cells count as wrong.

    Parameters
    ----------
    data
        Table with representations of the cells, or the SpatialData object that holds it.
    target
        Column of `.obs` with the types. Cells without one, or without a group (NaN or empty), are left out.
    groups
        Column of `.obs` to split by: images or, better, patients. None splits the cells at random into five folds, with
        a warning: the patches of neighbouring cells overlap, so the scores are too good.
    representations
        Keys of `.obsm`, `"X"`, or `"layers/NAME"`: numbers, (cells, features). By default those of `"X"`,
        `"X_interpretability"` and `"X_nextmarker"` that the table has.
    classifier
        Each standardizes the features by mean and deviation of the training cells.

        - `"logistic"`: multinomial logistic regression, in which all types weigh the same
        - `"knn"`: vote of the 15 nearest neighbours
        - `"mlp"`: two-layer network of 128 hidden units, which keeps a quarter of the training cells aside to see when
          to stop, and never names a type that has under four training cells. Without groups it is trained once, on the
          60/20/20 % split of the paper, and the last 20 % are scored
    C
        Inverse strength of the regularization of `"logistic"`.
    per_type
        Return the scores of each type instead.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed of random splits and of the network.

    Returns
    -------
    One row for each representation, with the columns

    - `representation`
    - `balanced_accuracy` (mean recall of the types), `macro_f1`, `accuracy`: over all cells scored
    - the same ending in `_fold_mean` and `_fold_std`: mean and standard deviation over the folds, the latter NaN if
      there is only one
    - `n_folds`, `n_types`, `n_cells` (those scored), `n_left_out`

    With `per_type`, one row for each representation and type, with the columns `representation`, `type`, `recall`,
    `precision`, `f1` and `n_cells`, over all cells scored.

    Raises
    ------
    KeyError
        If the table, a representation or a column is missing.
    ValueError
        If there is only one group, a split leaves fewer than two types to learn from, `classifier` is unknown, `C` is
        not positive, or a representation is not of finite numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = {"cell_type": ["T", "B"] * 4, "image": ["p1"] * 4 + ["p2"] * 4}
    >>> adata = AnnData(
    ...     obs=pd.DataFrame(obs, index=[f"cell{i}" for i in range(8)]),
    ...     obsm={"X_nextmarker": np.array([[0.0], [1.0], [0.0], [1.0], [0.0], [1.0], [0.0], [0.0]])},
    ... )
    >>> nm.metrics.probe(adata, "cell_type")[["balanced_accuracy", "balanced_accuracy_fold_std", "n_folds"]].round(2)
       balanced_accuracy  balanced_accuracy_fold_std  n_folds
    0               0.88                        0.18        2
    >>> nm.metrics.probe(adata, "cell_type", per_type=True)[["representation", "type", "recall"]]
      representation type  recall
    0   X_nextmarker    B    0.75
    1   X_nextmarker    T    1.00
    """
    adata = get_table(data, table_key)
    check_option("classifier", classifier, get_args(Classifier))
    check_value("C", C, C > 0, "positive")
    known, labels = read_labels(adata, {"target": target} | ({} if groups is None else {"groups": groups}))
    types = labels[0]
    values = read_representations(adata, representations, known)
    folds = _random_folds(types, random_state) if groups is None else _group_folds(labels[1], groups)
    splits = _splits(types, folds, target, classifier)
    if groups is None:
        splits = splits[:1] if classifier == "mlp" else splits
        msg = f"Patches of neighbouring cells overlap: scores are too good. Split by images: groups={_keys.IMAGE!r}."
        warnings.warn(msg, UserWarning, stacklevel=2)

    rows = []
    for name, cells in values.items():
        predicted = _predict(cells, types.codes, splits, classifier, C, random_state)
        scored = _score_types if per_type else _score
        rows += [{"representation": name, **row} for row in scored(types, predicted, splits)]
    return as_table(rows) if per_type else as_table(rows).assign(n_left_out=int((~known).sum()))


def _group_folds(groups: pd.Categorical, column: str) -> np.ndarray:
    """Number the fold in which a cell is classified, the same for all cells of a group."""
    n_groups = len(groups.categories)
    if n_groups < 2:
        only = f"{groups.categories[0]!r} in .obs[{column!r}]"
        msg = f"All cells with a type are of one group, {only}. Name another column, groups=..., or groups=None."
        raise ValueError(msg)
    if n_groups <= MOST_FOLDS:
        return groups.codes
    folds = np.empty(len(groups), dtype=int)
    for fold, (_, test) in enumerate(GroupKFold(MOST_FOLDS).split(folds, groups=groups.codes)):
        folds[test] = fold
    return folds


def _random_folds(types: pd.Categorical, random_state: int) -> np.ndarray:
    """Deal the cells of each type to the folds in random order."""
    chance = np.random.default_rng(random_state).permutation(len(types))
    folds = np.empty(len(types), dtype=int)
    folds[np.lexsort([chance, types.codes])] = np.arange(len(types)) % RANDOM_FOLDS
    return folds


def _splits(types: pd.Categorical, folds: np.ndarray, target: str, classifier: Classifier) -> list[Split]:
    splits = []
    for fold in np.unique(folds):
        train = folds != fold
        sizes = np.bincount(types.codes[train], minlength=len(types.categories))
        learned = sizes >= LEAST_TO_LEARN[classifier]
        if learned.sum() < 2:
            found, least = types.categories[learned].tolist(), LEAST_TO_LEARN[classifier]
            msg = (
                f"{classifier!r} needs two types of {least} cell(s) or more to learn from; a fold of .obs[{target!r}] "
                f"has {found}. Name another column with target=... or groups=..."
            )
            raise ValueError(msg)
        splits.append(Split(train & learned[types.codes], folds == fold))
    return splits


def _predict(
    cells: np.ndarray, codes: np.ndarray, splits: list[Split], classifier: Classifier, C: float, random_state: int
) -> np.ndarray:
    """Code of the type read from each cell that is classified in one of the splits."""
    predicted = np.full(len(codes), -1)
    for train, test in splits:
        pipeline = make_pipeline(StandardScaler(), _make(classifier, C, int(train.sum()), random_state))
        predicted[test] = pipeline.fit(cells[train], codes[train]).predict(cells[test])
    return predicted


def _make(classifier: Classifier, C: float, n_training: int, random_state: int) -> ClassifierMixin:
    if classifier == "logistic":
        return LogisticRegression(C=C, class_weight="balanced", max_iter=2000)
    if classifier == "knn":
        return KNeighborsClassifier(min(NEIGHBORS, n_training))
    return MLPClassifier(
        (HIDDEN,),
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=20,
        max_iter=1000,
        random_state=random_state,
    )


def _score(types: pd.Categorical, predicted: np.ndarray, splits: list[Split]) -> list[dict[str, Any]]:
    """Score all cells together, and the folds one by one."""
    scored = np.any([split.test for split in splits], axis=0)
    folds = pd.DataFrame([_averages(types.codes[test], predicted[test]) for _, test in splits])
    return [
        {
            **_averages(types.codes[scored], predicted[scored]),
            **folds.mean().add_suffix("_fold_mean"),
            **folds.std().add_suffix("_fold_std"),
            "n_folds": len(splits),
            "n_types": len(np.unique(types.codes[scored])),
            "n_cells": int(scored.sum()),
        }
    ]


def _averages(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Scores over the types that are there."""
    _, recall, f1, _ = precision_recall_fscore_support(truth, predicted, labels=np.unique(truth), zero_division=0)
    return {
        "balanced_accuracy": float(np.mean(recall)),
        "macro_f1": float(np.mean(f1)),
        "accuracy": float(np.mean(truth == predicted)),
    }


def _score_types(types: pd.Categorical, predicted: np.ndarray, splits: list[Split]) -> list[dict[str, Any]]:
    """Score each type over all cells together."""
    scored = np.any([split.test for split in splits], axis=0)
    truth = types.codes[scored]
    present = np.unique(truth)
    scores = precision_recall_fscore_support(truth, predicted[scored], labels=present, zero_division=0)
    return [
        {
            "type": types.categories[code],
            "recall": float(recall),
            "precision": float(precision),
            "f1": float(f1),
            "n_cells": int(n_cells),
        }
        for code, precision, recall, f1, n_cells in zip(present, *scores, strict=True)
    ]
