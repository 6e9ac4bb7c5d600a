"""Patients of each group as points, with the result of the comparison."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_value, listed, no_such
from nextmarker._record import read_record, record_name
from nextmarker._table import get_table, require
from nextmarker.pl._colors import category_colors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

SHARE = "share of cells"
BESIDE = (0, 0.12, -0.12, 0.24, -0.24)  # places of points of about the same height, where groups are 1 apart
COLUMNS = 4  # at most
LETTER = 0.085  # inches
HEADROOM = 1.08  # so that no point is cut off


def groups(
    data: AnnData | SpatialData,
    variables: Sequence[str] | str | None = None,
    *,
    n: int = 12,
    key: str = _keys.COMPARISON,
    table_key: str = _keys.TABLE,
) -> np.ndarray:
    """Draw the patients of each group as points, for each cell type or other variable that was compared.

    A line marks the mean of the patients of a group. Below the name of a group is q of its comparison with the
    reference, or "not compared" if there is none; the column `note` of the result says why.

    Parameters
    ----------
    data
        Table after `nm.tl.compare_groups`, or the SpatialData object that contains it.
    variables
        What is drawn, by its name in the column `variable` of the result; by default all, or if these are more than
        `n`, those with the smallest p.
    n
        Most variables that are drawn by default.
    key
        Name of the result, the `key_added` of `nm.tl.compare_groups`.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    One Axes for each variable. Groups have scanpy's colours in `.uns` if they exist.

    Warns
    -----
    UserWarning
        If patients are in other groups than when they were compared.

    Raises
    ------
    KeyError
        If the table, the result or a variable does not exist.
    ValueError
        If `n` is below 1.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> t_cells = {"P1": 10, "P2": 14, "P3": 12, "P4": 31, "P5": 24, "P6": 28}
    >>> types = np.concatenate([["T"] * n + ["B"] * (100 - n) for n in t_cells.values()])
    >>> patient = np.repeat(list(t_cells), 100)
    >>> obs = pd.DataFrame({"cell_type": types, "patient": patient, "group": np.repeat(["control", "case"], 300)})
    >>> adata = AnnData(obs=obs.set_axis(np.arange(600).astype(str)))
    >>> nm.tl.compare_groups(adata, image_key="patient", reference="control")
    >>> axes = nm.pl.groups(adata)
    >>> [ax.get_title() for ax in axes]
    ['B', 'T']
    """
    check_value("n", n, n >= 1, "at least 1")
    adata = get_table(data, table_key)
    call = "nm.tl.compare_groups(adata)"
    table = require(adata, "uns", key, call)
    points = require(adata, "uns", f"{key}_{_keys.VALUES}", call)
    record = read_record(adata, record_name(_keys.COMPARE_STEP, key))
    _compare_groups(adata, points, record)
    shown = _choose(table, variables, n)
    names = [str(table["reference"].iloc[0]), *table["group"].astype(str).unique()]
    colors = _colors(adata, str(record.get("group_key", _keys.GROUP)), names)
    is_share = record.get("measured") == SHARE

    rows = -(-len(shown) // COLUMNS)
    columns = -(-len(shown) // rows)
    size = 0.4 + columns * _width(names), 2.6 * rows
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for ax, name in zip(axes.flat, shown, strict=False):
        own = points[points["variable"] == name]
        for x, group in enumerate(names):
            values = own.loc[own["group"] == group, "value"].to_numpy() * (100 if is_share else 1)
            _draw_points(ax, x, np.sort(values), colors[group])
        q = table[table["variable"] == name].set_index("group")["q"].to_dict()
        ax.set_xticks(range(len(names)), [f"{group}\n{_result(q.get(group))}" for group in names])
        ax.set_title(name, fontsize="medium")
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.spines[["top", "right"]].set_visible(False)
        if is_share:
            ax.set_ylim(0, 100 * HEADROOM * own["value"].max() or 1)
    for ax in axes.flat[len(shown) :]:
        ax.remove()
    figure.supylabel(f"{SHARE} (%)" if is_share else str(record.get("measured", "value")), fontsize="medium")
    return axes.ravel()[: len(shown)]


def _width(names: Sequence[str]) -> float:
    """Inches of an Axes in which the names of neighbouring groups do not touch."""
    letters = [max(len(name), len("q = 0.01")) for name in names]
    apart = max((left + right) / 2 for left, right in pairwise(letters)) + 1
    return 0.5 + LETTER * apart * (len(names) + 0.2)


def _compare_groups(adata: AnnData, points: pd.DataFrame, record: Mapping[str, str]) -> None:
    """Warn if patients of the table are no longer in the groups that were compared."""
    columns = [record.get("patient_key"), record.get("group_key")]
    if not set(columns) <= set(adata.obs):
        return
    now = adata.obs[columns].dropna(subset=columns[:1]).drop_duplicates().astype(str)
    then = points[["patient", "group"]].drop_duplicates().astype(str)
    then = then[then["patient"].isin(now[columns[0]])]
    moved = set(then.itertuples(index=False, name=None)) - set(now.itertuples(index=False, name=None))
    if moved:
        names = listed(sorted({patient for patient, _ in moved}))
        msg = f"Patients {names} are in other groups than when compared. Compare again: nm.tl.compare_groups(adata)."
        warnings.warn(msg, stacklevel=3)


def _choose(table: pd.DataFrame, variables: Sequence[str] | str | None, n: int) -> list[str]:
    """Choose what is drawn, in the order of the result."""
    known = list(table["variable"].astype(str).unique())
    if variables is None:
        smallest = table.groupby(table["variable"].astype(str), sort=False)["p"].min().sort_values(kind="stable")
        return [name for name in known if name in set(smallest.index[:n])]
    chosen = [variables] if isinstance(variables, str) else list(variables)
    lacking = [name for name in chosen if name not in known]
    if lacking:
        raise KeyError(no_such("variable", lacking, "the comparison", known, "Name others: variables=[...]."))
    return chosen


def _colors(adata: AnnData, column: str, names: list[str]) -> dict[str, str]:
    """Colours of the groups, those of the column if it still has them all."""
    labels = adata.obs.get(column, pd.Series(names, name=column)).astype("category")
    colors = {str(name): color for name, color in category_colors(adata, labels).items()}
    if not set(names) <= set(colors):
        own = category_colors(adata, pd.Series(pd.Categorical(names, names)))
        colors = {str(name): color for name, color in own.items()}
    return colors


def _draw_points(ax: Axes, x: int, values: np.ndarray, color: str) -> None:
    """Draw sorted values one beside the other, and their mean."""
    if not len(values):
        return
    beside = np.resize(BESIDE, len(values))
    ax.scatter(x + beside, values, s=14, color=color, edgecolors="0.3", linewidths=0.3, zorder=2)
    ax.hlines(values.mean(), x - 0.35, x + 0.35, color="black", linewidth=1.2, zorder=3)


def _result(q: float | None) -> str:
    """What a comparison found, in few characters; empty for the reference."""
    if q is None:
        return ""
    return "not compared" if np.isnan(q) else ("q < 0.001" if q < 0.001 else f"q = {q:.2g}")
