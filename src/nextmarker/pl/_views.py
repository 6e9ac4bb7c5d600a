"""A cell and its views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from nextmarker._errors import no_such

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.colorbar import Colorbar

GAP = 0.12


def views(views: Sequence[xr.DataArray], markers: Sequence[str] | str | None = None) -> np.ndarray:
    """Draw a cell and its views, one row per marker, in raw counts.

    All patches are drawn at the same scale, so a smaller patch shows less of the surroundings of the cell. The colours
    of a row range from zero to its highest count, so the scaling of the counts is visible. A marker that is hidden in a
    view is black.

    Parameters
    ----------
    views
        The cell and its views, from `nm.get.views`.
    markers
        Markers to draw; by default all.

    Returns
    -------
    Axes, object array (markers, 1 + views), with the cell in the first column.

    Raises
    ------
    KeyError
        If the views do not have a marker.
    TypeError
        If `views` was not returned by `nm.get.views`.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> axes = nm.pl.views(nm.get.views(sdata, 17, patch_size=12), markers=["DNA1", "CD3"])
    >>> [ax.get_title().splitlines()[0] for ax in axes[0]]
    ['cell', 'view 1', 'view 2']
    """
    if not (isinstance(views, list) and views and all(isinstance(view, xr.DataArray) for view in views)):
        msg = "Draw the views first: nm.pl.views(nm.get.views(sdata, cell))."
        raise TypeError(msg)
    markers = _choose_markers(views[0]["marker"].to_numpy().tolist(), markers)
    axes = _grid(len(markers), len(views))
    reach = max(view.sizes["x"] for view in views) / 2
    for row, marker in zip(axes, markers, strict=True):
        counts = [view.sel(marker=marker).to_numpy() for view in views]
        bar = _draw_row(row, counts, reach)
        if marker == markers[0]:
            bar.ax.set_title("raw\ncounts", fontsize="x-small")
        row[0].set_ylabel(marker, rotation=0, ha="right", va="center")
    for ax, view in zip(axes[0], views, strict=True):
        ax.set_title(f"{view.name}\n{view.sizes['x']} px", fontsize="small")
    where = views[0].attrs
    axes[0, 0].figure.suptitle(f"cell {where['cell']} in image {where['image']}", fontsize="medium")
    return axes


def _choose_markers(known: list[str], markers: Sequence[str] | str | None) -> list[str]:
    if markers is None:
        return known
    chosen = [markers] if isinstance(markers, str) else list(markers)
    missing = [marker for marker in chosen if marker not in known]
    if missing or not chosen:
        raise KeyError(no_such("marker", missing or chosen, "the views", known, "Choose others: markers=..."))
    return chosen


def _grid(rows: int, columns: int) -> np.ndarray:
    """Axes (rows, columns), with a gap after the first column."""
    _, grid = plt.subplots(
        rows,
        columns + 1,
        figsize=(0.95 * columns + 2, 0.95 * rows + 0.8),
        width_ratios=[1, GAP, *[1] * (columns - 1)],
        squeeze=False,
        layout="compressed",
    )
    for unused in grid[:, 1]:
        unused.remove()
    return np.delete(grid, 1, axis=1)


def _draw_row(row: np.ndarray, counts: Sequence[np.ndarray], reach: float) -> Colorbar:
    highest = max(float(patch.max()) for patch in counts) or 1.0
    for ax, patch in zip(row, counts, strict=True):
        half = len(patch) / 2
        image = ax.imshow(patch, cmap="magma", vmin=0, vmax=highest, extent=(-half, half, half, -half))
        ax.set(xlim=(-reach, reach), ylim=(reach, -reach), xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    bar = row[0].figure.colorbar(image, ax=row.tolist(), aspect=10, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.locator_params(nbins=2)
    bar.ax.tick_params(labelsize="x-small")
    return bar
