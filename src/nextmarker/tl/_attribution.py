"""Markers of clusters: mean activation, and the contribution of each marker to the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._provenance import check_clusters, choose_examples
from nextmarker._table import (
    get_table,
    made_from,
    read_clusters,
    read_features,
    read_record,
    record_name,
    refuse_foreign_keys,
    refuse_several_models,
    require,
    write_results,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

EMBED = "nm.tl.embed(sdata)"
JOIN = f"{EMBED}, or keep it when joining tables: anndata.concat(tables, merge='same')"
SAMPLE = 10_000  # cells for which F is compared with I


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
        A record: `groupby`, the `threshold` of each of `markers`, the embedding, and some cells of each cluster, by
        which it is recognized if it is renamed. For another `key_added` it is `["marker_attribution_<key_added>"]`.

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
    activation, features, crosstalk = _read_embedding(adata)
    clusters = read_clusters(adata, groupby)
    thresholds = _thresholds(activation, adata.var_names, threshold)
    refuse_foreign_keys(adata, [f"uns/{key_added}"])
    check_clusters(adata, groupby, strict=True)

    sizes = np.bincount(clusters.codes[clusters.codes >= 0])
    mean = _means(activation, clusters)
    mean_features = _means(features, clusters)
    tables = {
        "mean": mean,
        "mean_elsewhere": _elsewhere(mean, sizes),
        "fraction": _means(activation > thresholds, clusters),
        "contribution": _contributions(mean_features - _elsewhere(mean_features, sizes), crosstalk),
    }
    record = {
        "groupby": groupby,
        "threshold": thresholds,
        "markers": adata.var_names.to_numpy(dtype=object),
        "examples": choose_examples(clusters, adata.obs_names),
        "clustering": read_record(adata, record_name(_keys.CLUSTER_STEP, groupby)).get("clustering"),
        **made_from(adata),
    }
    rows = _as_rows(tables, sizes, clusters.categories, adata.var_names)
    write_results(adata, record_name(_keys.ATTRIBUTION, key_added), {f"uns/{key_added}": rows}, record)


def _read_embedding(adata: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read activation (cells, markers), I (cells, markers, features) and W (markers, embedding, features)."""
    refuse_several_models(adata)
    activation = np.asarray(require(adata, "layers", _keys.INTERPRETABILITY, EMBED))
    require(adata, "obsm", _keys.INTERPRETABILITY_FEATURES, EMBED)
    embedding = np.asarray(require(adata, "obsm", _keys.EMBEDDING, EMBED))
    weights = np.asarray(require(adata, "varm", _keys.CROSSTALK, JOIN))
    n_features = weights.shape[1] // embedding.shape[1]
    features = read_features(adata, n_features).reshape(adata.n_obs, adata.n_vars, n_features)
    crosstalk = weights.reshape(adata.n_vars, embedding.shape[1], n_features)
    _refuse_other_weights(embedding, features, crosstalk)
    return activation, features, crosstalk


def _refuse_other_weights(embedding: np.ndarray, features: np.ndarray, crosstalk: np.ndarray) -> None:
    """Raise an error if the weights are from another model: F = sum of W_m I_m + b, with one b for all cells."""
    rows = np.unique(np.linspace(0, len(embedding) - 1, SAMPLE).astype(int))
    flat = features[rows].reshape(len(rows), -1)
    weights = crosstalk.transpose(0, 2, 1).reshape(flat.shape[1], -1)
    bias = embedding[rows] - flat @ weights
    if not (np.ptp(bias, axis=0) <= 1e-3 * (np.abs(flat) @ np.abs(weights)).max()).all():
        places = (
            f".obsm[{_keys.EMBEDDING!r}], .obsm[{_keys.INTERPRETABILITY_FEATURES!r}] and .varm[{_keys.CROSSTALK!r}]"
        )
        msg = f"{places} do not belong together: one is from another model. Embed again: {EMBED}."
        raise ValueError(msg)


def _thresholds(activation: np.ndarray, markers: pd.Index, threshold: float | Mapping[str, float] | None) -> np.ndarray:
    if threshold is not None and not isinstance(threshold, Mapping):
        return np.full(len(markers), float(threshold))
    chosen = dict(threshold or {})
    unknown = [name for name in chosen if name not in markers]
    if unknown:
        raise ValueError(no_such("marker", unknown, "the table", markers, "Choose among these: threshold=..."))
    medians = pd.Series(np.median(activation, axis=0), markers, dtype=float)
    return medians.where(~markers.isin(chosen), markers.map(chosen)).to_numpy()


def _means(values: np.ndarray, clusters: pd.Categorical) -> np.ndarray:
    """Average over the cells of each cluster, float64 (clusters, ...)."""
    return np.stack(
        [values[clusters.codes == code].mean(axis=0, dtype=np.float64) for code in range(len(clusters.categories))]
    )


def _elsewhere(mean: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Average over all other cells, from the averages of the clusters; NaN if there are none."""
    if len(sizes) == 1:
        return np.full_like(mean, np.nan)
    others = np.where(np.eye(len(sizes), dtype=bool), 0, sizes) / (sizes.sum() - sizes)[:, None]
    return np.tensordot(others, mean, axes=1)


def _contributions(difference: np.ndarray, crosstalk: np.ndarray) -> np.ndarray:
    """Split the difference of the mean embeddings among the markers, (clusters, markers)."""
    by_marker = np.einsum("cmf,mef->cme", difference, crosstalk)
    total = by_marker.sum(axis=1)
    shares = np.einsum("cme,ce->cm", by_marker, total)
    length = (total**2).sum(axis=1, keepdims=True)
    return np.divide(shares, length, out=np.zeros_like(shares), where=length > 0)


def _as_rows(tables: Mapping[str, np.ndarray], sizes: np.ndarray, names: pd.Index, markers: pd.Index) -> pd.DataFrame:
    cluster, marker = (codes.ravel() for codes in np.indices((len(names), len(markers))))
    rows = pd.DataFrame(
        {
            "cluster": pd.Categorical.from_codes(cluster, names),
            "marker": pd.Categorical.from_codes(marker, markers),
            "n_cells": sizes[cluster],
            **{name: table.ravel() for name, table in tables.items()},
        }
    )
    rows = rows.sort_values(["cluster", "contribution"], ascending=[True, False], kind="stable", ignore_index=True)
    return rows.set_axis(rows.index.astype(str))  # as it is read from files
