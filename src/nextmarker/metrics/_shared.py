"""Shared by the metrics: a random sample of the cells, and the format of the results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SAMPLE = 10_000  # cells between which distances are computed


def sample(labels: pd.Categorical, random_state: int) -> np.ndarray:
    """Draw about `SAMPLE` cells at random, of each label in proportion but at least two; ascending indices."""
    if len(labels) <= SAMPLE:
        return np.arange(len(labels))
    order = np.random.default_rng(random_state).permutation(len(labels))
    codes = labels.codes[order]
    quota = np.maximum(2, np.bincount(codes) * SAMPLE // len(labels))
    return np.sort(order[pd.Series(codes).groupby(codes).cumcount() < quota[codes]])


def as_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Convert rows to a table whose index is strings, as after saving and reading."""
    table = pd.DataFrame(list(rows))
    return table.set_axis(table.index.astype(str))


def shared_names(labels: pd.Categorical, groups: pd.Categorical) -> list[str]:
    """List the names that are in both labelings, in the order of the first."""
    return [name for name in labels.categories if name in groups.categories]
