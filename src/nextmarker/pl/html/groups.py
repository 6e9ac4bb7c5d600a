"""Section on differences between groups of patients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._record import read_record, record_name
from nextmarker.pl._groups import SHARE
from nextmarker.pl._groups import groups as draw_groups
from nextmarker.pl.html.blocks import Block, Words, drawn, first_few, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextmarker.pl.html.source import Source

SIGNIFICANT = 0.05
"""q below which a difference is named."""
NAMED = 5
"""Differences that a sentence names."""
MOST_ROWS = 100
"""Comparisons that are listed."""


def groups(source: Source) -> list[Block]:
    """Draw the patients of each group, and name the differences."""
    return [block for key in source.results(_keys.COMPARE_STEP) for block in _groups(source, key)]


def _groups(source: Source, key: str) -> list[Block]:
    compared = source.adata.uns[key]
    record = read_record(source.adata, record_name(_keys.COMPARE_STEP, key))
    blocks: list[Block] = [Words(_what(compared, record)), _differences(compared, record)]
    left_out = list(record.get("left_out", ()))
    if left_out:
        blocks.append(Words(f"Left out of the comparison: {first_few(left_out)}.", "check"))
    axes = draw_groups(source.adata, key=key)
    alt = f"Patients of each group in {counted(len(axes), 'variable')}."
    blocks.append(drawn(axes, alt, "Patients of each group as points, their mean as a line, and q."))
    first = compared.sort_values("p", kind="stable").head(MOST_ROWS)
    few = f", the {MOST_ROWS} with the smallest p" if len(first) < len(compared) else ""
    return [*blocks, table(f"{counted(len(compared), 'comparison')}{few}", first, folded=True)]


def _what(compared: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """Say what was compared, and how many patients each group has."""
    sizes = compared.groupby(compared["group"].astype(str), sort=False)["n"].max()
    sizes = pd.concat([pd.Series({str(compared["reference"].iloc[0]): compared["n_reference"].max()}), sizes])
    patients = " and ".join(f"{name} ({counted(int(n), 'patient')})" for name, n in sizes.items())
    what = f"{record.get('measured', 'value')}, {counted(compared['variable'].nunique(), 'variable')}"
    return f"Compared between {patients}: {what}."


def _differences(compared: pd.DataFrame, record: Mapping[str, Any]) -> Words:
    """Name the differences, the smallest q first, and say how many comparisons were not possible."""
    found = compared[compared["q"] < SIGNIFICANT].sort_values("q", kind="stable")
    named = [_in_words(row, record.get("measured") == SHARE) for _, row in found.iterrows()]
    words = f"Different at q < {SIGNIFICANT}: {first_few(named, NAMED)}."
    if not named:
        words = f"Nothing differs clearly: no q is below {SIGNIFICANT}."
    nothing = compared[compared["p"].isna()]
    if len(nothing) == len(compared):
        return Words(f"Nothing could be compared, mostly since: {nothing['note'].mode()[0]}.", "check")
    if len(nothing):
        words += f" {len(nothing)} of {len(compared)} comparisons were not possible; the column `note` says why."
    return Words(words)


def _in_words(row: pd.Series, is_share: bool) -> str:
    own, other = (f"{100 * row[name]:.1f} %" if is_share else f"{row[name]:.3g}" for name in ("mean", "mean_reference"))
    return f"{row['variable']} ({own} in {row['group']}, {other} in {row['reference']}, q = {row['q']:.2g})"
