"""Simulated patients: tests of patients find no difference where there is none, tests of cells do."""

import numpy as np

from experiments import groups


def test_cells_of_two_groups():
    adata = groups.make_cells(np.random.default_rng(0), patients=3)
    patients = adata.obs.groupby("patient", observed=True)
    assert (patients["group"].nunique() == 1).all()
    assert patients["image"].nunique().between(1, 4).all()
    assert set(adata.obs["cell_type"]) <= set(groups.SHARES.index)
    many = groups.make_cells(np.random.default_rng(0), factor=4, alike=1000, patients=8)
    shares = many.obs.groupby("group", observed=True)["cell_type"].value_counts(normalize=True)
    odds = shares / (1 - shares)
    assert 3 < odds["case", "B cell"] / odds["control", "B cell"] < 5.5


def test_patients_and_cells_without_a_difference():
    table = groups.without_difference(12, ["patients", "patients, with age", "cells"])
    assert table.loc[["patients", "patients, with age"], "p < 0.05"].max() < 0.15
    assert table.loc["cells", "p < 0.05"] > 0.3
    assert (table["no p"] == 0).all()


def test_a_planted_difference_is_found():
    results = groups.simulate(4, ["patients"], lambda rng: groups.make_cells(rng, factor=3, alike=200))["patients"]
    assert (results.loc["B cell", "q"] < 0.01).all()
