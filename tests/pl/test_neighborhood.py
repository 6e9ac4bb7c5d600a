"""Figures of neighbours: means over images, groups and their difference, and where images agree."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

import nextmarker as nm

TYPES = ["T", "B", "M"]


@pytest.fixture
def adata():
    """Six images in two groups. T and B: attraction in group "b" only. M and M: never."""
    images = [f"core_{number}" for number in range(6)]
    obs = pd.DataFrame(
        [(image, kind) for image in images for kind in TYPES for _ in range(5)], columns=["image", "cell_type"]
    ).astype("category")
    obs["cell_type"] = obs["cell_type"].cat.reorder_categories(TYPES)
    obs["group"] = pd.Categorical(np.where(obs["image"].isin(images[:3]), "b", "a"), ["b", "a", "unused"])
    table = pd.DataFrame(
        [(image, one, other) for image in images for one in TYPES for other in TYPES],
        columns=["image", "cell_type", "neighbor"],
    ).assign(n_cells=5, log2_ratio=0.0)
    for name in ("cell_type", "neighbor"):
        table[name] = pd.Categorical(table[name], TYPES)
    pair = table["cell_type"].isin(["T", "B"]) & table["neighbor"].isin(["T", "B"])
    pair &= table["cell_type"] != table["neighbor"]
    table.loc[pair, "log2_ratio"] = np.where(table.loc[pair, "image"].isin(images[:3]), 2.0, -0.2)
    table.loc[(table["cell_type"] == "M") & (table["neighbor"] == "M"), "log2_ratio"] = np.nan
    record = {"neighborhood": {"groupby": "cell_type", "image_key": "image"}}
    uns = {"neighborhood": table.set_axis(table.index.astype(str)), "nextmarker": record}
    return AnnData(obs=obs.set_axis([f"cell_{row}" for row in range(len(obs))]), uns=uns)


def dots(ax):
    return {tuple(map(int, dot)) for dot in ax.collections[0].get_offsets()}


def test_matrix_has_the_means_over_all_images(adata):
    (ax,) = nm.pl.neighborhood(adata)
    drawn = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[0, 0.9, 0], [0.9, 0, 0], [0, 0, np.nan]])
    assert ax.images[0].get_clim() == (-0.9, 0.9)
    assert [label.get_text() for label in ax.get_xticklabels()] == TYPES
    assert ax.get_title() == "6 images"
    assert dots(ax) == set()  # the images do not agree


def test_groups_are_side_by_side_and_then_their_difference(adata):
    first, second, difference = nm.pl.neighborhood(adata, "group")
    assert [ax.get_title() for ax in (first, second, difference)] == ["b (3 images)", "a (3 images)", "a - b"]
    assert first.images[0].get_clim() == second.images[0].get_clim() == (-2, 2)
    assert difference.images[0].get_array()[0, 1] == pytest.approx(-2.2)
    assert dots(first) == {(0, 1), (1, 0)}
    assert dots(second) == set()  # they agree, but the ratio is near 1


def test_similar_types_are_side_by_side(adata):
    (ax,) = nm.pl.neighborhood(adata, sort=True)
    order = [label.get_text() for label in ax.get_yticklabels()]
    assert sorted(order) == sorted(TYPES)
    assert ax.images[0].get_array()[order.index("T"), order.index("B")] == pytest.approx(0.9)


def test_network_links_types_of_which_the_images_agree(adata):
    adata.uns["cell_type_colors"] = ["red", "green", "blue"]
    first, second = nm.pl.neighborhood(adata, "group", kind="network")
    assert (len(first.lines), len(second.lines)) == (1, 0)
    ends = {tuple(end) for end in first.lines[0].get_xydata().round(6)}
    places = first.collections[0].get_offsets().round(6)
    assert ends == {tuple(places[0]), tuple(places[1])}
    assert [text.get_text() for text in first.texts] == TYPES
    np.testing.assert_array_equal(first.collections[0].get_facecolors(), [to_rgba(c) for c in ("red", "green", "blue")])


def test_tables_that_changed_since(adata):
    with pytest.warns(UserWarning, match=r"other cells.*nm.tl.neighborhood\(adata, 'cell_type'\)"):
        nm.pl.neighborhood(adata[adata.obs["image"] != "core_0"])
    fewer = adata[adata.obs["image"] != "core_0"].copy()
    with pytest.warns(UserWarning, match="other cells"):
        first = nm.pl.neighborhood(fewer, "group")[0]
    assert first.get_title() == "b (2 images)"
    renamed = adata.copy()
    renamed.obs["cell_type"] = renamed.obs["cell_type"].cat.rename_categories({"M": "Macrophage"})
    with pytest.warns(UserWarning, match=r"The types in .obs\['cell_type'\] have changed since"):
        nm.pl.neighborhood(renamed)
    del adata.obs["cell_type"]
    nm.pl.neighborhood(adata)  # nothing to compare with


def test_the_table_is_not_changed(adata):
    before = adata.copy()
    nm.pl.neighborhood(adata, "group", sort=True)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.uns["neighborhood"], before.uns["neighborhood"])
    assert set(adata.uns) == set(before.uns)


def test_errors(adata):
    with pytest.raises(ValueError, match="kind='graph'"):
        nm.pl.neighborhood(adata, kind="graph")
    with pytest.raises(KeyError, match="'patient'.*group_key="):
        nm.pl.neighborhood(adata, "patient")
    with pytest.raises(ValueError, match="'core_0' has several groups"):
        nm.pl.neighborhood(adata, "cell_type")
    adata.obs["empty"] = np.nan
    with pytest.raises(ValueError, match="No image has a group"):
        nm.pl.neighborhood(adata, "empty")
    del adata.uns["neighborhood"]
    with pytest.raises(KeyError, match=r"nm.tl.neighborhood\(adata\)"):
        nm.pl.neighborhood(adata)


def test_small_differences_stay_pale(adata):
    adata.uns["neighborhood"]["log2_ratio"] = np.where(adata.uns["neighborhood"]["image"] == "core_0", 0.03, 0.0)
    assert nm.pl.neighborhood(adata, "group")[2].images[0].get_clim() == (-0.5, 0.5)
