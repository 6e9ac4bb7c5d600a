"""Computes which markers set a cluster or a cell apart from all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._provenance import choose_examples
from nextmarker._record import made_from, read_record, record_name, refuse_several_models, write_results
from nextmarker._table import read_features, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

MEDIAN, THRESHOLD = "median", "threshold"  # above which cells count as positive
EMBED = "nm.tl.embed(sdata)"
STORE = "nm.tl.embed(sdata, model, store_features=True)"
JOIN = f"{EMBED}, or keep it when joining tables: anndata.concat(tables, merge='same')"
LEAST_SHARE = 0.02  # contribution below which a marker is not named among those that set a cluster apart
SAMPLE = 10_000  # cells for which F is compared with I


def attribute(adata: AnnData, clusters: pd.Categorical, thresholds: np.ndarray) -> pd.DataFrame:
    """Compute the attribution of clusters to markers, the table of `nm.tl.marker_attribution`.

    Parameters
    ----------
    thresholds
        Activation of each marker above which a cell is positive, (markers,).

    Raises
    ------
    KeyError
        If a part of the embedding is missing.
    ValueError
        If its parts do not belong together.
    """
    activation, features, crosstalk = read_embedding(adata)
    sizes = np.bincount(clusters.codes[clusters.codes >= 0])
    mean = _means(activation, clusters)
    mean_features = _means(features, clusters)
    tables = {
        "mean": mean,
        "mean_elsewhere": _elsewhere(mean, sizes),
        "fraction": _means(activation > thresholds, clusters),
        "contribution": contributions(mean_features - _elsewhere(mean_features, sizes), crosstalk).sum(axis=2),
    }
    return _as_rows(tables, sizes, clusters.categories, adata.var_names)


def raised_markers(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of an attribution whose marker is higher in the cluster than elsewhere and contributes notably."""
    return table[(table["mean"] > table["mean_elsewhere"]) & (table["contribution"] >= LEAST_SHARE)]


def write_attribution(
    adata: AnnData,
    key_added: str,
    table: pd.DataFrame,
    groupby: str,
    clusters: pd.Categorical,
    thresholds: Mapping[str, float],
    above: str,
) -> None:
    """Write an attribution of `.obs[groupby]`, and its record; `above` says in words what the thresholds are."""
    record = {
        "groupby": groupby,
        "threshold": np.array(list(thresholds.values())),
        "markers": np.array(list(thresholds), dtype=object),
        "above": above,
        "examples": choose_examples(clusters, adata.obs_names),
        "clustering": read_record(adata, record_name(_keys.CLUSTER_STEP, groupby)).get("clustering"),
        **made_from(adata),
    }
    write_results(adata, record_name(_keys.ATTRIBUTION, key_added), {f"uns/{key_added}": table}, record)


def read_embedding(adata: AnnData) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read activation (cells, markers), I (cells, markers, features) and W (markers, embedding, features)."""
    refuse_several_models(adata)
    activation = np.asarray(require(adata, "layers", _keys.INTERPRETABILITY, EMBED))
    require(adata, "obsm", _keys.INTERPRETABILITY_FEATURES, STORE)
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


def contributions(difference: np.ndarray, crosstalk: np.ndarray) -> np.ndarray:
    """Split a difference of embeddings among the features that it comes from.

    Parameters
    ----------
    difference
        Differences of I, (clusters, markers, features).
    crosstalk
        W, (markers, embedding, features).

    Returns
    -------
    (clusters, markers, features), with sum 1 in each cluster; 0 if there is no difference.
    """
    total = np.einsum("cmf,mef->ce", difference, crosstalk)
    shares = difference * np.einsum("ce,mef->cmf", total, crosstalk)
    length = (total**2).sum(axis=1)[:, None, None]
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
