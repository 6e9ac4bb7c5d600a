from itertools import pairwise

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

import nextmarker as nm

SHARES = {"a1": 10, "a2": 20, "a3": 15, "b1": 40, "b2": 50, "b3": 45, "c1": 30}


@pytest.fixture
def adata():
    """Seven patients of 100 cells in three groups, of which "c" has only one patient."""
    types = np.concatenate([["T"] * n + ["B"] * (90 - n) + ["NK"] * 10 for n in SHARES.values()])
    patient = np.repeat(list(SHARES), 100)
    obs = pd.DataFrame({"cell_type": types, "patient": patient, "group": [name[0] for name in patient]})
    adata = AnnData(obs=obs.set_axis([f"cell{i}" for i in range(700)]).astype("category"))
    nm.tl.compare_groups(adata, image_key="patient")
    return adata


def labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def heights(ax):
    """Height of the points of each group, before the line at their mean."""
    return [sorted(np.round(group.get_offsets()[:, 1], 6)) for group in ax.collections[::2]]


def test_points_of_patients_and_results(adata):
    axes = nm.pl.groups(adata)
    assert [ax.get_title() for ax in axes] == ["B", "NK", "T"]
    assert heights(axes[2]) == [[10, 15, 20], [40, 45, 50], [30]]
    q = adata.uns["group_comparison"].set_index(["variable", "group"]).loc[("T", "b"), "q"]
    assert labels(axes[2]) == ["a\n", f"b\nq = {q:.2g}", "c\nnot compared"]
    assert labels(axes[1])[1] == "b\nnot compared"  # the same share in all patients
    assert axes[0].figure.get_supylabel() == "share of cells (%)"


def test_no_point_is_cut_off(adata):
    for ax in nm.pl.groups(adata):
        low, high = ax.get_ylim()
        assert low == 0
        assert max(map(max, heights(ax))) < 0.95 * high


def test_variables_are_chosen_by_name_or_smallest_p(adata):
    assert [ax.get_title() for ax in nm.pl.groups(adata, "NK")] == ["NK"]
    assert [ax.get_title() for ax in nm.pl.groups(adata, n=2)] == ["B", "T"]
    with pytest.raises(KeyError, match="No variable 'Treg' in the comparison"):
        nm.pl.groups(adata, ["Treg"])


def test_colours_are_those_of_the_table_also_after_saving(adata, tmp_path):
    adata.uns["group_colors"] = ["red", "green", "blue"]
    adata.write_h5ad(tmp_path / "table.h5ad")
    ax = nm.pl.groups(ad.read_h5ad(tmp_path / "table.h5ad"))[0]
    assert [tuple(group.get_facecolor()[0]) for group in ax.collections[::2]] == [
        to_rgba(color) for color in ("red", "green", "blue")
    ]


def test_the_table_is_not_changed_and_need_not_have_the_cells(adata):
    cut = adata[adata.obs["group"] == "a"].copy()
    before = cut.copy()
    assert heights(nm.pl.groups(cut)[2]) == [[10, 15, 20], [40, 45, 50], [30]]
    pd.testing.assert_frame_equal(cut.obs, before.obs)
    with pytest.raises(KeyError, match="No 'other'.*compare_groups"):
        nm.pl.groups(adata, key="other")


def test_patients_that_changed_groups_are_named(adata):
    adata.obs.loc[adata.obs["patient"] == "a2", "group"] = "b"
    with pytest.warns(UserWarning, match="Patients 'a2' are in other groups than when compared"):
        nm.pl.groups(adata)


def test_names_of_groups_do_not_touch(adata):
    adata = adata[adata.obs["group"] != "c"].copy()
    adata.obs["group"] = adata.obs["group"].cat.rename_categories({"a": "non-responder", "b": "responder"})
    adata.obs["cell_type"] = np.random.default_rng(0).choice(list("ABCDEFGH"), adata.n_obs)
    nm.tl.compare_groups(adata, image_key="patient")
    ax = nm.pl.groups(adata)[0]
    ax.figure.canvas.draw()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(right.x0 - left.x1 > 8 for left, right in pairwise(boxes))
