"""What is written on top of an image: a scale bar, and the names of its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.legend import Legend
from matplotlib.offsetbox import AnchoredOffsetbox, AuxTransformBox, TextArea, VPacker
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

BAR_SHARE = 0.25
"""Largest share of the width that a scale bar takes."""


def bar_length(width: float, pixel_size: float | None) -> tuple[float, str]:
    """Choose a round length of at most a quarter of the width, in pixels.

    Returns
    -------
    The length in pixels, and in words: in micrometres if the pixel size is known, otherwise in pixels.

    Examples
    --------
    >>> bar_length(400, None), bar_length(400, 0.5)
    ((100.0, '100 pixels'), (100.0, '50 µm'))
    """
    most = BAR_SHARE * width * (pixel_size or 1)
    power = 10.0 ** np.floor(np.log10(most))
    length = power * max(digit for digit in (1, 2, 5) if digit * power <= most)
    words = f"{length:g} pixels" if pixel_size is None else f"{length:g} µm"
    return float(length / (pixel_size or 1)), words


def draw_scale_bar(ax: Axes, width: float, pixel_size: float | None) -> None:
    """Draw a scale bar into the lower right corner of an image that is `width` pixels wide."""
    length, words = bar_length(width, pixel_size)
    bar = AuxTransformBox(ax.transData)
    bar.add_artist(Rectangle((0, 0), length, 0, edgecolor="white", linewidth=2))
    label = TextArea(words, textprops={"color": "white", "fontsize": "small"})
    content = VPacker(sep=3, align="center", children=[bar, label])
    box = AnchoredOffsetbox("lower right", child=content, borderpad=0.4, pad=0.3)
    box.patch.set(facecolor="black", edgecolor="none", alpha=0.6)
    ax.add_artist(box)


def draw_channel_names(ax: Axes, colors: Mapping[str, str]) -> None:
    """Write the names of the channels and their colours into the upper left corner."""
    swatches = [Rectangle((0, 0), 1, 1, color=color) for color in colors.values()]
    box: dict[str, Any] = {"facecolor": "black", "edgecolor": "none", "framealpha": 0.6, "fancybox": False}
    spacing: dict[str, Any] = {"handlelength": 0.8, "handleheight": 0.8, "handletextpad": 0.4, "borderaxespad": 0.4}
    names = Legend(ax, swatches, list(colors), loc="upper left", fontsize="small", labelcolor="white", **box, **spacing)
    ax.add_artist(names)  # beside the legend of the cells
