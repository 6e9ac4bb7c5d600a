"""How far two labelings of the same cells agree."""

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


def agreement(data: AnnData | SpatialData, first: str, second: str, *, table_key: str = _keys.TABLE) -> pd.DataFrame:
    """Compare two labelings of the same cells: types and clusters, or clusters and clusters.

    The names of the labels do not matter, only which cells share one.

    Parameters
    ----------
    data
        Table with both labelings, or the SpatialData object that holds it.
    first
        Column of `.obs`: the reference, such as types.
    second
        Column of `.obs`: what is compared with it, such as clusters. Cells without a label in one of the two (NaN or
        empty) are left out.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row, with the columns

    - `first`, `second`: the names of the columns
    - `ari`: adjusted Rand index, 1 if equal, about 0 by chance
    - `nmi`: normalized mutual information, 0 to 1
    - `matched_accuracy`: share of cells whose label of `first` is the most frequent one in their group of `second`. It
      rises with the number of groups: compare it only between labelings of about as many
    - `n_first`, `n_second`: number of labels
    - `n_cells`, `n_left_out`

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
    known, (reference, compared) = read_labels(adata, {"first": first, "second": second})
    shared = pd.crosstab(reference.codes, compared.codes)
    return as_table(
        [
            {
                "first": first,
                "second": second,
                "ari": float(adjusted_rand_score(reference.codes, compared.codes)),
                "nmi": float(normalized_mutual_info_score(reference.codes, compared.codes)),
                "matched_accuracy": float(shared.max().sum() / len(reference)),
                "n_first": len(reference.categories),
                "n_second": len(compared.categories),
                "n_cells": len(reference),
                "n_left_out": int((~known).sum()),
            }
        ]
    )
