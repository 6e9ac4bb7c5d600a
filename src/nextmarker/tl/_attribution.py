"""Markers of clusters: mean activation, and the contribution of each marker to the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._contributions import EMBED, MEDIAN, THRESHOLD, attribute, write_attribution
from nextmarker._errors import no_such
from nextmarker._provenance import check_clusters
from nextmarker._record import refuse_foreign_keys
from nextmarker._table import get_table, read_clusters, require

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def marker_attribution(
    data: AnnData | SpatialData,
    *,
    groupby: str = _keys.CLUSTERS,
    threshold: float | Mapping[str, float] | None = None,
    key_added: str = _keys.ATTRIBUTION,
    table_key: str = _keys.TABLE,
) -> None:
    """Compute which markers set each cluster apart.

    The embedding is linear in the interpretability, F = sum over markers of W_m I_m + b. So the difference d between
    the mean embedding of a cluster and that of all other cells can be split exactly: the contribution of marker m is
    d . W_m (mean I_m in the cluster - mean I_m elsewhere) / (d . d). The contributions to a cluster sum to 1. A
    negative contribution makes the cluster more like the other cells. A marker can contribute by being absent: compare
    `mean` and `mean_elsewhere`.

    Parameters
    ----------
    data
        Table with embedding and clusters, or the SpatialData object that contains it.
    groupby
        Clusters, or any other categorical column of `.obs`. Cells without a category are left out.
    threshold
        Activation above which a cell counts as positive: one value, or a dictionary with values of some markers. The
        default is the median of the marker over all cells.
    key_added
        Name of the result.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    `.uns[key_added]` : DataFrame with one row per cluster and marker
        Sorted by cluster, then by contribution, largest first. Columns:

        - `cluster`, `marker`: categorical
        - `n_cells`: size of the cluster
        - `mean`, `mean_elsewhere`: mean activation in the cluster and in all other cells
        - `fraction`: share of the cluster's cells above the threshold
        - `contribution`: share of the marker in the difference of the embedding to that of all other cells; zero if
          there are no other cells or no difference
    `.uns["nextmarker"]["marker_attribution"]`
        A record: `groupby`, the `threshold` of each of `markers` and whether it is the median (`above`), the embedding,
        and some cells of each cluster, by which it is recognized if it is renamed. For another `key_added` it is
        `["marker_attribution_<key_added>"]`.

    Warns
    -----
    UserWarning
        If the clusters were computed from another embedding.

    Raises
    ------
    KeyError
        If the table, its embedding or the column is missing.
    ValueError
        If the column is not categorical or empty, `threshold` has unknown markers, the markers of the table were
        changed after embedding, I, its weights and F do not belong together, cells were embedded by different models,
        or the clusters are from several tables that were clustered separately. The table is not changed.

    Notes
    -----
    The table is long, not wide, since marker names such as "HLA-DR/DP" cannot be column names in a file. The example
    shows how to make a wide table.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> activation = np.array([[0.9, 0.0], [0.1, 0.0], [0.1, 0.4]])  # three cells, each a cluster
    >>> adata = AnnData(
    ...     obs=pd.DataFrame({"nextmarker": pd.Categorical(["0", "1", "2"])}, index=["a", "b", "c"]),
    ...     var=pd.DataFrame(index=["CD3", "CD20"]),
    ...     obsm={"X_nextmarker": activation, "X_interpretability": activation},
    ...     layers={"interpretability": activation},
    ...     varm={"nextmarker_crosstalk": np.eye(2)},
    ... )
    >>> nm.tl.marker_attribution(adata)
    >>> table = adata.uns["marker_attribution"]
    >>> table.pivot(index="cluster", columns="marker", values="contribution").round(2)
    marker    CD3   CD20
    cluster
    0        0.94   0.06
    1        0.80   0.20
    2        0.50   0.50
    """
    adata = get_table(data, table_key)
    clusters = read_clusters(adata, groupby)
    activation = np.asarray(require(adata, "layers", _keys.INTERPRETABILITY, EMBED))
    thresholds = _thresholds(activation, adata.var_names, threshold)
    refuse_foreign_keys(adata, [f"uns/{key_added}"], _keys.ATTRIBUTION)
    check_clusters(adata, groupby, strict=True)
    table = attribute(adata, clusters, thresholds)
    used = dict(zip(adata.var_names, thresholds, strict=True))
    write_attribution(adata, key_added, table, groupby, clusters, used, MEDIAN if threshold is None else THRESHOLD)


def _thresholds(activation: np.ndarray, markers: pd.Index, threshold: float | Mapping[str, float] | None) -> np.ndarray:
    if threshold is not None and not isinstance(threshold, Mapping):
        return np.full(len(markers), float(threshold))
    chosen = dict(threshold or {})
    unknown = [name for name in chosen if name not in markers]
    if unknown:
        raise ValueError(no_such("marker", unknown, "the table", markers, "Choose among these: threshold=..."))
    medians = pd.Series(np.median(activation, axis=0), markers, dtype=float)
    return medians.where(~markers.isin(chosen), markers.map(chosen)).to_numpy()
