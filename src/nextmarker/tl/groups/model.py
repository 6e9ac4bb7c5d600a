"""The model of all variables, its covariates, and what it says of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from statsmodels.formula.api import ols

from nextmarker._errors import check_value, listed, no_such
from nextmarker.tl.groups.fits import Fit, fit_linear, fit_mixed, is_told_apart, permute, read_column
from nextmarker.tl.groups.units import GROUP, PATIENT

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING = {"effect": np.nan, "low": np.nan, "high": np.nan, "p": np.nan}


@dataclass(frozen=True)
class GroupModel:
    """How each variable is compared."""

    units: pd.DataFrame
    """Patient and group of each unit."""
    X: np.ndarray
    """From :func:`design`."""
    covariates: str
    mixed: bool
    permutations: int
    random_state: int

    @property
    def name(self) -> str:
        """What is fitted, in words."""
        terms = " + ".join(filter(None, ["group", self.covariates]))
        return f"mixed model of images: {terms}" if self.mixed else f"linear model of patients: {terms}"


def covariate_columns(covariates: str | Sequence[str], columns: pd.Index, group: str) -> list[str]:
    """List the columns that covariates are made of: a list of columns, or the right side of a formula.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If the group is among them, or the formula has a left side.
    """
    named = list(covariates)
    if isinstance(covariates, str):
        check_value("covariates", covariates, "~" not in covariates, "the right side of a formula, such as 'age + sex'")
        unquoted = re.sub(r"([\'\"]).*?\1", "", covariates)
        # words that are neither functions nor modules, attributes or arguments
        named = list(dict.fromkeys(re.findall(r"(?<![\w.])[^\W\d]\w*\b(?!\s*[(.=])", unquoted)))
    lacking = [name for name in named if name not in columns]
    if lacking:
        raise KeyError(no_such("covariate", lacking, ".obs of the table", columns, "Name others: covariates=..."))
    check_value("covariates", covariates, group not in named, f"other columns than the group, {group!r}")
    return named


def design(units: pd.DataFrame, covariates: str | Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Make the design matrix: a constant, a column of 0 and 1 for each group but the first, and the covariates.

    Raises
    ------
    ValueError
        If the formula gives no number for a unit.
    """
    groups = units[GROUP].cat.codes.to_numpy()
    own = [np.ones(len(units)), *(groups == code for code in range(1, len(units[GROUP].cat.categories)))]
    if not names:
        return np.column_stack(own).astype(float)
    by_number = {name: f"x{number}" for number, name in enumerate(names)}  # names need not be those of variables
    if isinstance(covariates, str):
        model = ols(f"y_ ~ {covariates}", units[names].assign(y_=0.0))
    else:
        model = ols(f"y_ ~ {' + '.join(by_number.values())}", units[names].rename(columns=by_number).assign(y_=0.0))
    if len(model.exog) < len(units):
        lacking = units.index.difference(model.data.row_labels)
        msg = f"covariates={covariates!r} give no number for {listed(lacking)}."
        raise ValueError(msg)
    others = model.exog[:, [name != "Intercept" for name in model.exog_names]]
    return np.column_stack([*own, others]).astype(float)


def compare_variable(
    model: GroupModel, compared: pd.Series, patients: pd.Series, *, is_share: bool
) -> list[dict[str, Any]]:
    """Compare each group with the reference in one variable.

    Parameters
    ----------
    compared
        Value of each unit, NaN where not known.
    patients
        Observed value of each patient by patient and group, without NaN.
    is_share
        Whether 0 means that a type is absent.

    Returns
    -------
    One dictionary for each group but the reference, with the columns of the result.
    """
    known = compared.notna().to_numpy()
    units, X, y = model.units[known], model.X[known], compared[known].to_numpy()
    reference, *others = units[GROUP].cat.categories
    grouped = patients.groupby(level=GROUP, observed=False)
    n, means = grouped.size(), grouped.mean()
    fit = _fit(model, y, X, units) if n.max() > 1 else None
    rows = []
    for column, group in enumerate(others, 1):
        pair = [group, reference]
        row = {"group": group, "reference": reference, "n": n[group], "n_reference": n[reference]}
        row |= {"mean": means[group], "mean_reference": means[reference], **NOTHING, "note": ""}
        absent = [name for name in pair if is_share and means[name] == 0]
        row["note"] = _why_nothing(model, n[pair], absent, X, column) or _why_no_fit(fit, y, X, column)
        if model.permutations:
            row["p_permutation"] = np.nan
        if not row["note"] and fit is not None:
            row |= read_column(fit, column)
            if model.permutations:
                those = units[GROUP].isin(pair).to_numpy()
                row["p_permutation"] = permute(y, X, column, those, model.permutations, model.random_state)
            if absent:
                row |= {"effect": np.nan, "low": np.nan, "high": np.nan}
                row["note"] = f"absent in {absent[0]!r}, so no effect"
        rows.append(row)
    return rows


def _fit(model: GroupModel, y: np.ndarray, X: np.ndarray, units: pd.DataFrame) -> Fit | None:
    return fit_mixed(y, X, units[PATIENT].to_numpy()) if model.mixed else fit_linear(y, X)


def _why_nothing(model: GroupModel, n: pd.Series, absent: Sequence[str], X: np.ndarray, column: int) -> str:
    """Say why a group cannot be compared; empty if it can."""
    few = [f"{'one' if size else 'no'} patient in {group!r}" for group, size in n.items() if size < 2]
    if few:
        return " and ".join(few)
    if len(absent) > 1:
        return "absent in both groups"
    if not is_told_apart(X, column):
        return f"cannot be told apart from {model.covariates}"
    return ""


def _why_no_fit(fit: Fit | None, y: np.ndarray, X: np.ndarray, column: int) -> str:
    """Say why a fit gives no number; empty if it does."""
    if fit is None:
        return "the mixed model did not converge"
    if fit.freedom[column] < 1:
        return "too few patients for the covariates"
    if not fit.error[column] > 1e-9 * abs(y).max():
        return "no variation within groups"
    return ""
