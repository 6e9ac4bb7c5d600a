import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from spatialdata import SpatialData

import nextmarker as nm


@pytest.fixture
def adata():
    """80 of 100 cells agree, ten have no second type."""
    first = np.repeat(["T", "B", "NK"], [50, 40, 20]).astype(object)
    second = first.copy()
    second[:10], second[50:60] = "B", "unsure"
    second[100:] = None
    obs = pd.DataFrame({"cell_type": first, "ie_type": second}, index=[f"cell{i}" for i in range(110)])
    return AnnData(obs=obs, obsm={"X_umap": np.random.default_rng(0).normal(size=(110, 2))})


def written(ax):
    """Numbers in the matrix, by row and column."""
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in ax.texts}


def test_matrix_shows_percent_of_the_row(adata):
    ax = nm.pl.agreement(adata, "cell_type", "ie_type")[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["B", "NK", "T"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["B", "NK", "T", "unsure"]
    assert written(ax) == {(0, 0): "75", (0, 3): "25", (1, 1): "100", (2, 0): "20", (2, 2): "80"}
    np.testing.assert_allclose(ax.images[0].get_array().sum(axis=1), 1)
    sizes = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    assert sizes == ["40", "10", "50"]
    assert ax.get_title() == "100 cells: 80.0 % have the same type, kappa 0.68"


def test_umap_in_green_and_red(adata):
    ax = nm.pl.agreement(adata, "cell_type", "ie_type")[1]
    rest, _, cells = ax.collections[:3]
    places = np.asarray(cells.get_offsets())
    same = (adata.obs["cell_type"] == adata.obs["ie_type"]).to_numpy()
    green = np.array([to_hex(color) for color in cells.get_facecolors()]) == "#009e73"
    for side in (True, False):
        drawn = places[green == side]
        expected = adata.obsm["X_umap"][:100][same[:100] == side]
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
    np.testing.assert_allclose(rest.get_offsets(), adata.obsm["X_umap"][100:])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["without a type: 10", "same type: 80", "other type: 20"]


def test_only_the_matrix_without_a_umap(adata):
    del adata.obsm["X_umap"]
    axes = nm.pl.agreement(SpatialData(tables={"table": adata}), "cell_type", "ie_type")
    assert len(axes) == len(axes[0].figure.axes) == 1


def test_numbers_get_smaller_and_stay_readable():
    types = [f"type {number}" for number in range(25)]
    obs = pd.DataFrame({"first": types * 4, "second": types * 3 + types[::-1]})
    many = AnnData(obs=obs.set_axis([f"cell{i}" for i in range(100)]))
    ax = nm.pl.agreement(many, "first", "second")[0]
    ax.figure.draw_without_rendering()
    width = ax.get_window_extent().width / 25
    assert all(text.get_window_extent().width < width for text in ax.texts)
    assert min(text.get_fontsize() for text in ax.texts) >= 6


def test_columns_without_a_common_type(adata):
    adata.obs["nextmarker"] = pd.Categorical(["0", "1"] * 55)
    with pytest.raises(ValueError, match=r"'B', 'NK', 'T'.*'0', '1'.*nm.metrics.confusion"):
        nm.pl.agreement(adata, "cell_type", "nextmarker")
    with pytest.raises(KeyError, match="'other'.*groupby"):
        nm.pl.agreement(adata, "cell_type", "other")


def test_labels_of_two_types_are_no_longer_than_their_axes():
    types = ["T", "B"] * 5
    adata = AnnData(
        obs=pd.DataFrame({"mean_intensity_cell_type": types, "cell_type": types}, np.arange(10).astype(str))
    )
    adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(10, 2))
    matrix, umap = nm.pl.agreement(adata, "mean_intensity_cell_type", "cell_type")
    matrix.figure.draw_without_rendering()
    assert matrix.yaxis.label.get_window_extent().height < matrix.get_window_extent().height
    assert umap.title.get_window_extent().x1 < umap.figure.bbox.x1
