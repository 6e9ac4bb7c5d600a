"""Agreement of two labelings of the same cells, such as cell types and clusters, or two typings."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import (
    adjusted_rand_score,
    cohen_kappa_score,
    normalized_mutual_info_score,
    precision_recall_fscore_support,
)

from nextmarker import _keys
from nextmarker._errors import listed
from nextmarker._table import get_table, read_labels
from nextmarker.metrics._shared import as_table, shared_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def agreement(
    data: AnnData | SpatialData,
    label_key: str,
    groupby: str,
    *,
    per_type: bool = False,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Compare two labelings of the same cells: cell types and clusters, two clusterings, or two typings.

    For the Rand index, the mutual information and the matched accuracy the names of the labels do not matter, only
    which cells have the same label. Accuracy and kappa compare names: they tell how well two typings agree, and mean
    nothing for numbered clusters.

    Parameters
    ----------
    data
        Table with both labelings, or the SpatialData object that contains it.
    label_key
        Column of `.obs` with the reference, such as known cell types.
    groupby
        Column of `.obs` with the groups to compare with it, such as clusters or other types. Cells without a label in
        either column (NaN or empty) are left out.
    per_type
        Return the scores of each type instead.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row, with the columns

    - `label_key`, `groupby`: names of the two columns
    - `ari`: adjusted Rand index, 1 if both are the same, about 0 by chance
    - `nmi`: normalized mutual information, 0 to 1
    - `matched_accuracy`: fraction of cells that have the most frequent label of their group (purity). It increases with
      the number of groups, so compare it only between labelings with similar numbers of groups
    - `accuracy`: fraction of cells that have the same name in both columns; NaN if these have no name in common
    - `kappa`: Cohen's kappa, which is accuracy corrected for chance: 1 if all cells have the same name, 0 if as many as
      by chance. NaN without a name in common, and if all cells have one and the same name
    - `n_labels`, `n_groups`: number of different labels and groups
    - `n_cells`, `n_left_out`: cells compared, and cells left out

    With `per_type`, one row for each type of `label_key`, with the columns

    - `type`
    - `recall`: fraction of its cells that have the same name in `groupby`
    - `precision`: fraction of the cells of this name in `groupby` that are of the type; NaN if there are none
    - `f1`: harmonic mean of the two
    - `n_cells`: cells of the type

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both labels, or with `per_type` if the columns have no name in common.

    Warns
    -----
    UserWarning
        If two typings have no name in common.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> labels = {"cell_type": ["T", "T", "T", "B", "B"], "nextmarker": ["0", "0", "1", "1", "1"]}
    >>> adata = AnnData(obs=pd.DataFrame(labels, index=["a", "b", "c", "d", "e"]))
    >>> nm.metrics.agreement(adata, "cell_type", "nextmarker")[["ari", "nmi", "matched_accuracy", "n_cells"]].round(2)
        ari   nmi  matched_accuracy  n_cells
    0  0.17  0.43               0.8        5
    >>> adata.obs["named"] = adata.obs["nextmarker"].map({"0": "T", "1": "B"})
    >>> nm.metrics.agreement(adata, "cell_type", "named")[["accuracy", "kappa"]].round(2)
       accuracy  kappa
    0       0.8   0.62
    >>> nm.metrics.agreement(adata, "cell_type", "named", per_type=True).round(2)
      type  recall  precision   f1  n_cells
    0    B    1.00       0.67  0.8        2
    1    T    0.67       1.00  0.8        3
    """
    adata = get_table(data, table_key)
    known, (labels, groups) = read_labels(adata, {"label_key": label_key, "groupby": groupby})
    has_names = bool(shared_names(labels, groups))
    if not has_names and (per_type or not (_are_numbers(labels) or _are_numbers(groups))):
        here, there = listed(labels.categories), listed(groups.categories)
        result = "types cannot be compared one by one" if per_type else "accuracies by name are NaN"
        msg = (
            f".obs[{label_key!r}] has {here}, .obs[{groupby!r}] has {there}: no name in common, so {result}. "
            "Rename the groups first: adata.obs[...].map({...})."
        )
        if per_type:
            raise ValueError(msg)
        warnings.warn(msg, stacklevel=2)
    if per_type:
        return _per_type(labels, groups)
    shared = pd.crosstab(labels.codes, groups.codes)
    left, right = np.asarray(labels.astype(object)), np.asarray(groups.astype(object))
    is_trivial = len(labels.categories) == len(groups.categories) == 1
    return as_table(
        [
            {
                "label_key": label_key,
                "groupby": groupby,
                "ari": float(adjusted_rand_score(labels.codes, groups.codes)),
                "nmi": float(normalized_mutual_info_score(labels.codes, groups.codes)),
                "matched_accuracy": float(shared.max().sum() / len(labels)),
                "accuracy": float((left == right).mean()) if has_names else np.nan,
                "kappa": float(cohen_kappa_score(left, right)) if has_names and not is_trivial else np.nan,
                "n_labels": len(labels.categories),
                "n_groups": len(groups.categories),
                "n_cells": len(labels),
                "n_left_out": int((~known).sum()),
            }
        ]
    )


def _are_numbers(labels: pd.Categorical) -> bool:
    """Whether these are clusters without names, such as 3, or 3,0 after one was divided."""
    return bool(labels.categories.str.fullmatch(r"[\d.,-]+").all())


def _per_type(labels: pd.Categorical, groups: pd.Categorical) -> pd.DataFrame:
    names = labels.categories.to_list()
    scores = precision_recall_fscore_support(
        labels.astype(object), groups.astype(object), labels=names, zero_division=np.nan
    )
    return as_table(
        {
            "type": name,
            "recall": float(recall),
            "precision": float(precision),
            "f1": float(f1),
            "n_cells": int(n_cells),
        }
        for name, precision, recall, f1, n_cells in zip(names, *scores, strict=True)
    )
