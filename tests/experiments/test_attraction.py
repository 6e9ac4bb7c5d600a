"""Simulated patients in whom two types attract each other."""

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from experiments import attraction


def test_attraction_keeps_the_cells_and_brings_the_two_types_together():
    rng = np.random.default_rng(0)
    places, types = attraction.make_image(rng, 900, attraction.SHARES.to_numpy())
    attracted = attraction.attract(rng, places, types, 0.5)
    assert (np.bincount(attracted, minlength=9) == np.bincount(types, minlength=9)).all()
    centre, partner = (attraction.SHARES.index.get_loc(name) for name in attraction.PAIR)
    nearest = KDTree(places).query(places, k=2)[1][:, 1]
    before, after = ((each[nearest[each == centre]] == partner).mean() for each in (types, attracted))
    assert after > before + 0.25


def test_only_the_planted_pair_is_found():
    table = attraction.compare_attractions(simulations=4, patients=25, parts=(0.0, 0.5))
    assert table.loc["50%", "the pair, q < 0.05"] == 1
    assert table.loc["50%", "median effect"] > 0.5
    assert table.loc["0%", "the pair, q < 0.05"] == 0
    assert (table["other pairs, q < 0.05"] < 0.02).all()
    assert isinstance(table, pd.DataFrame)
