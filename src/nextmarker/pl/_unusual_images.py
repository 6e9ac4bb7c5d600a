"""Heatmap of images and markers: where an image differs from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 6.0  # colours end at this z
MARKED = 4.0


def unusual_images(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw by how much each marker is brighter or dimmer in each image than in the others, in the same kinds of cells.

    The colour is `z`, red for brighter; beyond 4 of either sign a dot marks it. Grey could not be compared. Such images
    may have been stained or imaged differently: look at them with `nm.pl.cells` before you compare patients.

    Parameters
    ----------
    table
        From `nm.get.unusual_images`.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes: marker m of image i is at (m, i).

    Raises
    ------
    TypeError
        If `table` was not returned by `nm.get.unusual_images`.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> table = pd.DataFrame({"image": ["P1", "P2"], "marker": "CD3", "z": [0.3, 5.1]}).astype({"image": "category"})
    >>> ax = nm.pl.unusual_images(table.astype({"marker": "category"}))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['P1', 'P2']
    """
    if not (isinstance(table, pd.DataFrame) and {"image", "marker", "z"} <= set(table)):
        msg = "Compute the table first: nm.pl.unusual_images(nm.get.unusual_images(adata))."
        raise TypeError(msg)
    z = table.pivot(index="image", columns="marker", values="z")
    if ax is None:
        _, ax = plt.subplots(figsize=(2.6 + 0.22 * z.shape[1], 1.6 + 0.22 * len(z)), layout="constrained")
    cmap = plt.get_cmap("RdBu_r").with_extremes(bad="0.8")
    colors = ax.imshow(z, cmap=cmap, vmin=-LIMIT, vmax=LIMIT, aspect="auto")
    rows, columns = (z.abs() > MARKED).to_numpy().nonzero()
    ax.scatter(columns, rows, s=8, color="black")
    ax.set_xticks(range(z.shape[1]), z.columns, rotation=90)
    ax.set_yticks(range(len(z)), z.index)
    ax.set(xlabel="marker", ylabel="image")
    ax.figure.colorbar(colors, ax=ax, label="z, in the same\nkinds of cells", extend="both", shrink=0.8)
    return ax
