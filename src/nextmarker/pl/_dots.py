"""Cells as dots or boxes on an image, coloured by a column or a marker."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from scipy.spatial import cKDTree

from nextmarker.pl._colors import GREY, category_colors

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

ORANGE = "#E69F00"
COLOR_MAP = "viridis"
NONE = "none"  # in a legend: cells without a value
DOT = {"marker": "o"}
BOX = {"marker": "s", "fillstyle": "none"}
LEGEND_LINES = 20
"""Most entries in one column of a legend."""
KEY_WIDTH, LINE_HEIGHT = 1.6, 0.19
"""Width of a colour bar or of one column of a legend, and height of a line, in inches."""

Colors: TypeAlias = Mapping[Hashable, str] | Normalize | None
"""Colours by category, or the range of numbers in the colour map; None if there is nothing to tell apart."""


def as_drawn(values: pd.Series) -> pd.Series:
    """Numbers as float, with NaN where there is none; all other values, such as True and False, as categories."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        numbers = values.to_numpy(dtype=float, na_value=np.nan)
        return pd.Series(np.where(np.isfinite(numbers), numbers, np.nan), values.index, name=values.name)
    return values.astype("category")


def choose_colors(adata: AnnData, values: pd.Series | None) -> Colors:
    """Choose the colours of the cells that are drawn."""
    if values is None:
        return None
    if isinstance(values.dtype, pd.CategoricalDtype):
        return category_colors(adata, values)
    return None if values.isna().all() else Normalize(values.min(), values.max())


def key_size(values: pd.Series | None) -> tuple[float, float]:
    """Width and height to leave for the key to the colours, in inches."""
    if values is None:
        return 0, 0
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return KEY_WIDTH, 0
    entries = values.nunique() + int(values.isna().any())
    return KEY_WIDTH * _columns(entries), 0.6 + LINE_HEIGHT * min(entries, LEGEND_LINES)


def _columns(entries: int) -> int:
    return max(-(-entries // LEGEND_LINES), 1)


def dot_size(ax: Axes, width: float, xy: np.ndarray, *, colored: bool) -> float:
    """Area of a dot in square points: in diameter a third of the distance to the nearest cell, within limits.

    Neighbouring nuclei touch, so the nuclei remain visible, also where most of the image is empty. Colours need larger
    dots, nearly half of the distance.

    Parameters
    ----------
    width
        What the axes show, in pixels of the image.
    xy
        Centres of the cells in it, (cells, 2).
    colored
        Whether the dots have colours to tell apart.
    """
    points_per_pixel = 72 * ax.bbox.width / ax.figure.dpi / width
    distance = np.median(cKDTree(xy).query(xy, 2)[0][:, 1]) if len(xy) > 1 else np.inf
    share, least = (0.45, 2) if colored else (0.35, 1.5)
    return float(np.clip(share * distance * points_per_pixel, least, 6) ** 2)


def draw_dots(ax: Axes, xy: np.ndarray, values: pd.Series | None, colors: Colors, size: float) -> None:
    """Draw each cell as a dot; those without a value are grey."""
    style: dict[str, Any] = {"s": size, "linewidths": 0.3 if size > 9 else 0, "edgecolors": "white"}
    layers: list[tuple[np.ndarray, dict[str, Any]]]
    if values is None:
        layers = [(np.ones(len(xy), dtype=bool), {"color": ORANGE})]
    elif isinstance(colors, Mapping):
        codes = values.cat.codes.to_numpy()
        shades = [*enumerate(colors.values()), (-1, GREY)]
        layers = [(codes == code, {"color": shade}) for code, shade in shades]
    else:
        known = values.notna().to_numpy()
        layers = [(~known, {"color": GREY}), (known, {"c": values[known], "cmap": COLOR_MAP, "norm": colors})]
    for chosen, shade in layers:
        if chosen.any():
            x, y = xy[chosen].T
            ax.scatter(x, y, **shade, **style)


def draw_boxes(ax: Axes, xy: np.ndarray, edges: list[str], width: float) -> None:
    """Draw a box around each cell."""
    boxes = [Rectangle((x - width / 2, y - width / 2), width, width) for x, y in xy]
    ax.add_collection(PatchCollection(boxes, facecolors="none", edgecolors=edges, linewidths=1.2))


def draw_key(axes: np.ndarray, values: pd.Series | None, colors: Colors, **marker: str) -> None:
    """Explain the colours beside all axes: a legend of the categories that are drawn, or a colour bar."""
    if values is None or values.empty or colors is None:
        return
    if isinstance(colors, Mapping):
        drawn = set(values.dropna())
        shown = {str(name): color for name, color in colors.items() if name in drawn}
        draw_legend(axes, shown | ({NONE: GREY} if values.isna().any() else {}), str(values.name), **marker)
    else:
        bar = axes[0].figure.colorbar(ScalarMappable(colors, COLOR_MAP), ax=axes.tolist(), shrink=0.7)
        bar.set_label(str(values.name))


def draw_legend(axes: np.ndarray, colors: Mapping[str, str], title: str, **marker: Any) -> None:
    """Draw a legend of categories to the right of the image, or of all images in the figure."""
    keys = [Line2D([], [], color=color, label=name, linestyle="", **marker) for name, color in colors.items()]
    style: dict[str, Any] = {"title": title, "ncols": _columns(len(keys)), "frameon": False}
    style |= {"fontsize": "small", "title_fontsize": "small"}
    if len(axes) == 1:
        axes[0].legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1), **style)
    else:
        axes[0].figure.legend(handles=keys, loc="outside right upper", **style)
