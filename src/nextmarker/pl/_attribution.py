"""Dot plot of clusters and their markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from scipy.cluster.hierarchy import dendrogram as lay_out
from scipy.cluster.hierarchy import leaves_list, linkage

from nextmarker import _keys
from nextmarker._errors import check_each_once, check_option, no_such
from nextmarker._provenance import read_attribution
from nextmarker._record import read_record, record_name
from nextmarker._table import get_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

Method = Literal["activation", "contribution"]
ROW, COLUMN, COLOR_BAR, KEY_WIDTH = 0.28, 0.28, 1.5, 2.4
"""Height of a row, width of a column, length of the colour bar, and width of the key to the sizes, in inches."""
LARGEST_DOT = 150
"""Area of a dot in square points if all cells are positive, as in scanpy."""


def marker_attribution(
    data: AnnData | SpatialData,
    *,
    method: Method = "activation",
    standard_scale: bool = True,
    markers: Sequence[str] | None = None,
    dendrogram: bool = False,
    key: str = _keys.ATTRIBUTION,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw a dot plot of clusters and markers, with the sizes of the clusters as bars.

    The size of a dot is the fraction of cells of the cluster above the median of the marker over all cells, or above
    the `threshold` that was given to `nm.tl.marker_attribution`; the legend says which.
    Clusters that were renamed after the attribution are shown with their new names.

    Parameters
    ----------
    data
        Table after `nm.tl.marker_attribution`, or the SpatialData object that contains it.
    method
        What the colour shows: `"activation"`, the mean activation of the marker in the cluster, or `"contribution"`,
        its share in the difference between the cluster's embedding and that of all other cells, in percent.
    standard_scale
        Scale the activation of each marker from 0 in its lowest to 1 in its highest cluster, so that weak and strong
        markers can be compared. Contributions are not scaled.
    markers
        Markers to draw, in this order; by default all in the order of the table.
    dendrogram
        Order the clusters by similarity, and draw their dendrogram: average linkage of the Euclidean distances between
        the mean activations of the markers drawn, each scaled from 0 to 1.
    key
        Name of the attribution in `.uns`.
    table_key
        Name of the table in the SpatialData object.
    ax
        Axes to replace with the plot; by default a new figure.

    Returns
    -------
    Axes of the dots: marker m of cluster c is at (m + 0.5, c + 0.5). Bars and legends have their own Axes in the same
    figure.

    Raises
    ------
    KeyError
        If the table, the attribution or a marker does not exist.
    ValueError
        If `method` is unknown, a marker is named twice, or the cells were embedded or clustered again, or clusters
        merged, after the attribution.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> table = pd.DataFrame(
    ...     {
    ...         "cluster": pd.Categorical(["0", "0", "1", "1"]),
    ...         "marker": pd.Categorical(["CD3", "CD20", "CD3", "CD20"]),
    ...         "n_cells": [60, 60, 40, 40],
    ...         "mean": [0.7, 0.1, 0.0, 0.4],
    ...         "fraction": [0.9, 0.2, 0.0, 0.8],
    ...     }
    ... )
    >>> ax = nm.pl.marker_attribution(AnnData(uns={"marker_attribution": table}))
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['CD20', 'CD3']
    """
    adata = get_table(data, table_key)
    check_option("method", method, get_args(Method))
    table = read_attribution(adata, key)
    record = read_record(adata, record_name(_keys.ATTRIBUTION, key))
    shown = _choose_markers(table, markers)
    profiles = _stretch(_widen(table, "mean")[shown])
    tree = linkage(profiles, "average", optimal_ordering=True) if dendrogram and len(profiles) > 1 else None
    clusters = profiles.index if tree is None else profiles.index[leaves_list(tree)]

    if method == "contribution":
        values, label, color_map = 100 * _widen(table, "contribution"), "contribution (%)", "RdBu_r"
    elif standard_scale:
        values, label, color_map = profiles, "mean activation\n(per marker, 0 to 1)", "Reds"
    else:
        values, label, color_map = _widen(table, "mean"), "mean activation", "Reds"
    values = values.loc[clusters, shown]
    highest = float(values.abs().to_numpy().max()) or 1.0
    colors = ScalarMappable(Normalize(-highest if method == "contribution" else 0, highest), color_map)

    dots, branches, bars = _grid(len(clusters), len(shown), tree, ax)
    _draw_dots(dots, values, _widen(table, "fraction").loc[clusters, shown], colors)
    _draw_key(dots, f"cells above the {record.get('above', 'threshold')} (%)")
    _draw_tree(branches, tree)
    _draw_sizes(bars, table.groupby("cluster", observed=True)["n_cells"].first().loc[clusters])
    dots.set(xlabel="marker", ylabel=record.get("groupby", "cluster"))
    bar = dots.figure.colorbar(
        colors, ax=bars, anchor=(0, 1), shrink=min(COLOR_BAR / (ROW * len(clusters)), 1), aspect=12
    )
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(labelsize="small")
    return dots


def _choose_markers(table: pd.DataFrame, markers: Sequence[str] | None) -> list[str]:
    known = table["marker"].cat.categories.astype(str).tolist()
    if markers is None:
        return known
    check_each_once("markers", markers)
    unknown = [name for name in markers if name not in known]
    if unknown:
        raise KeyError(no_such("marker", unknown, "the attribution", known, "Choose others: markers=[...]."))
    return list(markers)


def _widen(table: pd.DataFrame, values: str) -> pd.DataFrame:
    """One row for each cluster, one column for each marker."""
    return table.pivot(index="cluster", columns="marker", values=values)


def _stretch(means: pd.DataFrame) -> pd.DataFrame:
    """Scale each marker to [0, 1]; a marker that is equal in all clusters to 0."""
    return ((means - means.min()) / (means.max() - means.min())).fillna(0)


def _grid(n_clusters: int, n_markers: int, tree: np.ndarray | None, ax: Axes | None) -> list[Axes]:
    """Axes of dots, dendrogram and bars, with one row for each cluster, the first at the top."""
    widths = [max(COLUMN * n_markers, KEY_WIDTH), 0.05 if tree is None else 0.4, 1.0]
    if ax is None:
        size = (sum(widths) + 2, max(ROW * n_clusters, COLOR_BAR) + 1.6)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    figure, box = ax.figure, ax.get_position()
    place = ax.get_subplotspec() or figure.add_gridspec(1, 1, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1)[0]
    ax.remove()
    grid = place.subgridspec(1, 3, width_ratios=widths, wspace=0.02)
    dots = figure.add_subplot(grid[0])
    others = [figure.add_subplot(grid[column], sharey=dots) for column in (1, 2)]
    for other in others:
        other.set_axis_off()
    dots.set(xlim=(0, n_markers), ylim=(n_clusters, 0))
    return [dots, *others]


def _draw_dots(ax: Axes, values: pd.DataFrame, fractions: pd.DataFrame, colors: ScalarMappable) -> None:
    """Draw one dot for each cluster and marker."""
    y, x = np.indices(values.shape).reshape(2, -1) + 0.5
    faces = colors.to_rgba(values.to_numpy().ravel())
    style: dict[str, Any] = {"edgecolors": "0.3", "linewidths": 0.4}
    ax.scatter(x, y, s=_area(fractions.to_numpy().ravel()), c=faces, **style)
    ax.set_xticks(np.arange(values.shape[1]) + 0.5, values.columns, rotation=90)
    ax.set_yticks(np.arange(values.shape[0]) + 0.5, values.index)


def _draw_key(ax: Axes, title: str) -> None:
    """Explain the sizes of the dots, above them."""
    keys = [
        Line2D(
            [], [], marker="o", linestyle="", color="0.5", markersize=np.sqrt(_area(share)), label=f"{100 * share:g}"
        )
        for share in (0.2, 0.4, 0.6, 0.8, 1)
    ]
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    spacing: dict[str, Any] = {"ncols": 5, "columnspacing": 0.8, "handletextpad": 0.2, "frameon": False}
    ax.legend(handles=keys, title=title, fontsize="small", title_fontsize="small", **place, **spacing)


def _area(share: Any) -> Any:
    """Area of a dot in square points."""
    return LARGEST_DOT * share**1.5


def _draw_tree(ax: Axes, tree: np.ndarray | None) -> None:
    if tree is None:
        return
    drawn = lay_out(tree, no_plot=True)
    for heights, places in zip(drawn["dcoord"], drawn["icoord"], strict=True):
        ax.plot(heights, np.divide(places, 10), color="0.3", linewidth=0.8)  # scipy's leaves are ten apart


def _draw_sizes(ax: Axes, sizes: pd.Series) -> None:
    bars = ax.barh(np.arange(len(sizes)) + 0.5, sizes, color="0.75", edgecolor="0.3", height=0.65)
    ax.bar_label(bars, [f"{size:,}" for size in sizes], padding=2, fontsize="x-small")
    ax.set_xlim(0, 2 * sizes.max())  # room for the numbers
