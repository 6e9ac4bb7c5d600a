"""Agreement of two labelings of the same cells, such as cell types and clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from nextmarker import _keys
from nextmarker._table import get_table, read_labels
from nextmarker.metrics._shared import as_table

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def agreement(
    data: AnnData | SpatialData, label_key: str, groupby: str, *, table_key: str = _keys.TABLE
) -> pd.DataFrame:
    """Compare two labelings of the same cells: cell types and clusters, or two clusterings.

    The names of the labels do not matter, only which cells have the same label.

    Parameters
    ----------
    data
        Table with both labelings, or the SpatialData object that contains it.
    label_key
        Column of `.obs` with the reference, such as known cell types.
    groupby
        Column of `.obs` with the groups to compare with it, such as clusters. Cells without a label in either column
        (NaN or empty) are left out.
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
    - `n_labels`, `n_groups`: number of different labels and groups
    - `n_cells`, `n_left_out`: cells compared, and cells left out

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both labels.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> labels = {"cell_type": ["T", "T", "T", "B", "B"], "nextmarker": ["0", "0", "1", "1", "1"]}
    >>> adata = AnnData(obs=pd.DataFrame(labels, index=["a", "b", "c", "d", "e"]))
    >>> nm.metrics.agreement(adata, "cell_type", "nextmarker")[["ari", "nmi", "matched_accuracy", "n_cells"]].round(2)
        ari   nmi  matched_accuracy  n_cells
    0  0.17  0.43               0.8        5
    """
    adata = get_table(data, table_key)
    known, (labels, groups) = read_labels(adata, {"label_key": label_key, "groupby": groupby})
    shared = pd.crosstab(labels.codes, groups.codes)
    return as_table(
        [
            {
                "label_key": label_key,
                "groupby": groupby,
                "ari": float(adjusted_rand_score(labels.codes, groups.codes)),
                "nmi": float(normalized_mutual_info_score(labels.codes, groups.codes)),
                "matched_accuracy": float(shared.max().sum() / len(labels)),
                "n_labels": len(labels.categories),
                "n_groups": len(groups.categories),
                "n_cells": len(labels),
                "n_left_out": int((~known).sum()),
            }
        ]
    )
