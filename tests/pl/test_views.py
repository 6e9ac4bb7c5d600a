import numpy as np
import pytest
import xarray as xr

from nextmarker.pl import views


def patch(side, name, scale=1.0):
    """CD3 rises along x, CD20 is empty."""
    offset = np.arange(side) - (side - 1) / 2
    counts = np.zeros((2, side, side), np.float32)
    counts[0] = scale * np.arange(side)
    coords = {"marker": ["CD3", "CD20"], "y": offset, "x": offset}
    return xr.DataArray(counts, coords, ("marker", "y", "x"), name, {"cell": "a_7", "image": "a"})


@pytest.fixture
def drawn():
    return [patch(10, "cell"), patch(10, "view 1", 2.0), patch(6, "view 2")]


def test_one_row_per_marker_and_the_cell_first(drawn):
    axes = views(drawn)
    assert axes.shape == (2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["cell\n10 px", "view 1\n10 px", "view 2\n6 px"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["CD3", "CD20"]
    for row, marker in zip(axes, ("CD3", "CD20"), strict=True):
        for ax, view in zip(row, drawn, strict=True):
            np.testing.assert_array_equal(ax.images[0].get_array(), view.sel(marker=marker))
    assert axes[0, 0].figure.get_suptitle() == "cell a_7 in image a"


def test_colors_of_a_row_are_raw_counts_and_comparable(drawn):
    axes = views(drawn)
    assert {ax.images[0].get_clim() for ax in axes[0]} == {(0, 18)}
    assert {ax.images[0].get_clim() for ax in axes[1]} == {(0, 1)}  # a marker without counts
    bars = [ax for ax in axes[0, 0].figure.axes if ax.get_label() == "<colorbar>"]
    assert [bar.get_title() for bar in bars] == ["raw\ncounts", ""]


def test_a_pixel_is_as_large_in_every_patch(drawn):
    *_, small = views(drawn)[0]
    assert small.images[0].get_extent() == [-3, 3, 3, -3]
    assert (small.get_xlim(), small.get_ylim()) == ((-5, 5), (5, -5))


@pytest.mark.parametrize("markers", ["CD20", ["CD20"]])
def test_chosen_markers(drawn, markers):
    assert [ax.get_ylabel() for ax in views(drawn, markers)[:, 0]] == ["CD20"]


def test_a_marker_that_is_not_there(drawn):
    with pytest.raises(KeyError, match=r"'CD8'.*'CD3', 'CD20'"):
        views(drawn, ["CD3", "CD8"])


def test_needs_views(sdata):
    for wrong in (sdata, sdata["left"], [], ["cell"]):
        with pytest.raises(TypeError, match=r"nm.get.views\(sdata, cell\)"):
            views(wrong)
