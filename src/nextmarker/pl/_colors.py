"""Colours of categories: those in the table, or else a palette for colour-blind readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scanpy as sc
from matplotlib.colors import is_color_like

from nextmarker._palette import PALETTE

if TYPE_CHECKING:
    from collections.abc import Hashable

    import pandas as pd
    from anndata import AnnData

GREY = "0.6"
"""Colour of cells without a value."""


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
