"""Fits of one variable: the linear model, the mixed model, and the permutation of patients."""

from __future__ import annotations

import warnings
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM

LEVEL = 0.95
"""Of the confidence intervals."""


class Fit(NamedTuple):
    """Coefficients of a model, their standard errors and degrees of freedom, each (columns,)."""

    effect: np.ndarray
    error: np.ndarray
    freedom: np.ndarray


def is_told_apart(X: np.ndarray, column: int) -> bool:
    """Tell whether a column of the design is no combination of the others, so that its coefficient is unique."""
    return bool(np.linalg.matrix_rank(X) > np.linalg.matrix_rank(np.delete(X, column, axis=1)))


def fit_linear(y: np.ndarray, X: np.ndarray) -> Fit:
    """Fit by least squares."""
    keep = _independent(X)
    freedom = np.full(X.shape[1], len(y) - keep.sum())
    if freedom[0] < 1:
        return _scatter(np.nan, np.nan, keep, freedom)
    result = OLS(y, X[:, keep]).fit()
    return _scatter(result.params, result.bse, keep, freedom)


def fit_mixed(y: np.ndarray, X: np.ndarray, patients: np.ndarray) -> Fit | None:
    """Fit with a random intercept for each patient, by restricted maximum likelihood; None if that fails.

    A coefficient has the degrees of freedom of patients, or those within patients if its column differs within them.
    The normal distribution, statsmodels' own choice, finds too much in few patients.
    """
    keep = _independent(X)
    n_patients = len(np.unique(patients))
    within = (pd.DataFrame(X).groupby(patients).nunique() > 1).any().to_numpy()
    of_images = len(y) - n_patients - (keep & within).sum()
    freedom = np.where(within, of_images, n_patients - (keep & ~within).sum())
    if freedom.min() < 1:
        return _scatter(np.nan, np.nan, keep, np.zeros_like(freedom))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # told by `converged`
            result = MixedLM(y, X[:, keep], groups=patients).fit(reml=True, method=["bfgs", "powell"])
    except (np.linalg.LinAlgError, ValueError):
        return None
    if not result.converged or not np.isfinite(result.bse_fe).all():
        return None
    return _scatter(result.fe_params, result.bse_fe, keep, freedom)


def _scatter(effect: np.ndarray | float, error: np.ndarray | float, keep: np.ndarray, freedom: np.ndarray) -> Fit:
    """Put the numbers of the columns that were fitted among those that were not."""
    all_effects, all_errors = np.full((2, len(keep)), np.nan)
    all_effects[keep], all_errors[keep] = effect, error
    return Fit(all_effects, all_errors, freedom)


def _independent(X: np.ndarray) -> np.ndarray:
    """Choose columns that are no combination of those before them, bool (columns,)."""
    ranks = [np.linalg.matrix_rank(X[:, : n + 1]) for n in range(X.shape[1])]
    return np.diff(ranks, prepend=0) > 0


def read_column(fit: Fit, column: int) -> dict[str, float]:
    """Effect, confidence interval and p of a coefficient, by Student's t."""
    effect, error, freedom = (values[column] for values in fit)
    half = error * stats.t.ppf((1 + LEVEL) / 2, freedom)
    p = 2 * stats.t.sf(abs(effect / error), freedom)
    return {"effect": effect, "low": effect - half, "high": effect + half, "p": p}


def permute(y: np.ndarray, X: np.ndarray, column: int, pair: np.ndarray, n: int, random_state: int) -> float:
    """Test a coefficient by permutation of the patients of two groups, and return its p.

    What the other columns explain stays in place, and the residuals are permuted (Freedman and Lane, 1983). Without
    covariates this is a permutation of the groups; if there are at most `n`, each is used once.

    Parameters
    ----------
    column
        Column of the design with 1 for the second group.
    pair
        Which patients are of either group, bool (patients,).
    """
    others = np.delete(X, column, axis=1)
    expected = others @ np.linalg.lstsq(others, y, rcond=None)[0]
    residual = y - expected
    second = X[pair, column] == 1
    exact = set(np.unique(X)) <= {0, 1} and (X[:, 1:].sum(axis=1) <= 1).all() and comb(len(second), second.sum()) <= n
    orders = _all_orders(second) if exact else _random_orders(len(second), n, random_state)
    permuted = np.repeat(residual[:, None], len(orders), axis=1)
    permuted[pair] = residual[pair][orders].T
    at_least = abs(_t(expected[:, None] + permuted, X, column)) >= abs(_t(y[:, None], X, column)) * (1 - 1e-9)
    return float(at_least.mean() if exact else (at_least.sum() + 1) / (n + 1))


def _all_orders(second: np.ndarray) -> np.ndarray:
    """Every choice of the second group, as the position from which each patient gets its residual."""
    orders = []
    for chosen in combinations(range(len(second)), int(second.sum())):
        order = np.empty(len(second), dtype=int)
        order[second] = chosen
        order[~second] = np.setdiff1d(np.arange(len(second)), chosen)
        orders.append(order)
    return np.array(orders)


def _random_orders(size: int, n: int, random_state: int) -> np.ndarray:
    return np.random.default_rng(random_state).permuted(np.tile(np.arange(size), (n, 1)), axis=1)


def _t(Y: np.ndarray, X: np.ndarray, column: int) -> np.ndarray:
    """Coefficient of a column divided by the root of the residual sum of squares, for each column of Y."""
    coefficients = np.linalg.pinv(X) @ Y
    with np.errstate(divide="ignore"):
        return coefficients[column] / np.sqrt(((Y - X @ coefficients) ** 2).sum(axis=0))
