"""Heatmap of clusters and cell types, with the types chosen and the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from nextmarker import _keys
from nextmarker._provenance import read_annotation
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

CHOSEN = "#D55E00"
LONGEST = 24  # characters of a condition
SHOWN = 0.1  # scores that are written out


def annotation(
    data: AnnData | SpatialData,
    *,
    key: str = _keys.CELL_TYPE,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw how well each cluster fits each cell type, what it was named, and why.

    The colour is the score of the cluster for the type; scores from 0.1 are written out. A box marks the types that
    gave the cluster its name. On the right are the name, the margin to the next type and the condition of the
    signature that fits worst; then, if 25 % or more of the cells fit another type by themselves, that type. Where an
    expert chose the name, the name by signatures is in brackets.

    Parameters
    ----------
    data
        Table after `nm.tl.annotate`, or the SpatialData object that contains it.
    key
        Name of the annotation, the `key_added` of `nm.tl.annotate`.
    table_key
        Name of the table in the SpatialData object.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes: cluster c and type t are at (t, c), in the order of the table.

    Raises
    ------
    KeyError
        If the table or the annotation does not exist.
    ValueError
        If clusters or types were changed after the annotation.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> activation = np.repeat([[0.9, 0.1], [0.0, 0.8]], 20, axis=0)
    >>> adata = AnnData(
    ...     obs=pd.DataFrame({"nextmarker": pd.Categorical(np.repeat(["0", "1"], 20))}, np.arange(40).astype(str)),
    ...     var=pd.DataFrame(index=["CD3", "CD20"]),
    ...     layers={"interpretability": activation},
    ... )
    >>> nm.tl.annotate(adata, {"T cell": "CD3+ CD20-", "B cell": "CD20+ CD3-"})
    >>> ax = nm.pl.annotation(adata)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['T cell', 'B cell']
    """
    adata = get_table(data, table_key)
    clusters, _ = read_annotation(adata, key)
    long = require(adata, "uns", f"{key}_scores", "nm.tl.annotate(adata, signatures)")
    scores = long.pivot(index="cluster", columns="cell_type", values="score").loc[
        clusters["cluster"].to_numpy(), long["cell_type"].drop_duplicates().to_numpy()
    ]
    if ax is None:
        height, width = 1.6 + 0.28 * len(scores), 5.5 + 0.42 * scores.shape[1]
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    colors = ax.imshow(scores, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), score in np.ndenumerate(scores.to_numpy()):
        if score >= SHOWN:
            color = "white" if score > 0.6 else "black"
            text = f"{score:.2f}".removeprefix("0")
            ax.text(column, row, text, color=color, fontsize="x-small", ha="center", va="center")
    for row, cluster in enumerate(clusters.to_dict("records")):
        for column in _chosen(cluster, list(scores.columns)):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=CHOSEN, linewidth=1.5))
        ax.text(1.02, row, _reason(cluster), transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    names = [f"{cluster} ({size:,})" for cluster, size in zip(clusters["cluster"], clusters["n_cells"], strict=True)]
    ax.set_xticks(range(scores.shape[1]), scores.columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(scores)), names)
    ax.set_ylabel("cluster (cells)")
    ax.figure.colorbar(colors, ax=ax, location="top", label="score", shrink=0.5, aspect=30)
    return ax


def _chosen(cluster: Mapping[Any, Any], types: Sequence[str]) -> list[int]:
    """Positions of the types that gave a cluster its name by signatures."""
    name = cluster["overruled"] or cluster["cell_type"]
    names = {name, *name.split(_keys.OR)}
    return [position for position, name in enumerate(types) if name in names]


def _reason(cluster: Mapping[Any, Any]) -> str:
    """Say what a cluster is named and why."""
    before = f" ({cluster['overruled']})" if cluster["overruled"] else ""
    mixed = f", {100 * cluster['other_share']:.0f} % {cluster['other']}" if cluster["mixed"] else ""
    weakest = cluster["weakest"] if len(cluster["weakest"]) <= LONGEST else f"{cluster['weakest'][: LONGEST - 1]}…"
    return f"{cluster['cell_type']}{before}: margin {cluster['margin']:.2f}, weakest {weakest}{mixed}"
