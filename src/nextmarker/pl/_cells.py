"""Cells on top of the channels of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import is_color_like, to_rgb

from nextmarker import _keys
from nextmarker._errors import check_each_once, check_value, listed, no_such
from nextmarker._palette import CHANNEL_COLORS
from nextmarker._provenance import check_clusters
from nextmarker._record import read_record
from nextmarker._regions import Region, as_list, empty_region, read_regions
from nextmarker._table import get_table, require
from nextmarker.pl._dots import (
    BOX,
    DOT,
    Colors,
    as_drawn,
    choose_colors,
    dot_size,
    draw_boxes,
    draw_dots,
    draw_key,
    key_size,
)
from nextmarker.pl._overlay import draw_channel_names, draw_scale_bar
from nextmarker.pl._pixels import (
    Frame,
    Limits,
    add_up,
    check_channels,
    choose_frame,
    choose_limits,
    choose_patch_size,
    read_frame,
    scale,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

ALL = "all"
MOST_PIXELS = 2048
"""Largest width and height of all images of a figure together."""


def cells(
    sdata: SpatialData,
    image: str | Sequence[str] | None = None,
    *,
    channels: str | Sequence[str] | Mapping[str, str] | None = None,
    contrast: Limits | Mapping[str, Limits] | None = None,
    color: str | None = None,
    layer: str | None = None,
    boxes: str | Sequence[str] | None = None,
    size: int | None = None,
    crop: tuple[float, float, float, float] | None = None,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes | np.ndarray:
    """Draw the cells of one or several images on top of channels, with a scale bar.

    Only the crop is read. If it is wider or higher than 2,048 pixels, it is downsampled by averaging; several images
    share these pixels. The brightness is the square root of the counts between the limits, so that faint cells can be
    seen. The limits of a channel are the same in all images of a figure. The scale bar is in micrometres if the pixel
    size is known, otherwise in pixels.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    image
        Name of the image; by default the first with cells. Several names, or `"all"` for all images with cells, are
        drawn as a grid. An image without cells in the table is drawn alone.
    channels
        Channel to draw in grey, or up to six to draw in magenta, cyan, yellow, blue, orange and white. Choose other
        colours with a dict, such as `{"DNA1": "blue", "CD3": "red"}`. By default the nuclear channels that were given
        to `nm.pp.detect_cells`, each scaled by itself and averaged, in grey.
    contrast
        Counts that are drawn black and at full brightness: `(low, high)` for all channels, or a dict with these for
        some. As in scanpy, `"p99"` is the 99th percentile of the pixels drawn. The default is `(0, "p99.5")`.
    color
        Column of `.obs` or marker to colour the cells by; for a marker, the values are taken from `.X`. Categories,
        text and True/False get a legend, with scanpy's colours in `.uns[f"{color}_colors"]` if they exist; numbers get
        a colour bar. Cells without a value, or with one that is not finite, are grey.
    layer
        Layer of the table from which to take the values of the marker, such as `"interpretability"`.
    boxes
        One or several categories of the column `color`. Their cells are drawn as boxes of the size of a patch, and no
        other cells, so that the pixels can be seen.
    size
        Width of a box in pixels; by default the patch size of the embedding.
    crop
        (x, y, width, height) in pixels, where x and y are the upper left corner; by default the whole image.
    table_key
        Name of the table.
    ax
        Axes to draw one image on; by default a new figure.

    Returns
    -------
    Axes, in pixels of the image with y pointing down. For several names or `"all"`, one for each image, object array
    (images,).

    Warns
    -----
    UserWarning
        If `color` is a clustering of an earlier embedding, or combines clusterings of tables that were joined.

    Raises
    ------
    KeyError
        If the table, image, channel, column, category, marker or layer does not exist, or the nuclear channel or the
        patch size is not known.
    ValueError
        If the crop is outside the image, `layer` is given without a marker or `boxes` without a column of categories,
        colours or limits of channels are invalid, or `ax` is given for several images.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> ax = nm.pl.cells(sdata, channels={"DNA1": "blue", "CD3": "red"}, crop=(20, 10, 60, 40))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('x (pixels)', 'y (pixels)')
    >>> axes = nm.pl.cells(sdata, "all", color="CD3")
    >>> len(axes)
    2
    """
    single = image is None or (isinstance(image, str) and image != ALL)
    check_value("ax", ax, ax is None or single, "left out for several images")
    adata = get_table(sdata, table_key)
    regions = _choose_regions(sdata, read_regions(sdata, table_key), image)
    values = _read_values(adata, color, layer)
    if color is not None and color in adata.obs:
        check_clusters(adata, color)
    boxed = None if boxes is None else _choose_boxes(values, boxes)
    widths = [None] * len(regions) if boxes is None else _box_widths(adata, regions, size)
    names, channel_colors = _choose_channels(adata, regions, channels)
    panels = [_Panel(region, choose_frame(region, crop), values, boxed) for region in regions]

    drawn = None if values is None else values.iloc[np.concatenate([panel.rows for panel in panels])]
    colors = choose_colors(adata, drawn)
    axes = _grid(panels, key_size(drawn)) if ax is None else np.array([ax])
    _draw_channels(axes, panels, names, channel_colors, contrast)
    for panel_ax, panel, width in zip(axes, panels, widths, strict=True):
        _draw_cells(panel_ax, panel, colors, width)
        draw_scale_bar(panel_ax, panel.width, panel.region.pixel_size)
        _write_labels(panel_ax, panel, [] if channel_colors else names, single=single)
    draw_key(axes, drawn, colors, **(DOT if boxes is None else BOX))
    return axes[0] if single else axes


class _Panel:
    """The part of an image that is drawn, and its cells: all, or those that get boxes."""

    def __init__(self, region: Region, frame: Frame, values: pd.Series | None, boxed: np.ndarray | None) -> None:
        left, top, right, bottom = frame
        x, y = region.centres.T
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        drawn = inside if boxed is None else inside & boxed[region.rows]
        self.region, self.frame = region, frame
        self.width, self.height = right - left, bottom - top
        self.rows, self.xy = region.rows[drawn], region.centres[drawn]
        self.values = None if values is None else values.iloc[self.rows]
        number = f"{drawn.sum():,}" if boxed is None else f"{drawn.sum():,} of {inside.sum():,}"
        self.caption = f"{number} cells"


def _choose_regions(sdata: SpatialData, regions: Sequence[Region], image: str | Sequence[str] | None) -> list[Region]:
    by_image = {region.image: region for region in regions}
    if image is None:
        return [regions[0]]
    wanted = list(by_image) if isinstance(image, str) and image == ALL else as_list(image)
    check_each_once("image", wanted)
    return [by_image[name] if name in by_image else empty_region(sdata, name) for name in wanted]


def _read_values(adata: AnnData, color: str | None, layer: str | None) -> pd.Series | None:
    """Read the column of `.obs` or the marker to colour by, as a named series; None if there is none."""
    if layer is not None:
        require(adata, "layers", layer, "nm.tl.embed(sdata), or choose another: layer=...")
    elif color is None:
        return None
    elif color in adata.obs:
        return as_drawn(adata.obs[color])
    if color is None:
        msg = f"Choose the marker of layer {layer!r}: color=..., from {listed(adata.var_names)}."
        raise ValueError(msg)
    if color not in adata.var_names:
        kind, there = ("marker", adata.var_names) if layer else ("column or marker", [*adata.obs, *adata.var_names])
        fix = "Cluster the cells, nm.tl.cluster(adata), or choose another: color=..."
        raise KeyError(no_such(kind, color, "the table", there, fix))
    return as_drawn(adata[:, color].to_df(layer)[color])


def _choose_boxes(values: pd.Series | None, boxes: str | Sequence[str]) -> np.ndarray:
    """Which cells are of the categories that get boxes, bool (cells,)."""
    if values is None or not isinstance(values.dtype, pd.CategoricalDtype):
        msg = f"boxes={boxes!r} are categories of a column. Name the column: color=..."
        raise ValueError(msg)
    names, known = as_list(boxes), values.cat.categories.astype(str)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise KeyError(no_such("category", unknown, f".obs[{values.name!r}]", known, "Choose others: boxes=..."))
    return values.astype(str).isin(names).to_numpy()


def _box_widths(adata: AnnData, regions: Sequence[Region], size: int | None) -> list[float]:
    """Width of a patch in the pixels of each image."""
    side, steps = choose_patch_size(adata, regions, size)
    return [side * step for step in steps]


def _choose_channels(
    adata: AnnData, regions: Sequence[Region], channels: str | Sequence[str] | Mapping[str, str] | None
) -> tuple[list[str], dict[str, str] | None]:
    """Choose the channels and their colours; None if they are averaged in grey."""
    chosen = read_record(adata, "detect_cells").get("nuclear_channels") if channels is None else as_list(channels)
    if chosen is None:
        panel = regions[0].pixels["c"].to_numpy()
        msg = f"The nuclear channel of these cells is unknown. Choose one: channels=..., from {listed(panel)}."
        raise KeyError(msg)
    names = [str(name) for name in chosen]
    check_each_once("channels", names)
    check_channels(regions, names, "channels")
    if isinstance(channels, Mapping):
        for name, color in channels.items():
            check_value(f"channels[{name!r}]", color, is_color_like(color), "a colour, such as 'red'")
        return names, dict(channels)
    if channels is None or len(names) == 1:
        return names, None
    most = len(CHANNEL_COLORS)
    check_value("channels", names, len(names) <= most, f"at most {most}, or a dict with their colours")
    return names, dict(zip(names, CHANNEL_COLORS, strict=False))


def _grid(panels: Sequence[_Panel], key: tuple[float, float]) -> np.ndarray:
    """Axes of one image, or of several in about as many rows as columns, beside a key to the colours."""
    columns = _columns(len(panels))
    rows = -(-len(panels) // columns)
    width = 6.0 if len(panels) == 1 else min(max(12 / columns, 1.2), 3.2)
    ratio = float(np.mean([panel.height / panel.width for panel in panels]))
    height = min(max(width * ratio, width / 3), 2 * width)
    size = (columns * width + key[0], max(rows * height, key[1]))
    _, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="compressed")
    for unused in grid.ravel()[len(panels) :]:
        unused.remove()
    return grid.ravel()[: len(panels)]


def _columns(n: int) -> int:
    return int(np.ceil(np.sqrt(n)))


def _draw_channels(
    axes: np.ndarray,
    panels: Sequence[_Panel],
    names: list[str],
    colors: dict[str, str] | None,
    contrast: Limits | Mapping[str, Limits] | None,
) -> None:
    most_pixels = MOST_PIXELS // _columns(len(panels))
    parts = [read_frame(panel.region.pixels.sel(c=names), panel.frame, most_pixels) for panel in panels]
    limits = choose_limits(contrast, names, [counts for counts, _ in parts])
    if colors is None:
        weights = np.full(len(names), 1 / len(names))
        if len(panels) > 1:
            axes[0].figure.suptitle(" + ".join(names), fontsize="medium")
    else:
        weights = np.array([to_rgb(color) for color in colors.values()]) ** 2  # the root is taken below
        draw_channel_names(axes[0], colors)
    for ax, (counts, extent) in zip(axes, parts, strict=True):
        background = np.sqrt(add_up(scale(counts, limits), weights))
        ax.imshow(background, cmap="gray", vmin=0, vmax=1, extent=extent)


def _draw_cells(ax: Axes, panel: _Panel, colors: Colors, box_width: float | None) -> None:
    if box_width is None or panel.values is None:
        size = dot_size(ax, panel.width, panel.xy, colored=colors is not None)
        draw_dots(ax, panel.xy, panel.values, colors, size)
    else:
        draw_boxes(ax, panel.xy, panel.values.map(colors).tolist(), box_width)


def _write_labels(ax: Axes, panel: _Panel, names: Sequence[str], *, single: bool) -> None:
    left, top, right, bottom = panel.frame
    ax.set(xlim=(left, right), ylim=(bottom, top))
    if single:
        what = f"{' + '.join(names)}, " if names else ""
        ax.set(xlabel="x (pixels)", ylabel="y (pixels)")
        ax.set_title(f"{panel.region.image}: {what}{panel.caption}", fontsize="medium")
    else:
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{panel.region.image}\n{panel.caption}", fontsize="small")
