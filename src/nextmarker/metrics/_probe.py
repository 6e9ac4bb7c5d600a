"""Accuracy of a simple classifier (a probe) for known cell types."""

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
# The network holds out a quarter of the training cells for validation, and needs every type among them.
LEAST_TO_LEARN = {"logistic": 1, "knn": 1, "mlp": 4}


class Split(NamedTuple):
    """Training cells and test cells, both bool (cells,)."""

    train: np.ndarray
    test: np.ndarray


def probe(
    data: AnnData | SpatialData,
    label_key: str,
    *,
    batch_key: str | None = _keys.IMAGE,
    use_rep: str | Sequence[str] | None = None,
    classifier: Classifier = "logistic",
    C: float = 0.1,
    per_type: bool = False,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure the accuracy of a simple classifier for known cell types, from each representation.

    Cross-validation leaves out one batch at a time (an image or patient) or, if there are more than 10, a tenth of
    them, so every cell is classified by a model that was trained on other batches. The scores are computed over all
    cells together, so a type that is missing in one patient does not distort them. The scores of the single folds, over
    the types that occur there, show how much they vary. A type that occurs in one batch only cannot be learned, and all
    its cells count as wrong.

    Parameters
    ----------
    data
        Table with embedded cells, or the SpatialData object that contains it.
    label_key
        Column of `.obs` with the known cell types. Cells without a type or batch (NaN or empty) are left out.
    batch_key
        Column of `.obs` to split by: images or, better, patients. None splits the cells at random into five folds, with
        a warning: the patches of neighbouring cells overlap, so the scores are too high.
    use_rep
        Representation to score, or a list of them: a key of `.obsm`, `"X"`, or `"layers/<name>"`, with numbers (cells,
        features). By default all of `"X"`, `"X_interpretability"` and `"X_nextmarker"` that the table has.
    classifier
        The features are standardized with the mean and standard deviation of the training cells.

        - `"logistic"`: multinomial logistic regression, with equal weight for every type
        - `"knn"`: majority vote of the 15 nearest neighbours
        - `"mlp"`: two-layer network with 128 hidden units. It holds out a quarter of the training cells for early
          stopping, and never predicts a type with fewer than four training cells. With `batch_key=None` it is trained
          once, with the 60/20/20 % split of the paper, and scored on the last 20 %
    C
        Inverse regularization strength of `"logistic"`.
    per_type
        Return the scores of each type instead.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed of the random splits and of the network.

    Returns
    -------
    One row for each representation, with the columns

    - `representation`
    - `balanced_accuracy` (mean recall of the types), `macro_f1`, `accuracy`: over all scored cells
    - the same names with `_fold_mean` and `_fold_std`: mean and standard deviation over the folds, the latter NaN for a
      single fold
    - `n_folds`, `n_types`, `n_cells` (scored cells), `n_left_out`

    With `per_type`, one row for each representation and type, with the columns `representation`, `type`, `recall`,
    `precision`, `f1` and `n_cells`, over all scored cells.

    Raises
    ------
    KeyError
        If the table, a representation or a column is missing.
    ValueError
        If there is only one batch, a training set has fewer than two types, `classifier` is unknown, `C` is not
        positive, or a representation contains anything but finite numbers.

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
    known, labels = read_labels(
        adata, {"label_key": label_key} | ({} if batch_key is None else {"batch_key": batch_key})
    )
    types = labels[0]
    values = read_representations(adata, use_rep, known)
    folds = _random_folds(types, random_state) if batch_key is None else _batch_folds(labels[1], batch_key)
    splits = _splits(types, folds, label_key, classifier)
    if batch_key is None:
        splits = splits[:1] if classifier == "mlp" else splits
        msg = f"Patches of neighbouring cells overlap: scores are too high. Split by image: batch_key={_keys.IMAGE!r}."
        warnings.warn(msg, UserWarning, stacklevel=2)

    rows = []
    for name, cells in values.items():
        predicted = _predict(cells, types.codes, splits, classifier, C, random_state)
        scored = _score_types if per_type else _score
        rows += [{"representation": name, **row} for row in scored(types, predicted, splits)]
    return as_table(rows) if per_type else as_table(rows).assign(n_left_out=int((~known).sum()))


def _batch_folds(batches: pd.Categorical, batch_key: str) -> np.ndarray:
    """Number the fold in which a cell is classified, the same for all cells of a batch."""
    n_batches = len(batches.categories)
    if n_batches < 2:
        only = f"{batches.categories[0]!r} in .obs[{batch_key!r}]"
        msg = f"All cells with a type are from one batch, {only}. Choose another: batch_key=..., or batch_key=None."
        raise ValueError(msg)
    if n_batches <= MOST_FOLDS:
        return batches.codes
    folds = np.empty(len(batches), dtype=int)
    for fold, (_, test) in enumerate(GroupKFold(MOST_FOLDS).split(folds, groups=batches.codes)):
        folds[test] = fold
    return folds


def _random_folds(types: pd.Categorical, random_state: int) -> np.ndarray:
    """Distribute the cells of each type at random over the folds."""
    chance = np.random.default_rng(random_state).permutation(len(types))
    folds = np.empty(len(types), dtype=int)
    folds[np.lexsort([chance, types.codes])] = np.arange(len(types)) % RANDOM_FOLDS
    return folds


def _splits(types: pd.Categorical, folds: np.ndarray, label_key: str, classifier: Classifier) -> list[Split]:
    splits = []
    for fold in np.unique(folds):
        train = folds != fold
        sizes = np.bincount(types.codes[train], minlength=len(types.categories))
        learned = sizes >= LEAST_TO_LEARN[classifier]
        if learned.sum() < 2:
            found, least = types.categories[learned].tolist(), LEAST_TO_LEARN[classifier]
            msg = (
                f"{classifier!r} needs at least two types with {least} or more training cells; a fold of "
                f".obs[{label_key!r}] has {found}. Choose another column: label_key=... or batch_key=..."
            )
            raise ValueError(msg)
        splits.append(Split(train & learned[types.codes], folds == fold))
    return splits


def _predict(
    cells: np.ndarray, codes: np.ndarray, splits: list[Split], classifier: Classifier, C: float, random_state: int
) -> np.ndarray:
    """Code of the predicted type of each cell that is tested in one of the splits, -1 for others."""
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
    """Score all cells together, and each fold."""
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
    """Scores over the types that occur."""
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
