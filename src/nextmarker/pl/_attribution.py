"""Dot plot of clusters and their markers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from nextmarker import _keys
from nextmarker._errors import check_option
from nextmarker._provenance import read_attribution
from nextmarker._table import get_table, read_record, record_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

Method = Literal["activation", "contribution"]


def marker_attribution(
    data: AnnData | SpatialData,
    *,
    method: Method = "activation",
    standard_scale: bool = True,
    key: str = _keys.ATTRIBUTION,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw a dot plot of clusters and markers, with the sizes of the clusters as bars.

    The size of a dot is the fraction of cells of the cluster above the threshold of `nm.tl.marker_attribution`.
    Clusters that were renamed after the attribution are shown with their new names.

    Parameters
    ----------
    data
        Table after `nm.tl.marker_attribution`, or the SpatialData object that contains it.
    method
        What the colour shows: `"activation"`, the mean activation of the marker in the cluster, or `"contribution"`,
        its share in the difference between the cluster's embedding and that of all other cells.
    standard_scale
        Scale the activation of each marker from 0 in its lowest to 1 in its highest cluster, so that weak and strong
        markers can be compared. Contributions are not scaled.
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
        If the table or the attribution does not exist.
    ValueError
        If `method` is unknown, or the cells were embedded or clustered again, or clusters merged, after the
        attribution.

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
    groupby = read_record(adata, record_name(_keys.ATTRIBUTION, key)).get("groupby", "cluster")

    fraction = table.pivot(index="cluster", columns="marker", values="fraction")
    if method == "activation":
        color = table.pivot(index="cluster", columns="marker", values="mean")
        color = _stretch(color) if standard_scale else color
        title = "Mean activation\n(per marker, 0 to 1)" if standard_scale else "Mean activation"
        cmap, lowest, highest = "Reds", 0.0, None
    else:
        color = table.pivot(index="cluster", columns="marker", values="contribution")
        title = "Contribution\n(share)"
        highest = float(color.abs().to_numpy().max()) or 1.0
        cmap, lowest = "RdBu_r", -highest

    cells = _stand_in(table, groupby)
    plot = sc.pl.DotPlot(
        cells,
        cells.var_names,
        groupby,
        dot_color_df=color.loc[:, cells.var_names],
        dot_size_df=fraction.loc[:, cells.var_names],
        num_categories=len(color),
        vmin=lowest,
        vmax=highest,
        ax=ax,
    )
    plot.add_totals(color="0.75").style(cmap=cmap, dot_max=1, largest_dot=150, dot_edge_color="0.3")
    plot.legend(colorbar_title=title, size_title="Cells above\nthreshold (%)")
    axes = plot.get_axes()
    for size in axes["group_extra_ax"].texts:
        size.set(ha="left", position=(3, 10))  # otherwise numbers above a thousand overlap the bars
    axes["mainplot_ax"].set(xlabel="marker", ylabel=groupby)
    return axes["mainplot_ax"]


def _stretch(color: pd.DataFrame) -> pd.DataFrame:
    """Scale each marker to [0, 1]; a marker that is equal in all clusters to 0."""
    return ((color - color.min()) / (color.max() - color.min())).fillna(0)


def _stand_in(table: pd.DataFrame, groupby: str) -> AnnData:
    """Make a table with the right number of cells per cluster, which is all that scanpy needs."""
    sizes = table.groupby("cluster", observed=True)["n_cells"].first()
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    return AnnData(
        sparse.csr_matrix((len(cluster), table["marker"].cat.categories.size), dtype=np.float32),
        obs=pd.DataFrame(
            {groupby: pd.Categorical.from_codes(cluster, sizes.index)}, index=np.arange(len(cluster)).astype(str)
        ),
        var=pd.DataFrame(index=table["marker"].cat.categories.astype(str)),
    )
