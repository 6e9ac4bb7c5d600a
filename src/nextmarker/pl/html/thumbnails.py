"""Small pictures of all images with the centres of their cells, one image at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nextmarker._regions import read_overview
from nextmarker.pl._colors import GREY
from nextmarker.pl._dots import NONE, choose_colors, dot_size, draw_dots
from nextmarker.pl._overlay import draw_scale_bar
from nextmarker.pl._pixels import add_up, choose_limits, read_frame, scale
from nextmarker.pl.html.blocks import RESOLUTION, WEBP, Gallery, Picture, save

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from nextmarker._regions import Region
    from nextmarker.pl._dots import Colors

MOST_PIXELS = 13_000_000
"""Pixels of all pictures together, which limits the size of the report."""
SMALLEST, LARGEST = 120, 640
"""Width or height of a picture in pixels, whichever is larger."""


def draw_thumbnails(
    sdata: SpatialData, adata: AnnData, regions: Sequence[Region], values: pd.Series | None, channels: Sequence[str]
) -> Gallery:
    """Draw every image, small enough that all fit into the report.

    Parameters
    ----------
    values
        Categories of the cells to colour them by, if any.
    channels
        Channels to draw in grey, averaged; without any, the centres are drawn on black.
    """
    side = int(np.clip(np.sqrt(MOST_PIXELS / len(regions)), SMALLEST, LARGEST))
    colors = choose_colors(adata, values)
    pictures = [_draw(sdata, region, values, colors, channels, side) for region in regions]
    return Gallery(pictures, "" if values is None else str(values.name), _legend(values, colors))


def _draw(
    sdata: SpatialData, region: Region, values: pd.Series | None, colors: Colors, channels: Sequence[str], side: int
) -> Picture:
    width, height = region.pixels.sizes["x"], region.pixels.sizes["y"]
    size = np.array([width, height]) * side / max(width, height) / RESOLUTION
    figure = Figure(figsize=tuple(size.clip(min=SMALLEST / 2 / RESOLUTION)), dpi=RESOLUTION, facecolor="black")
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    if channels:
        _draw_channels(ax, sdata, region, channels, side)
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    own = None if values is None else values.iloc[region.rows]
    draw_dots(ax, region.centres, own, colors, dot_size(ax, width, region.centres, colored=colors is not None))
    draw_scale_bar(ax, width, region.pixel_size)
    caption = f"{region.image}: {len(region.rows):,} cells"
    by = "" if values is None else f", coloured by {values.name}"
    return save(figure, figure.bbox_inches, f"The centres of the cells in image {caption}{by}.", caption, **WEBP)


def _draw_channels(ax: Axes, sdata: SpatialData, region: Region, channels: Sequence[str], side: int) -> None:
    pixels, step = read_overview(sdata, region.image, side)
    frame = (0, 0, pixels.sizes["x"], pixels.sizes["y"])
    counts, extent = read_frame(pixels.sel(c=list(channels)), frame, side)
    scaled = scale(counts, choose_limits(None, channels, [counts]))
    background = np.sqrt(add_up(scaled, np.full(len(channels), 1 / len(channels))))
    left, right, bottom, top = (edge * step for edge in extent)
    ax.imshow(background, cmap="gray", vmin=0, vmax=1, extent=(left, right, bottom, top))


def _legend(values: pd.Series | None, colors: Colors) -> dict[str, str]:
    """Colour of each category that has cells, as browsers read it."""
    if values is None or not isinstance(colors, Mapping):
        return {}
    sizes = values.value_counts().to_dict()
    legend = {f"{name} ({sizes[name]:,})": to_hex(color) for name, color in colors.items() if sizes.get(name)}
    none = int(values.isna().sum())
    return legend | ({f"{NONE} ({none:,})": to_hex(GREY)} if none else {})
