"""Pairs of cell types: their mean ratio over images, and in which of them the images agree."""

from __future__ import annotations

import numpy as np
import pandas as pd

AGREE, LEAST_IMAGES = 0.9, 3  # share of the images with the same sign, and how many there must be
CLEAR = 0.5  # mean log2 ratio from which pairs are marked; rare pairs are a little below 0 in most images by chance


def mean_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Mean log2 ratio over images, (types, types), NaN for pairs that no image has."""
    return _by_pair(table, table["log2_ratio"]).mean().unstack()


def images_agree(table: pd.DataFrame) -> pd.DataFrame:
    """Whether the ratio is clear and the images agree in its sign, bool (types, types)."""
    signs = _by_pair(table, np.sign(table["log2_ratio"]))
    same = (signs.mean().abs() >= 2 * AGREE - 1) & (signs.count() >= LEAST_IMAGES)
    return same.unstack() & (mean_ratios(table).abs() >= CLEAR)


def _by_pair(table: pd.DataFrame, values: pd.Series) -> pd.api.typing.SeriesGroupBy:
    return values.groupby([table["cell_type"], table["neighbor"]], observed=False, sort=False)
