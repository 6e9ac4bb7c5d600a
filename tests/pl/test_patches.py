import numpy as np
import pandas as pd
import pytest
from geopandas import GeoDataFrame
from shapely import points
from spatialdata.models import Image2DModel, ShapesModel

import nextmarker as nm
from nextmarker.pl import patches

MAGENTA, CYAN, YELLOW = (1, 0, 1), (0, 1, 1), (1, 1, 0)


def set_left(sdata, centres, counts):
    """Give the first cells of the left image other centres, and the image other counts, (marker, y, x): value."""
    circles = sdata.shapes["cells_left"]
    x, y = circles.geometry.x.to_numpy().copy(), circles.geometry.y.to_numpy().copy()
    x[: len(centres)], y[: len(centres)] = np.transpose(centres)
    sdata["cells_left"] = ShapesModel.parse(GeoDataFrame({"geometry": points(x, y), "radius": 3.0}))
    image = np.zeros((4, 60, 90), np.uint16)
    for place, value in counts.items():
        image[place] = value
    sdata["left"] = Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=sdata["left"]["c"].to_numpy())
    names = ["other"] * 40
    names[: len(centres)] = ["mine"] * len(centres)
    sdata["table"].obs["group"] = names


def labels(ax):
    return [text.get_text() for text in ax.texts]


def test_one_row_per_cluster_with_its_own_markers(sdata):
    axes = patches(sdata, n=6)
    assert len(axes) == 3
    for ax, size, marker in zip(axes, [20, 15, 5], ["CD3", "HLA-DR/DP", "Ki 67"], strict=True):
        name, *markers = labels(ax)
        assert name.endswith(f"\n{size} cells")
        assert marker in markers
        assert len(markers) <= 3
        assert ax.images[0].get_array().shape == (11, 6 * 12 - 1, 3)
    assert axes[-1].get_xlabel() == "nextmarker: patches of 11 x 11 pixels"


def test_fewer_cells_than_asked_leave_white(sdata):
    row = patches(sdata, n=8)[2].images[0].get_array()
    assert (row[:, 5 * 12 :] == 1).all()
    assert not (row[:, 4 * 12 : 5 * 12 - 1] == 1).all()


def test_pixels_and_colors_are_those_of_the_image(sdata):
    set_left(sdata, [(30.5, 20.5)], {(1, 20, 30): 9, (2, 18, 30): 9, (3, 20, 33): 9, (1, 20, 36): 9})
    ax, _ = patches(sdata, groupby="group", markers=["CD3", "HLA-DR/DP", "Ki 67"], size=11, n=1)
    patch = ax.images[0].get_array()
    assert patch.shape == (11, 11, 3)
    colors = {(5, 5): MAGENTA, (3, 5): CYAN, (5, 8): YELLOW}  # the centre of the patch is the pixel of the centre
    for place in np.ndindex(11, 11):
        strength = patch[place].max()
        np.testing.assert_allclose(patch[place], np.multiply(strength, colors.get(place, (0, 0, 0))))
        assert (strength > 0) == (place in colors)


def test_patch_over_the_edge_is_black_there(sdata):
    set_left(sdata, [(0.5, 59.5)], {(0,): 7})
    ax, _ = patches(sdata, groupby="group", markers=["DNA"], size=11, n=1)
    lit = ax.images[0].get_array()[:, :, 0] > 0
    expected = np.zeros((11, 11), bool)
    expected[:6, 5:] = True
    np.testing.assert_array_equal(lit, expected)


def test_pixel_size_of_the_model_is_kept(sdata):
    """The model saw pixels of 1 um, the image has pixels of 0.5 um: a patch covers twice as many."""
    set_left(sdata, [(30.5, 20.5)], {(0, 20, 20): 9, (0, 20, 40): 9})
    nm.pp.set_pixel_size(sdata, {"left": 0.5, "right": 1.0})
    sdata["table"].uns["nextmarker"]["embed"]["pixel_size"] = 1.0
    ax, _ = patches(sdata, groupby="group", markers=["DNA"], n=1)
    assert np.argwhere(ax.images[0].get_array()[:, :, 0]).tolist() == [[5, 0], [5, 10]]


def test_choice_of_cells_is_repeatable(sdata):
    first, again, other = (patches(sdata, n=3, random_state=seed)[0].images[0].get_array() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_cluster_without_raised_markers(sdata):
    table = sdata["table"].uns["marker_attribution"]
    table.loc[table["cluster"] == "1", "mean"] = 0
    assert labels(patches(sdata)[1])[1:] == ["no marker stands out"]


def test_clusters_of_an_earlier_embedding_are_drawn_with_a_warning(sdata):
    adata = sdata["table"]
    for number in range(2):
        adata.obs["nextmarker_embedding"] = [f"{'a' * 16}-0000000{number}"] * 40
        if number == 0:
            nm.tl.cluster(adata, n_neighbors=5, key_added="mine")
            nm.tl.marker_attribution(adata, groupby="mine")
            patches(sdata, groupby="mine")
    with pytest.warns(UserWarning, match=r"earlier embedding.*nm.tl.cluster\(adata, key_added='mine'\)") as caught:
        patches(sdata, groupby="mine", markers=["DNA"])
    assert caught[0].filename == __file__
    with (
        pytest.warns(UserWarning, match="earlier embedding"),
        pytest.raises(ValueError, match="another embedding.*markers="),
    ):
        patches(sdata, groupby="mine")


def test_renamed_clusters_keep_their_markers(sdata):
    before = [labels(ax)[1:] for ax in patches(sdata)]
    adata = sdata["table"]
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories({"0": "T", "1": "B", "2": "other"})
    axes = patches(sdata)
    assert [labels(ax)[0].partition("\n")[0] for ax in axes] == ["T", "B", "other"]
    assert [labels(ax)[1:] for ax in axes] == before
    adata.obs["merged"] = adata.obs["nextmarker"].map({"T": "T", "B": "T", "other": "other"})
    with pytest.raises(ValueError, match=r"merged since.*groupby='merged'"):
        patches(sdata, groupby="merged")


def test_silent_marker_is_black(sdata):
    set_left(sdata, [(30.5, 20.5)], {})
    ax, _ = patches(sdata, groupby="group", markers=["DNA"], n=1)
    assert (ax.images[0].get_array() == 0).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "type"}, KeyError, "'type'.*nm.tl.cluster"),
        ({"groupby": "image"}, ValueError, r"nm.tl.marker_attribution\(adata, groupby='image'\).*markers="),
        ({"markers": ["CD3", "CD4"]}, KeyError, r"'CD4'.*'DNA'"),
        ({"markers": ["DNA", "CD3", "Ki 67", "HLA-DR/DP"]}, ValueError, "one to three"),
        ({"markers": []}, ValueError, "one to three"),
        ({"key": "other"}, KeyError, "nm.tl.marker_attribution"),
    ],
)
def test_errors(sdata, arguments, error, message):
    with pytest.raises(error, match=message):
        patches(sdata, **arguments)


def test_patch_size_not_known(sdata):
    del sdata["table"].uns["nextmarker"]["embed"]
    with pytest.raises(KeyError, match="size="):
        patches(sdata)
    assert len(patches(sdata, size=9)) == 3


def test_chosen_cells_in_the_row_of_their_cluster(sdata):
    names = sdata["table"].obs_names
    clusters = sdata["table"].obs["nextmarker"]
    zero, two = np.flatnonzero(clusters == "0")[[7, 3]], np.flatnonzero(clusters == "2")[:1]
    chosen = [*zero, *two]
    drawn = [ax.images[0].get_array() for ax in patches(sdata, cells=names[chosen], markers=["DNA"])]
    assert [row.shape[1] for row in drawn] == [2 * 12 - 1] * 2
    assert (drawn[1][:, 12:] == 1).all()
    for other in (chosen, list(names[chosen]), pd.Series(names[chosen])):
        for row, again in zip(drawn, patches(sdata, cells=other, markers=["DNA"]), strict=True):
            np.testing.assert_array_equal(row, again.images[0].get_array())
    backwards = patches(sdata, cells=chosen[::-1], markers=["DNA"])[0].images[0].get_array()
    np.testing.assert_array_equal(backwards[:, :11], drawn[0][:, 12:])
    mask = sdata["table"].obs_names.isin(names[chosen])
    assert len(patches(sdata, cells=mask)) == 2


def test_typical_cells_are_drawn(sdata):
    table = nm.get.example_cells(sdata, 3)
    assert len(patches(sdata, cells=table.index)) == 3


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        (["cell3", "cell99"], KeyError, "No cell 'cell99'.*cells="),
        ([40], ValueError, "row numbers from 0 to 39"),
        ([-1], ValueError, "row numbers from 0 to 39"),
        ([], ValueError, "a list of cells"),
        ([True, False], ValueError, "40 times True or False"),
        ([False] * 40, ValueError, "40 times True or False"),
        (["cell3"], ValueError, "no value in .obs.*'cell3'"),
        (["cell4"], ValueError, "obs_names_make_unique"),
    ],
)
def test_errors_of_cells(sdata, chosen, error, message):
    adata = sdata["table"]
    adata.obs.loc["cell3", "nextmarker"] = np.nan
    if chosen == ["cell4"]:
        adata.obs_names = ["cell4" if name == "cell5" else name for name in adata.obs_names]
    with pytest.raises(error, match=message):
        patches(sdata, cells=chosen, markers=["DNA"])


def test_scale_bar_where_the_pixel_size_is_known(sdata):
    assert not patches(sdata)[-1].lines
    nm.pp.set_pixel_size(sdata, 0.5)
    ax = patches(sdata)[-1]
    assert ax.get_xlabel() == "nextmarker: patches of 11 x 11 pixels, bar 2 µm"
    assert np.ptp(ax.lines[0].get_xdata()) == 4


def test_names_and_markers_of_a_row_do_not_overlap(sdata):
    obs = sdata["table"].obs
    obs["nextmarker"] = obs["nextmarker"].cat.rename_categories({"0": "a cluster with a name of some length"})
    axes = patches(sdata, groupby="nextmarker", markers=["CD3", "HLA-DR/DP"])
    figure = axes[0].figure
    figure.canvas.draw()
    for ax in axes:
        name, *markers = [text.get_window_extent() for text in ax.texts]
        assert figure.bbox.x0 <= name.x0
        assert name.x1 < min(marker.x0 for marker in markers)
