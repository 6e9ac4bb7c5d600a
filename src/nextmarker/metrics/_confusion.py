"""Confusion matrix of two labelings of the same cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_option
from nextmarker._table import get_table, read_labels
from nextmarker.metrics._shared import shared_names

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

Normalize = Literal["row", "column", "all"]
_DIVISORS: Final[dict[str | None, Any]] = {"row": "index", "column": "columns", "all": "all", None: False}


def confusion(
    data: AnnData | SpatialData,
    label_key: str,
    groupby: str,
    *,
    normalize: Normalize | None = None,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Count the cells with each pair of labels: cell types and clusters, or two typings of the same cells.

    Parameters
    ----------
    data
        Table with both labelings, or the SpatialData object that contains it.
    label_key
        Column of `.obs` for the rows, such as known cell types.
    groupby
        Column of `.obs` for the columns, such as clusters or other types. Cells without a label in either column (NaN
        or empty) are left out.
    normalize
        Divide by the sum of the `"row"`, of the `"column"`, or of `"all"`; by default, count cells.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row for each label of `label_key`, one column for each of `groupby`, with the names that both have first and in
    the same order, so that cells on the diagonal agree.

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both labels, or `normalize` is unknown.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> labels = {"cell_type": ["T", "T", "T", "B", "B"], "ie_type": ["T", "T", "unsure", "B", "T"]}
    >>> adata = AnnData(obs=pd.DataFrame(labels, index=["a", "b", "c", "d", "e"]))
    >>> nm.metrics.confusion(adata, "cell_type", "ie_type")
    ie_type    B  T  unsure
    cell_type
    B          1  1       0
    T          0  2       1
    """
    adata = get_table(data, table_key)
    if normalize is not None:
        check_option("normalize", normalize, get_args(Normalize))
    _, (labels, groups) = read_labels(adata, {"label_key": label_key, "groupby": groupby})
    common = shared_names(labels, groups)
    rows = [*common, *labels.categories.difference(common, sort=False)]
    columns = [*common, *groups.categories.difference(common, sort=False)]
    counts = pd.crosstab(
        np.asarray(labels.astype(object)),
        np.asarray(groups.astype(object)),
        rownames=[label_key],
        colnames=[groupby],
        normalize=_DIVISORS[normalize],
    )
    return counts.loc[rows, columns]
