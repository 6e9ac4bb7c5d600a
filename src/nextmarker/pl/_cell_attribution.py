"""What sets one cell apart: a row of markers, with their counts and their contributions by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

from nextmarker._errors import no_such

if TYPE_CHECKING:
    from collections.abc import Sequence

N_MARKERS = 6


def cell_attribution(attribution: xr.Dataset, markers: Sequence[str] | None = None) -> np.ndarray:
    """Draw the markers that set a cell apart from all others, and where in its patch.

    The upper row shows raw counts, each marker on its own scale, whose range is below the patch. The lower row shows
    from which pixels the contribution of the marker comes, in percent of all contributions: red makes the cell
    different from the mean of all cells, blue more like it. All markers share one scale, which depends on the cell and
    not on the markers drawn. Its darkest colour is the pixel that contributes most, or 100 % spread over all pixels if
    that is more, so that markers without signal remain pale. The title is the contribution of the marker.

    Parameters
    ----------
    attribution
        From `nm.get.cell_attribution`.
    markers
        Markers to draw; by default the six with the largest contributions, positive or negative.

    Returns
    -------
    Axes, object array (2, markers).

    Raises
    ------
    KeyError
        If a marker is missing.
    TypeError
        If `attribution` was not returned by `nm.get.cell_attribution`.

    Examples
    --------
    >>> import numpy as np, xarray as xr, nextmarker as nm
    >>> patch = ("marker", "y", "x"), np.full((1, 4, 4), 1 / 16)
    >>> attribution = xr.Dataset(
    ...     {"counts": patch, "contribution": patch}, {"marker": ["CD3"]}, {"cell": "slide_17", "image": "slide"}
    ... )
    >>> axes = nm.pl.cell_attribution(attribution)
    >>> axes[0, 0].get_title()
    'CD3: 100 %'
    """
    if not (isinstance(attribution, xr.Dataset) and {"counts", "contribution"} <= set(attribution)):
        msg = "Compute the attribution first: nm.pl.cell_attribution(nm.get.cell_attribution(sdata, cell, model))."
        raise TypeError(msg)
    total = attribution["contribution"].sum(("y", "x")).to_series()
    largest = total.reindex(total.abs().sort_values(ascending=False, kind="stable").index)
    chosen = list(largest.index[:N_MARKERS] if markers is None else markers)
    lacking = [marker for marker in chosen if marker not in total.index]
    if lacking:
        raise KeyError(no_such("marker", lacking, "the attribution", total.index, "Choose others: markers=[...]."))
    shown = attribution.sel(marker=chosen)
    percent = 100 * shown["contribution"]
    evenly = 1 / (attribution.sizes["y"] * attribution.sizes["x"])
    highest = 100 * max(float(np.abs(attribution["contribution"]).max()), evenly)

    figure, axes = plt.subplots(
        2, len(chosen), figsize=(1.3 * len(chosen) + 1, 3.3), squeeze=False, layout="compressed"
    )
    for (above, below), marker in zip(axes.T, chosen, strict=True):
        counts = shown["counts"].sel(marker=marker)
        above.imshow(counts, cmap="magma", vmin=0)
        above.set_xlabel(f"0 to {float(counts.max()):g}", fontsize="x-small")
        colors = below.imshow(percent.sel(marker=marker), cmap="RdBu_r", vmin=-highest, vmax=highest)
        above.set_title(f"{marker}: {100 * total[marker]:.0f} %", fontsize="small")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("raw counts", fontsize="small")
    axes[1, 0].set_ylabel("contribution", fontsize="small")
    bar = figure.colorbar(colors, ax=axes[1].tolist(), aspect=10, label="% per pixel")
    bar.ax.tick_params(labelsize="x-small")
    where, width = attribution.attrs, attribution.sizes["x"]
    figure.suptitle(f"cell {where['cell']} in image {where['image']}: {width} x {width} pixels", fontsize="medium")
    return axes
