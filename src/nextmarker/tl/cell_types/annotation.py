"""Tables that describe an annotation: what clusters are named, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker.tl.cell_types.signatures import ancestors

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from nextmarker.tl.cell_types.choice import Choice
    from nextmarker.tl.cell_types.positivity import Threshold
    from nextmarker.tl.cell_types.signatures import CellType

MIXED = 0.25
"""A cluster is mixed if this share of its cells fits another type by itself."""


def describe_clusters(
    types: Sequence[CellType],
    clusters: pd.Categorical,
    choice: Choice,
    fulfilment: Sequence[np.ndarray],
    names_of_cells: np.ndarray,
) -> pd.DataFrame:
    """Describe what was chosen for each cluster, with a row for each.

    Parameters
    ----------
    choice
        Of the clusters.
    fulfilment
        How well the clusters fulfil the conditions of each type, each (clusters, conditions).
    names_of_cells
        What single cells would be named, object (cells,).
    """
    names = np.array([*(each.name for each in types), ""], dtype=object)  # position -1 is no type
    known = clusters.codes >= 0
    cells = pd.crosstab(clusters.codes[known], names_of_cells[known])
    table = pd.DataFrame(
        {
            "cluster": clusters.categories.to_numpy(dtype=object),
            "n_cells": cells.sum(axis=1).to_numpy(),
            "cell_type": choice.names,
            "best": names[choice.best],
            "score": choice.score,
            "second": names[choice.second],
            "second_score": choice.second_score,
            "margin": choice.margin,
            "weakest": [_weakest(types, best, row, fulfilment) for row, best in enumerate(choice.best)],
        }
    )
    compared = [_compare(row, name, types) for name, (_, row) in zip(choice.names, cells.iterrows(), strict=True)]
    table = table.join(pd.DataFrame(compared, columns=["agreement", "other", "other_share"]))
    table["mixed"] = table["other_share"] >= MIXED
    return table.set_axis(table.index.astype(str))  # as it is read from files


def overrule_clusters(annotation: pd.DataFrame, overrule: Mapping[str, str]) -> pd.DataFrame:
    """Replace the types of some clusters, and keep those that were chosen."""
    before = annotation["cell_type"].to_numpy()
    is_new = annotation["cluster"].isin(list(overrule)).to_numpy()
    after = [overrule.get(cluster, name) for cluster, name in zip(annotation["cluster"], before, strict=True)]
    return annotation.assign(cell_type=after, overruled=np.where(is_new, before, ""))


def describe_scores(scores: np.ndarray, clusters: pd.Categorical, types: Sequence[CellType]) -> pd.DataFrame:
    """List the scores, (clusters, types), with a row for each cluster and type."""
    cluster, position = (codes.ravel() for codes in np.indices(scores.shape))
    names = pd.Index([each.name for each in types])
    table = pd.DataFrame(
        {
            "cluster": pd.Categorical.from_codes(cluster, clusters.categories),
            "cell_type": pd.Categorical.from_codes(position, names),
            "score": scores.ravel(),
        }
    )
    return table.set_axis(table.index.astype(str))


def describe_signatures(types: Sequence[CellType]) -> dict[str, np.ndarray]:
    """Describe the signatures as text, for the record."""
    columns = {
        "cell_types": [each.name for each in types],
        "signatures": [each.text for each in types],
        "parents": [each.parent or "" for each in types],
    }
    return {name: np.array(values, dtype=object) for name, values in columns.items()}


def describe_thresholds(thresholds: Mapping[tuple[str, str], Threshold]) -> pd.DataFrame:
    """List the threshold of each type and marker, with the means of the cells below and above it."""
    table = pd.DataFrame(
        [(*key, each.value, each.low, each.high) for key, each in thresholds.items()],
        columns=["cell_type", "marker", "threshold", "mean_below", "mean_above"],
    )
    return table.set_axis(table.index.astype(str))


def _weakest(types: Sequence[CellType], best: int, row: int, fulfilment: Sequence[np.ndarray]) -> str:
    """Find the condition of a type and its parents that a cluster fulfils least."""
    positions = [best, *(types.index(parent) for parent in ancestors(types[best], types))]
    values = {
        condition.text: fulfilment[position][row, column]
        for position in positions
        for column, condition in enumerate(types[position].conditions)
    }
    return min(values, key=lambda text: values[text], default="")


def _compare(cells: pd.Series, name: str, types: Sequence[CellType]) -> tuple[float, str, float]:
    """Compare the type of a cluster with those of its single cells.

    Parameters
    ----------
    cells
        Number of cells by the type that they would have.

    Returns
    -------
    Share of the cells that have this type or a subtype (of two types, the more frequent), and the most frequent other
    type with its share.
    """
    shares = cells / cells.sum()
    own = max(([kind, *_subtypes(kind, types)] for kind in name.split(_keys.OR)), key=lambda kinds: _sum(shares, kinds))
    others = shares.drop([*own, name, _keys.UNKNOWN, _keys.UNSURE], errors="ignore")
    others = others[[_keys.OR not in other for other in others.index]]
    other = str(others.idxmax()) if others.any() else ""
    return _sum(shares, {*own, name}), other, shares.get(other, 0.0)


def _subtypes(name: str, types: Sequence[CellType]) -> list[str]:
    return [each.name for each in types if name in {parent.name for parent in ancestors(each, types)}]


def _sum(shares: pd.Series, names: Collection[str]) -> float:
    return float(shares[shares.index.isin(list(names))].sum())
