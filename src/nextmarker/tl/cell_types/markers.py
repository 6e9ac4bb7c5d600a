"""Finds the markers that signatures name among those of the table."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from nextmarker import _keys
from nextmarker._errors import listed, no_such
from nextmarker.tl.cell_types.signatures import ancestors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from nextmarker.tl.cell_types.signatures import CellType, Condition


def use_names_of_table(
    types: Sequence[CellType], adata: AnnData, aliases: Mapping[str, str] | None
) -> tuple[list[CellType], list[str]]:
    """Give the markers of signatures the names that they have in the table, and leave out those that it lacks.

    Without a marker that a type must have, the type cannot be assigned, nor can its subtypes. A condition that the
    marker is absent or optional is left out; a type that has no other cannot be assigned either.

    Returns
    -------
    Types that can be assigned, and the markers that the table lacks.

    Warns
    -----
    UserWarning
        If the table lacks markers.

    Raises
    ------
    KeyError
        If an alias is not the name of a marker of the table.
    ValueError
        If no type can be assigned.
    """
    find = _Finder(adata, aliases or {})
    named = {each.name: [find.condition(condition) for condition in each.conditions] for each in types}
    impossible = {
        each.name
        for each in types
        if any(new is None and _needed(old) for old, new in zip(each.conditions, named[each.name], strict=True))
        or (each.conditions and not any(named[each.name]))
    }
    impossible |= {each.name for each in types if impossible & {parent.name for parent in ancestors(each, types)}}
    known = [
        replace(each, conditions=tuple(condition for condition in named[each.name] if condition is not None))
        for each in types
        if each.name not in impossible
    ]
    if find.lacking:
        _report(list(find.lacking), sorted(impossible), adata, any_left=bool(known))
    return known, list(find.lacking)


class _Finder:
    """Looks up names of markers, whatever their case and punctuation."""

    def __init__(self, adata: AnnData, aliases: Mapping[str, str]) -> None:
        unknown = [name for name in aliases.values() if name not in adata.var_names]
        if unknown:
            fix = 'Write aliases={"name in the signatures": "marker of the table"}.'
            raise KeyError(no_such("marker", unknown, "the table", adata.var_names, fix))
        markers = adata.var_names.astype(str)
        self.exact = {**dict(zip(markers, markers, strict=True)), **aliases}
        self.alike: dict[str, set[str]] = {}
        self.lacking: dict[str, None] = {}
        originals = adata.var.get(_keys.ORIGINAL_NAME, markers)
        for marker, original in zip(markers, originals, strict=True):
            for name in (marker, str(original)):
                self.alike.setdefault(_simplify(name), set()).add(marker)

    def condition(self, condition: Condition) -> Condition | None:
        """Rename the markers of a condition; None if the table has none of them."""
        found = [(self.marker(name), sign) for name, sign in condition.alternatives]
        known = tuple((name, sign) for name, sign in found if name is not None)
        return replace(condition, alternatives=known) if known else None

    def marker(self, name: str) -> str | None:
        if name in self.exact:
            return self.exact[name]
        alike = self.alike.get(_simplify(name), set())
        if len(alike) == 1:
            return next(iter(alike))
        self.lacking[name] = None
        return None


def _simplify(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _needed(condition: Condition) -> bool:
    return not condition.optional and any(sign == "+" for _, sign in condition.alternatives)


def _report(lacking: Sequence[str], impossible: Sequence[str], adata: AnnData, *, any_left: bool) -> None:
    fix = f'Name it by aliases={{{lacking[0]!r}: "..."}}, and write each marker with + or -.'
    msg = no_such("marker", lacking, "the table", adata.var_names, fix)
    if not any_left:
        msg = f"None of the cell types can be assigned. {msg}"
        raise ValueError(msg)
    without = f" These types cannot be assigned: {listed(impossible)}." if impossible else ""
    warnings.warn(f"{msg}{without}", stacklevel=4)
