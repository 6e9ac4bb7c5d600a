"""Groups of patients without and with a difference: how often each test finds one.

Usage: ``python -m experiments.groups [--simulations N] [--tests NAME ...]``

24 patients in two groups, with one to four images of 300 to 3,000 cells each. The nine types have the shares of
``nm.datasets.dense_tissue``, which vary from patient to patient and from image to image (Dirichlet distributions); two
markers vary likewise. Only tables are simulated, no images. Prints, for each test of ``nm.tl.compare_groups`` and for a
chi-square test of the cells of all patients,

- without a difference: how often p < 0.05 (it should be 5 %), and whether p is uniform (Kolmogorov-Smirnov);
- with 1.5 times as many B cells in one group: how often it is found, and how often something else;
- without a difference, but with ten times as many cells in one group, as a check of how zeros are treated.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import stats
from tqdm import trange

import nextmarker as nm
from nextmarker.datasets._dense import _TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHARES = pd.Series({name: kind.share for name, kind in _TYPES.items()})
PLANTED = "B cell"
RARE = {"1 % of cells": 0.01, "0.4 % of cells": 0.004}
SEED = 10
TESTS = {
    "patients": {},
    "permutation of patients": {"permutations": 199},
    "patients, with age": {"covariates": ["age"]},
    "mixed model": {"mixed": True},
    "activation": {"value": "activation", "groupby": "all"},
    "cells": {},
}
"""Arguments of `nm.tl.compare_groups`."""


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=500, help="number of simulations (default: 500)")
    parser.add_argument("--tests", nargs="+", default=list(TESTS), choices=TESTS, help="by default all")
    arguments = parser.parse_args()
    print(without_difference(arguments.simulations, arguments.tests).to_string(), "\n")
    print(with_difference(arguments.simulations, [n for n in arguments.tests if n != "activation"]).to_string(), "\n")
    print(with_other_sizes(arguments.simulations).to_string())


def make_cells(
    rng: np.random.Generator,
    *,
    factor: float = 1,
    alike: float = 25,
    shares: pd.Series = SHARES,
    cells: tuple[tuple[int, int], tuple[int, int]] = ((300, 3000), (300, 3000)),
    patients: int = 12,
) -> AnnData:
    """Make the cells of two groups of patients.

    Parameters
    ----------
    factor
        How much more frequent the planted type is in the second group.
    alike
        How alike patients are: the sum of the parameters of the Dirichlet distribution of their shares. Images of a
        patient are 2.5 times as much alike.
    cells
        Fewest and most cells of an image of each group.
    """
    weights = np.stack([shares, shares * np.where(shares.index == PLANTED, factor, 1)])
    weights /= weights.sum(axis=1, keepdims=True)
    images = []
    for patient in range(2 * patients):
        group = patient // patients
        own = rng.dirichlet(weights[group] * alike)
        age, level = rng.normal(60, 10), rng.normal(0, 0.1, 2)
        for image in range(rng.integers(1, 5)):
            n = int(np.exp(rng.uniform(*np.log(cells[group]))))
            types = rng.choice(len(shares), n, p=rng.dirichlet(np.maximum(own * alike * 2.5, 1e-6)))
            images.append((patient, group, age, f"P{patient}_{image}", types, level + rng.normal(0, 0.05, 2)))
    sizes = [len(types) for *_, types, _ in images]
    obs = pd.DataFrame(
        {
            "patient": pd.Categorical(np.repeat([f"P{patient}" for patient, *_ in images], sizes)),
            "group": pd.Categorical(np.repeat([("control", "case")[group] for _, group, *_ in images], sizes)),
            "age": np.repeat([age for _, _, age, *_ in images], sizes),
            "image": pd.Categorical(np.repeat([name for _, _, _, name, *_ in images], sizes)),
            "cell_type": pd.Categorical.from_codes(np.concatenate([types for *_, types, _ in images]), shares.index),
            "all": pd.Categorical(np.repeat("all", sum(sizes))),
        },
        index=np.arange(sum(sizes)).astype(str),
    )
    activation = np.repeat([level for *_, level in images], sizes, axis=0) + rng.normal(0.5, 0.2, (sum(sizes), 2))
    return AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD8"]), layers={"interpretability": activation})


def compare(adata: AnnData, test: str) -> pd.DataFrame:
    """Run one of the tests: p and q of each variable."""
    if test == "cells":
        return compare_cells(adata)
    if test == "patients, half a cell each":
        return compare_with_half_cells(adata)
    nm.tl.compare_groups(adata, reference="control", **TESTS[test])
    result = adata.uns["group_comparison"].set_index("variable")
    if "permutations" in TESTS[test]:
        result = result.assign(p=result["p_permutation"], q=stats.false_discovery_control(result["p_permutation"]))
    return result[["p", "q"]]


def compare_cells(adata: AnnData) -> pd.DataFrame:
    """Compare all cells of the groups, as if each were independent of the others: what not to do."""
    counts = pd.crosstab(adata.obs["group"], adata.obs["cell_type"])
    others = -counts.sub(counts.sum(axis=1), axis=0)
    p = [stats.chi2_contingency(np.stack([counts[name], others[name]])).pvalue for name in counts]
    return pd.DataFrame({"p": p, "q": stats.false_discovery_control(p)}, counts.columns)


def compare_with_half_cells(adata: AnnData) -> pd.DataFrame:
    """Compare patients by odds with half a cell added to the counts of each, as propeller does."""
    counts = pd.crosstab(adata.obs["patient"], adata.obs["cell_type"])
    odds = np.log2((counts + 0.5) / (0.5 - counts.sub(counts.sum(axis=1), axis=0)))
    case = adata.obs.groupby("patient", observed=True)["group"].first().eq("case").to_numpy()
    p = stats.ttest_ind(odds[case], odds[~case]).pvalue
    return pd.DataFrame({"p": p, "q": stats.false_discovery_control(p)}, counts.columns)


def simulate(n: int, tests: list[str], make: Callable[[np.random.Generator], AnnData]) -> Mapping[str, pd.DataFrame]:
    """Compare simulated patients: p and q by variable, a row for each simulation and variable."""
    found: dict[str, list[pd.DataFrame]] = {test: [] for test in tests}
    for seed in trange(n):
        adata = make(np.random.default_rng([SEED, seed]))
        for test in tests:
            found[test].append(compare(adata, test))
    return {test: pd.concat(results) for test, results in found.items()}


def without_difference(n: int, tests: list[str]) -> pd.DataFrame:
    """Without a difference: how often p < 0.05, and whether p is uniform."""
    rows = {}
    for test, results in simulate(n, tests, make_cells).items():
        each = (results["p"] < 0.05).groupby(level=0, observed=True).mean()
        one = results["p"].loc[PLANTED if PLANTED in results.index else each.index[0]]
        rows[test] = {
            "p < 0.05": each.mean(),
            "lowest": each.min(),
            "highest": each.max(),
            "KS p": stats.kstest(one, "uniform").pvalue,
            "no p": results["p"].isna().mean(),
        }
    return pd.DataFrame(rows).T.round(3)


def with_difference(n: int, tests: list[str]) -> pd.DataFrame:
    """With one type 1.5 times as frequent, in patients that are less and more alike."""
    rows = {}
    for alike in (25, 60):
        for test, results in simulate(n, tests, lambda rng, a=alike: make_cells(rng, factor=1.5, alike=a)).items():
            planted, others = results.loc[PLANTED], results.drop(index=PLANTED)
            rows[alike, test] = {
                "found, p < 0.05": (planted["p"] < 0.05).mean(),
                "found, q < 0.05": (planted["q"] < 0.05).mean(),
                "other type, p < 0.05": (others["p"] < 0.05).mean(),
                "other type, q < 0.05": (others["q"] < 0.05).mean(),
            }
    return pd.DataFrame(rows).T.round(3)


def with_other_sizes(n: int) -> pd.DataFrame:
    """Without a difference, but with ten times as many cells in one group, and rare types."""
    shares = pd.concat([SHARES * (1 - sum(RARE.values())), pd.Series(RARE)])
    sizes = ((100, 300), (1000, 3000))
    tests = ["patients", "patients, half a cell each"]
    rows = {}
    for test, results in simulate(n, tests, lambda rng: make_cells(rng, shares=shares, cells=sizes)).items():
        each = (results["p"] < 0.05).groupby(level=0, observed=True).mean()
        rows[test] = {"frequent types": each.drop(list(RARE)).mean(), **each[list(RARE)]}
    return pd.DataFrame(rows).T.round(3)


if __name__ == "__main__":
    main()
