"""Share of each cluster in each image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from nextmarker import _keys
from nextmarker._errors import listed
from nextmarker._provenance import check_clusters
from nextmarker._table import get_table, refuse_joined, require
from nextmarker.pl._colors import GREY, category_colors
from nextmarker.pl._dots import NONE, draw_legend, key_size

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData


def composition(
    data: AnnData | SpatialData,
    groupby: str = _keys.CLUSTERS,
    *,
    by: str = _keys.IMAGE,
    group_key: str | None = None,
    sort: bool = False,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw the share of each cluster or cell type in each image as stacked bars.

    Parameters
    ----------
    data
        Table of cells, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with clusters or cell types, in scanpy's colours in `.uns[f"{groupby}_colors"]` if they exist.
    by
        Column of `.obs` with one bar for each category, such as the image, sample or patient.
    group_key
        Column of `.obs` with the group of each bar, such as `"group"`: bars of a group are placed together, below its
        name.
    sort
        Place bars of similar composition next to each other (average linkage of the shares), within their group. By
        default they are in the order of the categories.
    table_key
        Name of the table in the SpatialData object.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes, with the first bar at the top. The number of cells follows the name of each bar. Cells without a value in one
    of the columns are shown as "none".

    Warns
    -----
    UserWarning
        If `groupby` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If a bar has cells of several groups, or several images have the same name.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> obs = pd.DataFrame({"image": ["P1", "P1", "P2"], "cell_type": ["T", "B", "T"]}, index=["a", "b", "c"])
    >>> ax = nm.pl.composition(AnnData(obs=obs), "cell_type")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['P1 (2)', 'P2 (1)']
    """
    adata = get_table(data, table_key)
    groups = require(adata, "obs", groupby, "nm.tl.cluster(adata), or choose another: groupby=...").astype("category")
    bars = require(adata, "obs", by, "adata.obs[...] = ..., or choose another: by=...").astype("category")
    if by == _keys.IMAGE:
        refuse_joined(adata, by, "by")
    check_clusters(adata, groupby)
    colors = {NONE: GREY} | {str(name): color for name, color in category_colors(adata, groups).items()}
    counts = _count(bars, groups)
    kinds = _kinds(adata, group_key, bars, by)
    counts = pd.concat([_in_order(counts[kinds.loc[counts.index] == kind], sort) for kind in kinds.cat.categories])
    kinds = kinds.loc[counts.index]
    starts = (kinds != kinds.shift()).to_numpy() & (group_key is not None)
    y = np.arange(len(counts)) + starts.cumsum()  # the name of a group has a line of its own

    if ax is None:
        width, height = key_size(groups)
        _, ax = plt.subplots(figsize=(4.5 + width, max(1 + 0.28 * (y[-1] + 1), height)), layout="constrained")
    shares = counts.div(counts.sum(axis=1), axis=0)
    left = np.zeros(len(counts))
    for name in counts.columns.astype(str):
        ax.barh(y, shares[name], left=left, color=colors[name], height=0.8)
        left += shares[name].to_numpy()
    for row in np.flatnonzero(starts):
        ax.text(0, y[row] - 0.9, kinds.iloc[row], va="center", fontweight="bold")
    ax.set_yticks(y, [f"{name} ({n:,})" for name, n in counts.sum(axis=1).items()])
    ax.set(xlim=(0, 1), ylim=(y[-1] + 0.5, -0.5), xlabel="share of cells", ylabel=f"{by} (cells)")
    ax.spines[["top", "right"]].set_visible(False)
    draw_legend(np.array([ax]), {name: colors[name] for name in counts.columns.astype(str)}, groupby, marker="s")
    return ax


def _count(bars: pd.Series, groups: pd.Series) -> pd.DataFrame:
    """Cells by bar and group, without empty ones."""
    counts = pd.crosstab(_named(bars), _named(groups))
    return counts.rename(index=str, columns=str)


def _kinds(adata: AnnData, group_key: str | None, bars: pd.Series, by: str) -> pd.Series:
    """Group of each bar, categorical, by the name of the bar; the same for all if none is asked for."""
    names = _named(bars)
    if group_key is None:
        return pd.Series("", names.cat.categories, dtype="category")
    groups = _named(require(adata, "obs", group_key, "nm.pp.add_samples(adata, sheet)").astype("category"))
    pairs = pd.DataFrame({"bar": names, "group": groups}).drop_duplicates()
    several = pairs["bar"][pairs["bar"].duplicated()]
    if len(several):
        msg = f"Cells of several groups in {by} {listed(several.unique())}. Draw others: by=... or group_key=..."
        raise ValueError(msg)
    return pairs.set_index(pairs["bar"].astype(str))["group"]


def _in_order(counts: pd.DataFrame, sort: bool) -> pd.DataFrame:
    return counts.iloc[_similar_first(counts)] if sort and len(counts) > 2 else counts


def _named(labels: pd.Series) -> pd.Series:
    """Give cells without a value a category of their own."""
    named = labels.cat.remove_unused_categories().cat.rename_categories(str)
    return named.cat.add_categories(NONE).fillna(NONE) if named.isna().any() else named


def _similar_first(counts: pd.DataFrame) -> np.ndarray:
    shares = counts.div(counts.sum(axis=1), axis=0).to_numpy()
    return leaves_list(linkage(shares, "average", optimal_ordering=True))
