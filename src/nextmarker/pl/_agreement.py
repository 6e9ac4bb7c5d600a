"""Agreement of two typings of the same cells: confusion matrix, and UMAP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np

from nextmarker import _keys
from nextmarker._errors import listed
from nextmarker._table import get_table, read_labels
from nextmarker.metrics import agreement as score
from nextmarker.metrics import confusion

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

UMAP = "X_umap"
# Okabe and Ito: told apart with any colour vision
GREEN, VERMILION, GREY = "#009E73", "#D55E00", "0.85"
LEAST_SHOWN = 0.005  # smaller shares would be written as 0


def agreement(data: AnnData | SpatialData, label_key: str, groupby: str, *, table_key: str = _keys.TABLE) -> np.ndarray:
    """Draw how well two typings of the same cells agree, and where they differ.

    The matrix shows which types the cells of each type of `label_key` have in `groupby`, in percent of the row; the
    number of cells is at its right. Types that both columns have come first, so the diagonal is agreement. The title
    gives the share of cells with the same type, and Cohen's kappa, which corrects it for chance.

    If the table has a UMAP in `.obsm["X_umap"]`, it is drawn beside the matrix, with agreeing cells in green and others
    in red. Otherwise make one first: `sc.tl.umap(adata, neighbors_key="nextmarker_neighbors")`. For the UMAP in the
    colours of the types, use `sc.pl.umap(adata, color=[label_key, groupby])`.

    Parameters
    ----------
    data
        Table with both typings, or the SpatialData object that contains it.
    label_key
        Column of `.obs` with the types for the rows. Cells without a type in either column are left out, and grey in
        the UMAP.
    groupby
        Column of `.obs` with the types for the columns.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    Axes of the matrix, and of the UMAP if it is drawn, object array (1 or 2,).

    Raises
    ------
    KeyError
        If the table or a column is missing.
    ValueError
        If no cell has both types, or the two columns have no type in common.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> types = {"cell_type": ["T", "T", "T", "B", "B"], "ie_type": ["T", "T", "unsure", "B", "T"]}
    >>> adata = AnnData(obs=pd.DataFrame(types, index=["a", "b", "c", "d", "e"]))
    >>> axes = nm.pl.agreement(adata, "cell_type", "ie_type")
    >>> axes[0].get_title()
    '5 cells: 60.0 % have the same type, kappa 0.29'
    """
    adata = get_table(data, table_key)
    scores = score(adata, label_key, groupby).iloc[0]
    counts = confusion(adata, label_key, groupby)
    if np.isnan(scores["accuracy"]):
        msg = (
            f".obs[{label_key!r}] has {listed(counts.index)}, .obs[{groupby!r}] has {listed(counts.columns)}: no "
            "type in common. Rename the types of one, or use nm.metrics.confusion for clusters."
        )
        raise ValueError(msg)
    axes = _grid(counts.shape, has_umap=UMAP in adata.obsm)
    _draw_matrix(axes[0], counts)
    title = f"{scores['n_cells']:,} cells: {_percent(scores['accuracy'])} have the same type"
    axes[0].set_title(f"{title}, kappa {scores['kappa']:.2f}", fontsize="medium")
    if len(axes) > 1:
        _draw_umap(axes[1], adata, label_key, groupby)
    return axes


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _grid(shape: tuple[int, int], *, has_umap: bool) -> np.ndarray:
    """Axes for the matrix and the UMAP; the cells of the matrix get smaller when there are many."""
    side = np.clip(9 / max(shape), 0.32, 0.6)
    height, width = (max(n * side, 2.0) for n in shape)
    widths = [width + 1.6, float(np.clip(height, 3.5, 5))][: 1 + has_umap]
    _, axes = plt.subplots(
        1,
        len(widths),
        figsize=(sum(widths) + 0.5, max(height + 1.6, 3.5)),
        width_ratios=widths,
        squeeze=False,
        layout="constrained",
    )
    return axes[0]


def _draw_matrix(ax: Axes, counts: pd.DataFrame) -> None:
    """Draw the share of each row, with its number of cells at the right."""
    sizes = counts.sum(axis=1)
    shares = counts.div(sizes, axis=0)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    fontsize = float(np.clip(160 / max(counts.shape), 6, 9))
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        if share >= LEAST_SHOWN:
            ax.text(
                column,
                row,
                f"{100 * share:.0f}",
                ha="center",
                va="center",
                fontsize=fontsize,
                color="white" if share > 0.55 else "0.15",
            )
    ax.set_xticks(range(counts.shape[1]), counts.columns, rotation=90)
    ax.set_yticks(range(counts.shape[0]), counts.index)
    ax.set(xlabel=f"{counts.columns.name}", ylabel=f"{counts.index.name}\n(% of the row)")
    ax.tick_params(length=0, labelsize=fontsize + 1)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(counts.shape[0]), [f"{size:,}" for size in sizes])
    right.set_ylabel("cells", fontsize="small")
    right.tick_params(length=0, labelsize=fontsize)
    for spine in (*ax.spines.values(), *right.spines.values()):
        spine.set_visible(False)
    ax.set_xticks(np.arange(counts.shape[1] + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(counts.shape[0] + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="0.9", linewidth=0.5)
    ax.tick_params(which="minor", length=0)


def _draw_umap(ax: Axes, adata: AnnData, label_key: str, groupby: str) -> None:
    """Draw cells with the same type in green, others in red, in random order so that neither hides the other."""
    known, (labels, groups) = read_labels(adata, {"label_key": label_key, "groupby": groupby})
    same = np.asarray(labels.astype(object)) == np.asarray(groups.astype(object))
    x, y = np.asarray(adata.obsm[UMAP])[:, :2].T
    style: dict[str, Any] = {"s": float(np.clip(20_000 / len(x), 0.5, 15)), "linewidths": 0, "rasterized": True}
    if not known.all():
        ax.scatter(x[~known], y[~known], color=GREY, **style)
        ax.scatter([], [], color=GREY, label=f"without a type: {(~known).sum():,}")
    order = np.random.default_rng(0).permutation(len(same))
    ax.scatter(x[known][order], y[known][order], c=np.where(same, GREEN, VERMILION)[order], **style)
    for name, color, number in (("same type", GREEN, same.sum()), ("other type", VERMILION, (~same).sum())):
        ax.scatter([], [], color=color, label=f"{name}: {number:,}")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize="small", frameon=False)
    ax.set(xticks=[], yticks=[], box_aspect=1)
    ax.set_title(f"UMAP: {label_key}\nand {groupby}", fontsize="medium")
