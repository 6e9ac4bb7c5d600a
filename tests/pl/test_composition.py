import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgba

from nextmarker.pl import composition


@pytest.fixture
def adata():
    """Three images: P1 and P3 mostly of T cells, P2 of B cells; the type "unused" has no cells."""
    image = np.repeat(["P1", "P2", "P3"], [10, 20, 5])
    kind = ["T"] * 8 + ["B"] * 2 + ["T"] * 2 + ["B"] * 18 + ["T"] * 4 + ["B"]
    obs = pd.DataFrame({"image": image, "type": pd.Categorical(kind, ["unused", "T", "B"])})
    return AnnData(obs=obs.set_axis([f"cell{i}" for i in range(35)]))


def bars(ax):
    """Share of each group, from the left, (groups, bars)."""
    return np.array([[bar.get_width() for bar in group] for group in ax.containers])


def rows(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def test_shares_and_numbers(adata):
    ax = composition(adata, "type")
    np.testing.assert_allclose(bars(ax), [[0.8, 0.1, 0.8], [0.2, 0.9, 0.2]])
    np.testing.assert_allclose([bar.get_x() for bar in ax.containers[1]], bars(ax)[0])
    assert rows(ax) == ["P1 (10)", "P2 (20)", "P3 (5)"]
    assert ax.yaxis_inverted()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("share of cells", "image (cells)")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["T", "B"]


def test_colours_are_those_of_the_table(adata):
    adata.uns["type_colors"] = ["red", "green", "blue"]
    ax = composition(adata, "type")
    assert [group[0].get_facecolor() for group in ax.containers] == [to_rgba("green"), to_rgba("blue")]


def test_similar_images_are_side_by_side(adata):
    order = [row.split()[0] for row in rows(composition(adata, "type", sort=True))]
    assert abs(order.index("P1") - order.index("P3")) == 1


def test_bars_of_a_group_are_together_below_its_name(adata):
    adata.obs["group"] = adata.obs["image"].map({"P1": "case", "P2": "control", "P3": "case"})
    ax = composition(adata, "type", group_key="group")
    assert [row.split()[0] for row in rows(ax)] == ["P1", "P3", "P2"]
    np.testing.assert_allclose(ax.get_yticks(), [1, 2, 4])
    assert [text.get_text() for text in ax.texts] == ["case", "control"]
    np.testing.assert_allclose([text.get_position()[1] for text in ax.texts], [0.1, 3.1])
    np.testing.assert_allclose(bars(ax)[0], [0.8, 0.8, 0.1])
    adata.obs["group"] = adata.obs["type"]
    with pytest.raises(ValueError, match="Cells of several groups in image 'P1', 'P2', 'P3'"):
        composition(adata, "type", group_key="group")


def test_cells_without_value_are_shown(adata):
    adata.obs.loc["cell0", "type"] = np.nan
    adata.obs["patient"] = pd.Series([None] * 5 + ["A"] * 30, adata.obs_names)
    ax = composition(adata, "type", by="patient")
    assert rows(ax) == ["A (30)", "none (5)"]
    np.testing.assert_allclose(bars(ax)[:, 1], [0.8, 0, 0.2])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["T", "B", "none"]


def test_the_table_is_not_changed(adata):
    before = adata.copy()
    composition(adata, "image", by="type")
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_errors(adata):
    with pytest.raises(KeyError, match=r"'nextmarker'.*nm.tl.cluster"):
        composition(adata)
    with pytest.raises(KeyError, match=r"'sample'.*by="):
        composition(adata, "type", by="sample")
