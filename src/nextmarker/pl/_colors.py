"""Colours of categories: those in the table, or else a palette for colour-blind readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scanpy as sc
from matplotlib.colors import is_color_like

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from anndata import AnnData

GREY = "0.6"
"""Colour of cells without a value."""
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


def category_colors(adata: AnnData, labels: pd.Series) -> dict[Hashable, str]:
    """Colour of each category of a categorical column of `.obs`, also of those without cells.

    As in scanpy, the colours in `.uns[f"{column}_colors"]` are used if there are enough of them.
    """
    names = labels.cat.categories
    kept = list(adata.uns.get(f"{labels.name}_colors", []))
    if len(kept) < len(names) or not all(map(is_color_like, kept)):
        kept = list(PALETTE if len(names) <= len(PALETTE) else sc.pl.palettes.default_102)
        kept *= -(-len(names) // len(kept)) or 1
    return dict(zip(names, kept, strict=False))
