"""Colours that readers with any colour vision can tell apart: of categories, and of channels drawn together."""

from __future__ import annotations

import numpy as np

PALETTE = (
    # Okabe and Ito, without black
    *("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2"),
    # Each keeps its distance from all before it, from black, from white and from grey, for normal vision,
    # deuteranopia and protanopia alike (tests/pl/test_colors.py). Therefore they also differ in lightness.
    *("#3C1EFF", "#78FF96", "#5A78FF", "#A51E2D", "#694B69", "#FFD2FF", "#96B469", "#87FFC3", "#782DC3", "#00A5FF"),
    *("#B40F00", "#A5D2C3", "#1E5AFF", "#C3C35A", "#D2693C", "#D20FB4", "#E11E5A", "#1E693C", "#87C396", "#D2F069"),
    *("#961E87", "#0F8778", "#A5B4D2"),
)
"""Colours of up to 30 categories. The first few of them serve fewer categories."""

CHANNEL_COLORS = ("#FF00FF", "#00FFFF", "#FFFF00", "#4D7DFF", "#FF8000", "#FFFFFF")
"""Colours of channels that are drawn together: magenta, cyan, yellow, blue, orange, white."""


def colors_of(key: str, n: int) -> dict[str, np.ndarray]:
    """Choose colours of `n` categories of a column, by place; nothing if there are too many for our palette.

    scanpy and `nm.pl` draw the column in these colours.
    """
    return {f"uns/{key}_colors": np.array(PALETTE[:n], dtype=object)} if n <= len(PALETTE) else {}
