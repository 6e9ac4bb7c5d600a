"""Cells of each type in each image or patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nextmarker import _keys
from nextmarker._provenance import check_clusters
from nextmarker._table import count_cells, get_table, refuse_joined

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

OF_CELLS = {_keys.REGION, _keys.INSTANCE, _keys.EMBEDDED}
"""Columns that tell nothing of an image, even if they have one value in it."""


def composition(
    data: AnnData | SpatialData,
    groupby: str = _keys.CELL_TYPE,
    *,
    by: str = _keys.IMAGE,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Count the cells of each type in each image or patient.

    Parameters
    ----------
    data
        Table of cells, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with cell types or clusters.
    by
        Column of `.obs` with the units: `"image"`, or `"patient"` to count all images of a patient together.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row for each unit and type, in the order of their categories, also where a type is absent. Columns:

    - the unit and the type, by the names `by` and `groupby`
    - `n`: cells of the type in the unit
    - `share` of the cells of the unit that have a type
    - all columns of `.obs` with only one value in each unit, such as patient, group and age

    Cells without a type or a unit are not counted, and units without typed cells have no rows.

    Warns
    -----
    UserWarning
        If `groupby` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both a type and a unit, `by` is the same column as `groupby`, or several images have the
        same name.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"image": ["a", "a", "b"], "cell_type": ["T", "B", "T"], "patient": ["P1", "P1", "P2"]})
    >>> nm.get.composition(AnnData(obs=obs.set_axis(["1", "2", "3"])))
      image cell_type  n  share patient
    0     a         B  1    0.5      P1
    1     a         T  1    0.5      P1
    2     b         B  0    0.0      P2
    3     b         T  1    1.0      P2
    """
    adata = get_table(data, table_key)
    if by == _keys.IMAGE:
        refuse_joined(adata, by, "by")
    counts = count_cells(adata, groupby, by)
    check_clusters(adata, groupby)
    table = pd.DataFrame({"n": counts.stack()}).reset_index()
    table["share"] = table["n"] / table.groupby(by, observed=True)["n"].transform("sum")
    known = _constant_columns(adata.obs.drop(columns=[*OF_CELLS, *table.columns.drop(by)], errors="ignore"), by)
    return table.assign(**known.loc[list(table[by].astype(str))].reset_index(drop=True))


def _constant_columns(obs: pd.DataFrame, by: str) -> pd.DataFrame:
    """Take the columns that have one value, or none, in all cells of each unit; a row for each unit."""
    known = obs[obs[by].notna()]
    constant = known.groupby(by, observed=True).nunique(dropna=False).max() <= 1
    first = known.drop_duplicates(by).set_index(by)[list(constant.index[constant])]
    return first.set_axis(first.index.map(str))
