"""Compares cells with the signatures of cell types, and chooses the type that fits best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextmarker import _keys
from nextmarker.tl.cell_types.signatures import ancestors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nextmarker.tl.cell_types.signatures import CellType, Condition

OPTIONAL = 0.5
"""Score to which an optional marker can lower a type."""


def score_cells(
    types: Sequence[CellType], positivity: Callable[[str, str], np.ndarray], n_cells: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Score how well each cell fits each type.

    A cell fits a type as well as the worst of its conditions, those of its parents included; a type without conditions
    as well as the best of its subtypes.

    Parameters
    ----------
    positivity
        Function of type and marker: how clearly each cell is positive, 0 to 1, (cells,).

    Returns
    -------
    Scores, 0 to 1, (cells, types), and for each type the values of its own conditions, (cells, conditions).
    """
    conditions = [_conditions(each, positivity, n_cells) for each in types]
    own = {each.name: values.min(axis=1) for each, values in zip(types, conditions, strict=True) if values.size}
    scores = {name: values.copy() for name, values in own.items()}
    for each in _children_first(types):
        if each.name not in own:
            scores[each.name] = np.max([scores[kind.name] for kind in types if kind.parent == each.name], axis=0)
    for each in reversed(_children_first(types)):
        if each.parent is not None:
            scores[each.name] = np.minimum(scores[each.name], scores[each.parent])
    return np.column_stack([scores[each.name] for each in types]), conditions


@dataclass(frozen=True)
class Choice:
    """What was chosen for each row of scores."""

    scores: np.ndarray
    """Scores of the types, (rows, types)."""
    names: np.ndarray
    """Name of the type, `"A or B"`, `"unsure"` or `"unknown"`, object (rows,)."""
    best: np.ndarray
    """Position of the best type at the last level that was compared, int (rows,)."""
    second: np.ndarray
    """Position of the second best type at that level, int (rows,); -1 if there is none."""

    @property
    def score(self) -> np.ndarray:
        """Score of the best type, (rows,)."""
        return self.scores[np.arange(len(self.best)), self.best]

    @property
    def second_score(self) -> np.ndarray:
        """Score of the second best type, (rows,); 0 if there is none."""
        return np.where(self.second < 0, 0.0, self.scores[np.arange(len(self.best)), self.second])

    @property
    def margin(self) -> np.ndarray:
        """By how much the best type is ahead of the next, (rows,)."""
        return self.score - self.second_score


def choose_types(types: Sequence[CellType], scores: np.ndarray, min_score: float, margin: float) -> Choice:
    """Choose a type for each row of scores, (rows, types): first a main type, then one of its subtypes, and so on.

    The best type must reach `min_score` and be ahead of the next by `margin`. Two types closer than that give
    `"A or B"`. A subtype must also be ahead of the part of its parent that does not fit it; otherwise the name stays
    that of the parent.
    """
    rows = np.arange(len(scores))
    names = np.full(len(rows), _keys.UNKNOWN, dtype=object)
    choice = Choice(scores, names, np.zeros(len(rows), int), np.full(len(rows), -1))
    _choose_subtypes(types, choice, rows, None, min_score, margin)
    return choice


def _choose_subtypes(
    types: Sequence[CellType], choice: Choice, rows: np.ndarray, parent: int | None, min_score: float, margin: float
) -> None:
    """Choose among the subtypes of a type, or among the main types, for some rows."""
    parent_name = None if parent is None else types[parent].name
    level = np.array([position for position, each in enumerate(types) if each.parent == parent_name], dtype=int)
    if not level.size or not rows.size:
        return
    own = choice.scores[np.ix_(rows, level)]
    order = level[np.argsort(-own, axis=1, kind="stable")]
    top = own.max(axis=1)
    fits = top >= min_score
    if parent is not None:
        fits &= top - (choice.scores[rows, parent] - top) >= margin
    tied = own > top[:, None] - margin
    n_tied = np.where(fits, tied.sum(axis=1), 0)

    compared = fits | (parent is None)
    choice.best[rows[compared]] = order[compared, 0]
    choice.second[rows[compared]] = order[compared, 1] if len(level) > 1 else -1
    for row in np.flatnonzero(n_tied == 2):
        choice.names[rows[row]] = _keys.OR.join(types[position].name for position in level[tied[row]])
    if parent is None:
        choice.names[rows[n_tied > 2]] = _keys.UNSURE
    for position in level:
        chosen = rows[(n_tied == 1) & (order[:, 0] == position)]
        choice.names[chosen] = types[position].name
        _choose_subtypes(types, choice, chosen, position, min_score, margin)


def _conditions(cell_type: CellType, positivity: Callable[[str, str], np.ndarray], n_cells: int) -> np.ndarray:
    """Compute how well each cell fulfils each condition of a type, (cells, conditions)."""
    columns = [_fulfilment(condition, cell_type.name, positivity) for condition in cell_type.conditions]
    return np.column_stack(columns) if columns else np.empty((n_cells, 0))


def _fulfilment(condition: Condition, name: str, positivity: Callable[[str, str], np.ndarray]) -> np.ndarray:
    positive = [(positivity(name, marker), sign) for marker, sign in condition.alternatives]
    best = np.max([values if sign == "+" else 1 - values for values, sign in positive], axis=0)
    return np.maximum(best, OPTIONAL) if condition.optional else best


def _children_first(types: Sequence[CellType]) -> list[CellType]:
    return sorted(types, key=lambda each: -len(list(ancestors(each, types))))
