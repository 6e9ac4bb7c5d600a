"""Separation of groups of cells in an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.metrics import davies_bouldin_score, silhouette_score

from nextmarker import _keys
from nextmarker._table import get_table, read_labels, read_representations
from nextmarker.metrics._shared import as_table, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


def separation(
    data: AnnData | SpatialData,
    groupby: str,
    *,
    use_rep: str | Sequence[str] | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure how well groups of cells are separated in each representation.

    Distances are Euclidean, and the values are not scaled. If there are more than 10,000 cells, the silhouette is
    computed on a random sample of about 10,000: of each group in proportion to its size, but at least two cells.

    Parameters
    ----------
    data
        Table with embedded cells, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with the groups, such as clusters or cell types. Cells without a group (NaN or empty) are left
        out.
    use_rep
        Representation to score, or a list of them: a key of `.obsm`, `"X"`, or `"layers/<name>"`, with numbers (cells,
        features). By default all of `"X"`, `"X_interpretability"` and `"X_nextmarker"` that the table has.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed of the random sample.

    Returns
    -------
    One row for each representation, with the columns

    - `representation`
    - `silhouette`: -1 to 1, higher is better
    - `davies_bouldin`: Davies-Bouldin index, 0 or more, lower is better
    - `n_groups`, `n_cells`, and `n_left_out`, the cells without a group

    Raises
    ------
    KeyError
        If the table, a representation or the column is missing.
    ValueError
        If there are fewer than two groups, every cell is a group of its own, or a representation contains anything but
        finite numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"cell_type": ["T", "T", "B", "B"]}, index=["a", "b", "c", "d"])
    >>> adata = AnnData(obs=obs, obsm={"X_nextmarker": np.array([[0.0], [1.0], [10.0], [11.0]])})
    >>> nm.metrics.separation(adata, "cell_type")[["representation", "silhouette", "davies_bouldin"]].round(2)
      representation  silhouette  davies_bouldin
    0   X_nextmarker         0.9             0.1
    """
    adata = get_table(data, table_key)
    known, (groups,) = read_labels(adata, {"groupby": groupby})
    values = read_representations(adata, use_rep, known)
    n_groups = len(groups.categories)
    if not 2 <= n_groups < len(groups):
        msg = f".obs[{groupby!r}] divides {len(groups)} cells into {n_groups} group(s). Choose another: groupby=..."
        raise ValueError(msg)
    chosen = sample(groups, random_state)
    return as_table(
        {
            "representation": name,
            "silhouette": float(silhouette_score(cells[chosen], groups.codes[chosen])),
            "davies_bouldin": float(davies_bouldin_score(cells, groups.codes)),
            "n_groups": n_groups,
            "n_cells": len(groups),
            "n_left_out": int((~known).sum()),
        }
        for name, cells in values.items()
    )
