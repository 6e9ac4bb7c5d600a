"""Example cells of each cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from dask.base import compute
from matplotlib.colors import to_rgb
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke

from nextmarker import _keys
from nextmarker._contributions import raised_markers
from nextmarker._errors import check_value, no_such
from nextmarker._palette import CHANNEL_COLORS
from nextmarker._provenance import check_clusters, read_attribution
from nextmarker._regions import read_regions
from nextmarker._table import get_table, require
from nextmarker.pl._overlay import bar_length
from nextmarker.pl._pixels import add_up, check_channels, choose_limits, choose_patch_size, scale

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import xarray as xr
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from nextmarker._regions import Region

COLORS = CHANNEL_COLORS[:3]
LETTER = 5.0  # width of a small letter, in points
SHORTEST = len("100,000 cells")
NO_MARKER = "no marker stands out"


def patches(
    sdata: SpatialData,
    *,
    groupby: str = _keys.CLUSTERS,
    n: int = 8,
    cells: Sequence[str] | Sequence[int] | Sequence[bool] | None = None,
    markers: Sequence[str] | None = None,
    size: int | None = None,
    key: str = _keys.ATTRIBUTION,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> np.ndarray:
    """Draw random or chosen cells of each cluster, with up to three markers in colour.

    The pixels are not resampled, and patches are black beyond the edge of the image. The brightness of each marker is
    scaled to the 99.5th percentile of its pixels in all patches drawn. Only the patches are read. A scale bar is drawn
    if the pixel size is known.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    groupby
        Column of `.obs` with the groups: clusters, or any other categories.
    n
        Maximum number of random cells per cluster.
    cells
        Cells to draw instead of random ones, each in the row of its cluster: names in `.obs_names`, row numbers, or
        True and False for all cells. `nm.get.example_cells` lists the most typical cells, and those at the border
        between clusters.
    markers
        One to three markers to draw in every row. By default the top markers of each cluster: the three with the
        largest contribution, of at least 2 %, among those with higher activation in the cluster than elsewhere.
    size
        Width of a patch in pixels; by default the patch size of the embedding.
    key
        Name of the attribution in `.uns` from which the top markers are taken.
    table_key
        Name of the table.
    random_state
        Seed for choosing the cells.

    Returns
    -------
    Axes, one per cluster with a row of patches, object array (clusters,). Clusters without a chosen cell have no row.

    Raises
    ------
    KeyError
        If the table, the column, the attribution, a cell, a marker or the patch size is missing.
    ValueError
        If there are more than three markers, the attribution belongs to other clusters, or chosen cells have no
        cluster or a name that others share.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> axes = nm.pl.patches(sdata, groupby="image", markers=["DNA1", "CD3"], size=20)
    >>> axes[-1].get_xlabel()
    'image: patches of 20 x 20 pixels, bar 10 µm'
    """
    adata = get_table(sdata, table_key)
    regions = read_regions(sdata, table_key)
    clusters = _read_clusters(adata, groupby)
    check_clusters(adata, groupby)
    shown = _choose_markers(adata, clusters, markers, key, groupby)
    rows = _draw_lots(clusters, n, random_state) if cells is None else _sort_cells(clusters, _find_cells(adata, cells))
    channels = list(dict.fromkeys(marker for name in rows for marker in shown[name]))
    check_channels(regions, channels, "markers")
    side, steps = choose_patch_size(adata, regions, size)

    pixels = _read_patches(regions, np.concatenate(list(rows.values())), channels, side, steps)
    limits = choose_limits(None, channels, list(pixels.values()))
    colors = np.array([to_rgb(color) for color in COLORS])

    widest = max(map(len, rows.values()))
    away = 14 + LETTER * max(len(marker) for name in rows for marker in shown[name] or [NO_MARKER])
    axes = _grid(rows, widest, away)
    for ax, (name, own) in zip(axes, rows.items(), strict=True):
        drawn = [channels.index(marker) for marker in shown[name]]
        scaled = [scale(pixels[row][drawn], limits[drawn]) for row in own]
        _draw_row(ax, [add_up(patch, colors[: len(drawn)]) for patch in scaled], widest)
        _write_label(ax, f"{name}\n{(clusters == name).sum():,} cells", shown[name], away)
    bar = _draw_scale_bar(axes[-1], side, _pixel_size(regions, steps))
    axes[-1].set_xlabel(f"{groupby}: patches of {side} x {side} pixels{bar}", fontsize="small")
    return axes


def _read_clusters(adata: AnnData, groupby: str) -> pd.Series:
    labels = require(adata, "obs", groupby, "nm.tl.cluster(adata), or choose another: groupby=...")
    return labels.astype("category").cat.remove_unused_categories()


def _choose_markers(
    adata: AnnData, clusters: pd.Series, markers: Sequence[str] | None, key: str, groupby: str
) -> dict[object, list[str]]:
    """Choose up to three markers for each cluster."""
    names = clusters.cat.categories
    if markers is not None:
        check_value("markers", list(markers), 1 <= len(markers) <= len(COLORS), "one to three")
        return {name: list(markers) for name in names}
    table = read_attribution(adata, key, groupby, ", or choose the markers to draw: markers=[...]")
    raised = raised_markers(table)
    return {name: raised.loc[raised["cluster"] == str(name), "marker"].head(len(COLORS)).tolist() for name in names}


def _draw_lots(clusters: pd.Series, n: int, random_state: int) -> dict[object, np.ndarray]:
    """Choose up to n random cells of each cluster."""
    rng = np.random.default_rng(random_state)
    members = {name: np.flatnonzero(clusters == name) for name in clusters.cat.categories}
    return {name: np.sort(rng.choice(rows, min(n, len(rows)), replace=False)) for name, rows in members.items()}


def _find_cells(adata: AnnData, cells: Sequence[str] | Sequence[int] | Sequence[bool]) -> np.ndarray:
    """Row numbers of chosen cells, in the order in which they are given."""
    chosen = np.asarray(cells)
    check_value("cells", cells, chosen.ndim == 1 and chosen.size > 0, "a list of cells")
    if chosen.dtype == bool:
        check_value(
            "cells", cells, len(chosen) == adata.n_obs and bool(chosen.any()), f"{adata.n_obs} times True or False"
        )
        return np.flatnonzero(chosen)
    if chosen.dtype.kind in "iu":
        inside = ((chosen >= 0) & (chosen < adata.n_obs)).all()
        check_value("cells", cells, bool(inside), f"names, or row numbers from 0 to {adata.n_obs - 1}")
        return chosen
    unknown = [str(name) for name in chosen if name not in adata.obs_names]
    if unknown:
        raise KeyError(no_such("cell", unknown, "the table", adata.obs_names, "Choose others: cells=[...]."))
    if adata.obs_names.isin(chosen).sum() > len(set(chosen)):
        msg = "Several cells have one of these names. Make names unique: adata.obs_names_make_unique()."
        raise ValueError(msg)
    return adata.obs_names.get_indexer_for(chosen)


def _sort_cells(clusters: pd.Series, rows: np.ndarray) -> dict[object, np.ndarray]:
    """Sort chosen cells by cluster."""
    own = clusters.iloc[rows]
    if own.isna().any():
        first = own.index[own.isna()][0]
        msg = f"{own.isna().sum()} of the chosen cells have no value in .obs[{clusters.name!r}], first {first!r}."
        raise ValueError(msg)
    return {name: rows[(own == name).to_numpy()] for name in clusters.cat.categories if (own == name).any()}


def _pixel_size(regions: Sequence[Region], steps: Sequence[float]) -> float | None:
    """Micrometres per pixel of a patch, if the same in all images."""
    sizes = [(region.pixel_size or 0) * step for region, step in zip(regions, steps, strict=True)]
    return sizes[0] if all(sizes) and np.allclose(sizes, sizes[0]) else None


def _read_patches(
    regions: Sequence[Region], rows: np.ndarray, channels: list[str], side: int, steps: Sequence[float]
) -> dict[int, np.ndarray]:
    """Read the patches of some cells, by row of the table: (channels, side, side)."""
    patches = {}
    for region, step in zip(regions, steps, strict=True):
        pixels = region.pixels.sel(c=channels)
        chosen = np.isin(region.rows, rows)
        grids = [_pixel_grid(centre, side, step) for centre in region.centres[chosen]]
        windows = [pixels.isel(y=_span(y, pixels.sizes["y"]), x=_span(x, pixels.sizes["x"])).data for x, y in grids]
        # all at once, so that each chunk is read only once
        for row, (x, y), window in zip(region.rows[chosen], grids, compute(*windows), strict=True):
            patches[row] = _place(window, x, y, pixels)
    return patches


def _pixel_grid(centre: np.ndarray, side: int, step: float) -> np.ndarray:
    """Columns and rows of a patch in the image, (2, side)."""
    offsets = (np.arange(side) - (side - 1) / 2) * step
    return np.floor(centre[:, None] + offsets).astype(int)


def _span(indices: np.ndarray, length: int) -> slice:
    return slice(max(indices[0], 0), max(min(indices[-1] + 1, length), 0))


def _place(window: np.ndarray, x: np.ndarray, y: np.ndarray, pixels: xr.DataArray) -> np.ndarray:
    """Place the pixels that were read into a patch, zero beyond the image."""
    patch = np.zeros((len(window), len(y), len(x)), dtype=np.float32)
    in_y, in_x = (y >= 0) & (y < pixels.sizes["y"]), (x >= 0) & (x < pixels.sizes["x"])
    picked = window[:, (y[in_y] - max(y[0], 0))[:, None], x[in_x] - max(x[0], 0)]
    patch[:, in_y[:, None] & in_x] = picked.reshape(len(window), -1)
    return patch


def _grid(names: Collection[object], n: int, away: float) -> np.ndarray:
    layout = ConstrainedLayoutEngine(hspace=0, h_pad=0.02)
    labels = (away + 1.2 * LETTER * max(SHORTEST, *(len(str(name)) for name in names))) / 72 + 0.2  # inches
    size = (labels + 0.62 * n, 0.64 * len(names) + 0.3)
    _, grid = plt.subplots(len(names), 1, figsize=size, squeeze=False, layout=layout)
    return grid[:, 0]


def _draw_row(ax: Axes, composites: Sequence[np.ndarray], n: int) -> None:
    side = len(composites[0])
    gap = max(side // 16, 1)
    row = np.ones((side, n * (side + gap) - gap, 3))
    for position, composite in enumerate(composites):
        left = position * (side + gap)
        row[:, left : left + side] = composite
    ax.imshow(row, interpolation="nearest")
    ax.set(xticks=[], yticks=[], anchor="E")
    ax.spines[:].set_visible(False)


def _draw_scale_bar(ax: Axes, side: int, pixel_size: float | None) -> str:
    """Draw a bar into the first patch of a row, and say how long it is, if the pixel size is known."""
    if pixel_size is None:
        return ""
    length, words = bar_length(2 * side, pixel_size)
    black_rim = [withStroke(linewidth=3.5, foreground="black")]
    x, y = 0.06 * side, 0.88 * side
    ax.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt", path_effects=black_rim)
    return f", bar {words}"


def _write_label(ax: Axes, name: str, markers: Sequence[str], away: float) -> None:
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
    ax.annotate(name, (0, 0.5), (-away, 0), fontsize="small", **style)
    if not markers:
        ax.annotate(NO_MARKER, (0, 0.5), (-6, 0), fontsize="x-small", **style)
    for line, (marker, color) in enumerate(zip(markers, COLORS, strict=False)):
        box = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
        ax.annotate(marker, (0, 0.5), (-6, 14 * (1 - line)), fontsize="x-small", bbox=box, **style)
