"""The most typical cells of each cluster, and those at its border."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from nextmarker import _keys
from nextmarker._errors import check_option, check_value
from nextmarker._provenance import check_clusters
from nextmarker._table import get_table, read_labels, read_representations

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

Which = Literal["typical", "borderline"]
CELLS_AT_ONCE = 65_536


def example_cells(
    data: AnnData | SpatialData,
    n: int = 8,
    *,
    groupby: str = _keys.CLUSTERS,
    which: Which = "typical",
    use_rep: str = _keys.EMBEDDING,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """List the most typical cells of each cluster, or those at its border, to look at them with `nm.pl.patches`.

    Typical cells are nearest to the mean embedding of their cluster. For borderline cells, the mean of another cluster
    is nearest in comparison to that of their own: the margin, the difference of the two distances, is smallest. It is
    negative if the other mean is nearer.

    Parameters
    ----------
    data
        Table with embedded cells, or the SpatialData object that contains it.
    n
        Maximum number of cells per cluster.
    groupby
        Column of `.obs` with the groups: clusters, or any other categories. Cells without a group are left out.
    which
        `"typical"` or `"borderline"`.
    use_rep
        Representation in which to measure Euclidean distances: a key of `.obsm`, `"X"`, or `"layers/<name>"`.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One row for each cell, by its name, in the order of the clusters and, within a cluster, from the most typical, or
    from the smallest margin. Columns:

    - `cluster`
    - `distance` to the mean of the cluster
    - `nearest_other`: the cluster with the nearest mean among all others
    - `margin`: by how much its mean is farther

    Warns
    -----
    UserWarning
        If `groupby` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table, the column or the representation is missing.
    ValueError
        If `which` is unknown, `n` is below 1, no cell has a group, cells were embedded by different models, the
        representation is not finite, or borderline cells are asked for where there is only one group.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"cell_type": ["T", "T", "T", "B"]}, index=["a", "b", "c", "d"])
    >>> adata = AnnData(obs=obs, obsm={"X_nextmarker": np.array([[0.0], [1.0], [5.0], [8.0]])})
    >>> nm.get.example_cells(adata, 1, groupby="cell_type", which="borderline")
      cluster  distance nearest_other  margin
    d       B       0.0             T     6.0
    c       T       3.0             B     0.0
    """
    check_option("which", which, get_args(Which))
    check_value("n", n, n >= 1, "at least 1")
    adata = get_table(data, table_key)
    known, (groups,) = read_labels(adata, {"groupby": groupby})
    if which == "borderline" and len(groups.categories) < 2:
        msg = f".obs[{groupby!r}] has only one group, so there is no border. Choose another: groupby=..."
        raise ValueError(msg)
    check_clusters(adata, groupby)
    (values,) = read_representations(adata, use_rep, known).values()
    table = _measure(values, groups, adata.obs_names[known])
    table = table.sort_values(["cluster", "distance" if which == "typical" else "margin"], kind="stable")
    return table.groupby("cluster", observed=True).head(n)


def _measure(values: np.ndarray, groups: pd.Categorical, names: pd.Index) -> pd.DataFrame:
    """Distance of each cell to the mean of its group, and to the nearest other mean."""
    means = np.stack([values[groups.codes == code].mean(0, dtype=np.float64) for code in range(len(groups.categories))])
    own = np.empty(len(values))
    elsewhere = np.empty(len(values))
    nearest = np.empty(len(values), dtype=int)
    for first in range(0, len(values), CELLS_AT_ONCE):
        rows = slice(first, first + CELLS_AT_ONCE)
        distances = cdist(values[rows], means)
        codes = groups.codes[rows, None]
        own[rows] = np.take_along_axis(distances, codes, axis=1)[:, 0]
        np.put_along_axis(distances, codes, np.inf, axis=1)
        nearest[rows], elsewhere[rows] = distances.argmin(1), distances.min(1)
    if len(means) == 1:
        nearest[:], elsewhere[:] = -1, np.nan
    others = pd.Categorical.from_codes(nearest, dtype=groups.dtype)
    columns = {"cluster": groups, "distance": own, "nearest_other": others, "margin": elsewhere - own}
    return pd.DataFrame(columns, index=names)
