"""Top markers of each cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextmarker import _keys
from nextmarker._contributions import raised_markers
from nextmarker._provenance import read_attribution
from nextmarker._table import get_table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


def top_markers(
    data: AnnData | SpatialData, n: int = 3, *, key: str = _keys.ATTRIBUTION, table_key: str = _keys.TABLE
) -> pd.DataFrame:
    """List the markers whose presence distinguishes each cluster from all other cells.

    Parameters
    ----------
    data
        Table after `nm.tl.marker_attribution`, or the SpatialData object that contains it.
    n
        Maximum number of markers per cluster: those with the largest contribution, of at least 2 %, among the markers
        whose mean activation is higher in the cluster than elsewhere.
    key
        Name of the attribution in `.uns`.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    Rows of `.uns[key]`, in the order of the clusters and, within a cluster, from the largest contribution. Clusters
    that were renamed after the attribution have their new names.

    Warns
    -----
    UserWarning
        If some cells were removed from the table after the attribution.

    Raises
    ------
    KeyError
        If the table or the attribution does not exist.
    ValueError
        If the cells were embedded or clustered again, or clusters merged, after the attribution.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> table = pd.DataFrame({"cluster": ["0", "0"], "marker": ["CD8", "CD20"], "contribution": [0.7, 0.3]})
    >>> adata = AnnData(uns={"marker_attribution": table.assign(mean=[0.2, 0.8], mean_elsewhere=[0.5, 0.1])})
    >>> nm.get.top_markers(adata, n=1)["marker"].tolist()
    ['CD20']
    """
    table = read_attribution(get_table(data, table_key), key)
    return raised_markers(table).groupby("cluster", observed=True).head(n).reset_index(drop=True)
