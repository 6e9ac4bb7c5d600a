"""Cell centres on top of the nuclear channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc

from nextmarker import _keys
from nextmarker._errors import listed, no_such
from nextmarker._provenance import check_clusters
from nextmarker._regions import Region, read_regions
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

ORANGE = "#E69F00"
GREY = "0.6"  # of cells without a value
# Okabe and Ito, without black, which is invisible on the nuclear channel
FEW_COLORS = ["#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2"]
MOST_PIXELS = 2048


def cells(
    sdata: SpatialData,
    image: str | None = None,
    *,
    channel: str | None = None,
    color: str | None = None,
    layer: str | None = None,
    crop: tuple[float, float, float, float] | None = None,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw the cell centres of an image on top of its nuclear channel.

    Only the crop is read. If it is wider or higher than 2,048 pixels, it is downsampled by averaging.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    image
        Name of the image; by default the first with cells.
    channel
        Channel to draw. By default the nuclear channels that were given to `nm.pp.detect_cells`, each scaled to its
        brightest pixels and averaged.
    color
        Column of `.obs` or marker to colour the cells by; for a marker, the values are taken from `.X`. Categories,
        text and True/False get a legend, with scanpy's colours in `.uns[f"{color}_colors"]` if they exist; numbers get
        a colour bar. Cells without a value, or with one that is not finite, are grey.
    layer
        Layer of the table from which to take the values of the marker, such as `"interpretability"`.
    crop
        (x, y, width, height) in pixels, where x and y are the upper left corner; by default the whole image.
    table_key
        Name of the table.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes, in pixels of the image with y pointing down.

    Warns
    -----
    UserWarning
        If `color` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table, image, channel, column, marker or layer does not exist, or the nuclear channel is not known.
    ValueError
        If the crop is outside the image, or `layer` is given without a marker.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> ax = nm.pl.cells(sdata, channel="CD3", crop=(20, 10, 60, 40))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('x (pixels)', 'y (pixels)')
    """
    region = _choose_region(read_regions(sdata, table_key), image)
    adata = get_table(sdata, table_key)
    values = _read_values(adata, color, layer)
    if color is not None and color in adata.obs:
        check_clusters(adata, color)
    channels = _choose_channels(adata, region, channel)
    left, top, right, bottom = _choose_crop(region, crop)
    background, extent = _read_background(region.pixels.sel(c=channels), left, top, right, bottom)

    if ax is None:
        width = 6.0
        height = min(max(width * (bottom - top) / (right - left), 2.0), 12.0)
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    ax.imshow(background, cmap="gray", vmin=0, vmax=1, extent=extent)
    x, y = region.centres.T
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    size = _dot_size(ax, inside.sum(), right - left, bottom - top)
    style: dict[str, Any] = {"s": size, "linewidths": 0.3 if size > 9 else 0, "edgecolors": "white"}
    _draw_centres(ax, region.centres[inside], region.rows[inside], adata, values, style)
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="x (pixels)", ylabel="y (pixels)")
    ax.set_title(f"{region.image}: {' + '.join(channels)}, {inside.sum():,} cells", fontsize="medium")
    return ax


def _choose_region(regions: Sequence[Region], image: str | None) -> Region:
    if image is None:
        return regions[0]
    for region in regions:
        if region.image == image:
            return region
    there = [region.image for region in regions]
    raise KeyError(no_such("image", image, "the table of cells", there, "Choose one of these."))


def _choose_channels(adata: AnnData, region: Region, channel: str | None) -> list[str]:
    panel = region.pixels["c"].to_numpy().tolist()
    nuclear = adata.uns.get(_keys.RECORD, {}).get("detect_cells", {}).get("nuclear_channels")
    if channel is None and nuclear is None:
        msg = f"The nuclear channel of these cells is not known. Choose one: channel=..., from {listed(panel)}."
        raise KeyError(msg)
    channels = [str(name) for name in nuclear] if channel is None else [channel]
    lacking = [name for name in channels if name not in panel]
    if lacking:
        raise KeyError(no_such("channel", lacking, f"image {region.image!r}", panel, "Choose another: channel=..."))
    return channels


def _choose_crop(region: Region, crop: tuple[float, float, float, float] | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the crop, limited to the image."""
    width, height = region.pixels.sizes["x"], region.pixels.sizes["y"]
    if crop is None:
        return 0, 0, width, height
    x, y, crop_width, crop_height = crop
    left, top = max(int(x), 0), max(int(y), 0)
    right, bottom = min(round(x + crop_width), width), min(round(y + crop_height), height)
    if left >= right or top >= bottom:
        size = f"{width} pixels wide and {height} high"
        msg = f"crop={crop} is (x, y, width, height) and lies outside image {region.image!r}, {size}."
        raise ValueError(msg)
    return left, top, right, bottom


def _read_background(
    pixels: xr.DataArray, left: int, top: int, right: int, bottom: int
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Read the crop, downsampled if large; square root of the mean of the channels, each relative to its brightest."""
    step = -(-max(right - left, bottom - top) // MOST_PIXELS)
    crop = pixels.isel(y=slice(top, bottom), x=slice(left, right))
    if step > 1:
        crop = crop.coarsen(y=step, x=step, boundary="trim").mean()
    counts = crop.to_numpy()
    brightest = np.percentile(counts, 99.5, axis=(1, 2), keepdims=True)
    background = np.sqrt((counts / np.where(brightest > 0, brightest, 1)).clip(0, 1).mean(axis=0))
    height, width = background.shape
    return background, (left, left + width * step, top + height * step, top)


def _dot_size(ax: Axes, n_cells: int, width: float, height: float) -> float:
    """Area of a dot in square points: about a third of the distance between cells in diameter, within limits."""
    points_per_pixel = 72 * ax.bbox.width / ax.figure.dpi / width
    distance = np.sqrt(width * height / max(n_cells, 1))
    return float(np.clip(0.35 * distance * points_per_pixel, 1.5, 6) ** 2)


def _read_values(adata: AnnData, color: str | None, layer: str | None) -> pd.Series | None:
    """Read the column of `.obs` or the marker to colour by, as a named series; None if there is none."""
    if layer is not None:
        require(adata, "layers", layer, "nm.tl.embed(sdata), or choose another: layer=...")
    elif color is None:
        return None
    elif color in adata.obs:
        return adata.obs[color]
    if color is None:
        msg = f"Choose the marker of layer {layer!r}: color=..., from {listed(adata.var_names)}."
        raise ValueError(msg)
    if color not in adata.var_names:
        kind, there = ("marker", adata.var_names) if layer else ("column or marker", [*adata.obs, *adata.var_names])
        fix = "Cluster the cells, nm.tl.cluster(adata), or choose another: color=..."
        raise KeyError(no_such(kind, color, "the table", there, fix))
    return adata[:, color].to_df(layer)[color]


def _draw_centres(
    ax: Axes, centres: np.ndarray, rows: np.ndarray, adata: AnnData, values: pd.Series | None, style: dict[str, Any]
) -> None:
    x, y = centres.T
    if values is None:
        ax.scatter(x, y, color=ORANGE, **style)
    elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        _draw_numbers(ax, x, y, values.iloc[rows].to_numpy(dtype=float, na_value=np.nan), str(values.name), style)
    else:
        _draw_categories(ax, x, y, values.astype("category"), rows, adata, style)


def _draw_numbers(
    ax: Axes, x: np.ndarray, y: np.ndarray, numbers: np.ndarray, name: str, style: dict[str, Any]
) -> None:
    known = np.isfinite(numbers)
    if not known.all():
        ax.scatter(x[~known], y[~known], color=GREY, **style)
    if known.any():
        dots = ax.scatter(x[known], y[known], c=numbers[known], cmap="viridis", **style)
        ax.figure.colorbar(dots, ax=ax, label=name, shrink=0.7)


def _draw_categories(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    values: pd.Series,
    rows: np.ndarray,
    adata: AnnData,
    style: dict[str, Any],
) -> None:
    codes = values.cat.codes.to_numpy()[rows]
    names = values.cat.categories
    dots = [
        ax.scatter(x[codes == code], y[codes == code], color=shade, label=str(name), **style)
        for code, (name, shade) in enumerate(zip(names, _category_colors(adata, values), strict=False))
        if (codes == code).any()
    ]
    if (codes < 0).any():
        dots.append(ax.scatter(x[codes < 0], y[codes < 0], color=GREY, label="none", **style))
    ax.legend(
        handles=dots,
        title=values.name,
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=max(-(-len(dots) // 20), 1),
        markerscale=float(np.sqrt(36 / style["s"])),
        fontsize="small",
        frameon=False,
    )


def _category_colors(adata: AnnData, values: pd.Series) -> Sequence[str]:
    n = values.cat.categories.size
    kept = adata.uns.get(f"{values.name}_colors", [])
    if len(kept) >= n:
        return list(kept)
    palettes = (FEW_COLORS, sc.pl.palettes.default_20, sc.pl.palettes.default_102)
    for palette in palettes:
        if n <= len(palette):
            return palette
    return [palettes[-1][code % len(palettes[-1])] for code in range(n)]
