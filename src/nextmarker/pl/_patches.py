"""Example cells of each cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from dask.base import compute
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nextmarker import _keys
from nextmarker._errors import check_value, no_such
from nextmarker._provenance import check_clusters, read_attribution
from nextmarker._regions import read_regions
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from nextmarker._regions import Region

COLORS = {"magenta": (1.0, 0.0, 1.0), "cyan": (0.0, 1.0, 1.0), "yellow": (1.0, 1.0, 0.0)}
BRIGHTEST = 99.5


def patches(
    sdata: SpatialData,
    *,
    groupby: str = _keys.CLUSTERS,
    n: int = 8,
    markers: Sequence[str] | None = None,
    size: int | None = None,
    key: str = _keys.ATTRIBUTION,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> np.ndarray:
    """Draw random cells of each cluster, with up to three markers in colour.

    The pixels are not resampled, and patches are black beyond the edge of the image. The brightness of each marker is
    scaled to the 99.5th percentile of its pixels in all patches drawn. Only the patches are read.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    groupby
        Column of `.obs` with the groups: clusters, or any other categories.
    n
        Maximum number of cells per cluster.
    markers
        One to three markers to draw in every row. By default the top markers of each cluster: the three with the
        largest contribution among those with higher activation in the cluster than elsewhere.
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
    Axes, one per cluster with a row of patches, object array (clusters,).

    Raises
    ------
    KeyError
        If the table, the column, the attribution, a marker or the patch size is missing.
    ValueError
        If there are more than three markers, or the attribution belongs to other clusters.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> axes = nm.pl.patches(sdata, groupby="image", markers=["DNA1", "CD3"], size=20)
    >>> axes[-1].get_xlabel()
    'image: patches of 20 x 20 pixels'
    """
    adata = get_table(sdata, table_key)
    regions = read_regions(sdata, table_key)
    clusters = _read_clusters(adata, groupby)
    check_clusters(adata, groupby)
    shown = _choose_markers(adata, clusters, markers, key, groupby)
    channels = list(dict.fromkeys(marker for own in shown.values() for marker in own))
    _check_channels(regions, channels)
    side, steps = _choose_size(adata, regions, size)

    cells = _choose_cells(clusters, n, random_state)
    pixels = _read_patches(regions, np.concatenate(list(cells.values())), channels, side, steps)
    brightest = np.percentile(np.stack(list(pixels.values())), BRIGHTEST, axis=(0, 2, 3))
    scale = np.where(brightest > 0, brightest, 1)[:, None, None]

    axes = _grid(len(cells), n)
    for ax, (name, rows) in zip(axes, cells.items(), strict=True):
        own = [channels.index(marker) for marker in shown[name]]
        _draw_row(ax, [_composite(pixels[row][own] / scale[own]) for row in rows], n)
        _write_label(ax, f"{name}\n{(clusters == name).sum():,} cells", shown[name])
    axes[-1].set_xlabel(f"{groupby}: patches of {side} x {side} pixels", fontsize="small")
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
    raised = table[table["mean"] > table["mean_elsewhere"]]
    return {name: raised.loc[raised["cluster"] == str(name), "marker"].head(len(COLORS)).tolist() for name in names}


def _check_channels(regions: Sequence[Region], channels: Sequence[str]) -> None:
    for region in regions:
        panel = region.pixels["c"].to_numpy().tolist()
        lacking = [channel for channel in channels if channel not in panel]
        if lacking:
            raise KeyError(
                no_such("channel", lacking, f"image {region.image!r}", panel, "Choose others: markers=[...].")
            )


def _choose_size(adata: AnnData, regions: Sequence[Region], size: int | None) -> tuple[int, list[float]]:
    """Choose the width of a patch and, for each image, the distance of its pixels in pixels of the image."""
    if size is not None:
        return size, [1.0] * len(regions)
    embedded = adata.uns.get(_keys.RECORD, {}).get("embed")
    if embedded is None:
        msg = "The cells are not embedded, so their patch size is not known. Set it: size=..., in pixels."
        raise KeyError(msg)
    return int(embedded["patch_size"]), [region.scale(embedded.get("pixel_size")) for region in regions]


def _choose_cells(clusters: pd.Series, n: int, random_state: int) -> dict[object, np.ndarray]:
    rng = np.random.default_rng(random_state)
    members = {name: np.flatnonzero(clusters == name) for name in clusters.cat.categories}
    return {name: np.sort(rng.choice(rows, min(n, len(rows)), replace=False)) for name, rows in members.items()}


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


def _composite(intensities: np.ndarray) -> np.ndarray:
    """Add up markers (markers, height, width), each in its colour: (height, width, 3)."""
    colors = np.array(list(COLORS.values()))[: len(intensities)]
    return np.einsum("mhw,mc->hwc", intensities.clip(0, 1), colors).clip(0, 1)


def _grid(n_clusters: int, n: int) -> np.ndarray:
    layout = ConstrainedLayoutEngine(hspace=0, h_pad=0.02)
    _, grid = plt.subplots(
        n_clusters, 1, figsize=(2.4 + 0.62 * n, 0.64 * n_clusters + 0.3), squeeze=False, layout=layout
    )
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


def _write_label(ax: Axes, name: str, markers: Sequence[str]) -> None:
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center"}
    ax.annotate(name, (0, 0.5), (-85, 0), fontsize="small", **style)
    if not markers:
        ax.annotate("no marker raised", (0, 0.5), (-6, 0), fontsize="x-small", **style)
    for line, (marker, color) in enumerate(zip(markers, COLORS.values(), strict=False)):
        box = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
        ax.annotate(marker, (0, 0.5), (-6, 14 * (1 - line)), fontsize="x-small", bbox=box, **style)
