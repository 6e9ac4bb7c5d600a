import dask.array as da
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from spatialdata.models import Image2DModel

from nextmarker.pl import cells


def centres(sdata, image):
    circles = sdata.shapes[f"cells_{image}"]
    return np.column_stack([circles.geometry.x, circles.geometry.y])


def test_centres_over_the_first_image(sdata):
    ax = cells(sdata)
    (dots,) = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), centres(sdata, "left"))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 90), (60, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x (pixels)", "y (pixels)")
    assert ax.get_title() == "left: DNA, 20 cells"


def test_background_is_the_nuclear_channel_in_its_place(sdata):
    counts = sdata["right"].to_numpy().copy()
    counts[0] = 0
    counts[0, 10, 100] = 50  # centre at x = 100.5, y = 10.5
    sdata["right"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["DNA", "CD3", "HLA-DR/DP", "Ki 67"])
    (image,) = cells(sdata, "right").images
    assert image.get_extent() == [0, 120, 50, 0]
    assert np.argwhere(image.get_array() > 0).tolist() == [[10, 100]]


def test_crop(sdata):
    ax = cells(sdata, "right", channel="CD3", crop=(30, 20, 50, 40))
    (image,) = ax.images
    assert (ax.get_xlim(), ax.get_ylim()) == ((30, 80), (50, 20))  # cut off at the lower edge of the image
    assert image.get_array().shape == (30, 50)
    counts = sdata["right"].sel(c="CD3").to_numpy()[20:50, 30:80]
    order = np.argsort(counts, axis=None)
    assert (np.diff(image.get_array().ravel()[order]) >= 0).all()
    x, y = centres(sdata, "right").T
    inside = (x >= 30) & (x < 80) & (y >= 20)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([x, y])[inside])


def test_large_images_are_averaged_down(sdata):
    counts = da.zeros((4, 3000, 4500), chunks=(1, 1000, 1500), dtype=np.uint16)
    sdata["left"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=sdata["left"]["c"].to_numpy())
    (image,) = cells(sdata).images
    assert image.get_array().shape == (1000, 1500)
    assert image.get_extent() == [0, 4500, 3000, 0]


def test_color_by_category(sdata):
    adata = sdata["table"]
    adata.uns["nextmarker_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    ax = cells(sdata, "left", color="nextmarker")
    clusters = adata.obs["nextmarker"].to_numpy()[:20]
    for dots, name, color in zip(ax.collections, "012", adata.uns["nextmarker_colors"], strict=True):
        np.testing.assert_allclose(dots.get_offsets(), centres(sdata, "left")[clusters == name])
        np.testing.assert_allclose(dots.get_facecolors(), [to_rgba(color)])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]
    assert ax.get_legend().get_title().get_text() == "nextmarker"


@pytest.mark.parametrize("n", [2, 20, 60, 150])
def test_any_number_of_categories(sdata, n):
    names = [f"type {number}" for number in range(n)]
    sdata["table"].obs["type"] = pd.Categorical((names * 40)[:40], categories=names)
    ax = cells(sdata, color="type")
    assert len(ax.collections) == min(n, 20)
    if n <= 20:
        assert len({tuple(dots.get_facecolors()[0]) for dots in ax.collections}) == n


def test_cells_without_category_are_grey(sdata):
    sdata["table"].obs.loc["cell3", "nextmarker"] = np.nan
    ax = cells(sdata, color="nextmarker")
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), centres(sdata, "left")[[3]])
    assert ax.get_legend().get_texts()[-1].get_text() == "none"


def test_color_by_number(sdata):
    ax = cells(sdata, color="area")
    np.testing.assert_allclose(ax.collections[0].get_array(), sdata["table"].obs["area"].iloc[:20])
    assert "area" in [other.get_ylabel() for other in ax.figure.axes]


def test_crop_without_cells(sdata):
    x, y = centres(sdata, "left")[0]
    ax = cells(sdata, color="nextmarker", crop=(int(x) + 1, int(y) + 1, 1, 1))
    assert sum(len(dots.get_offsets()) for dots in ax.collections) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": "middle"}, KeyError, r"'middle'.*\['left', 'right'\]"),
        ({"channel": "DAPI"}, KeyError, "no channel 'DAPI'.*'DNA'"),
        ({"color": "type"}, KeyError, "'type'.*'nextmarker'"),
        ({"crop": (90, 0, 10, 10)}, ValueError, "outside.*90 pixels wide and 60 high"),
    ],
)
def test_errors(sdata, arguments, error, message):
    with pytest.raises(error, match=message):
        cells(sdata, **arguments)


def test_unknown_nuclear_channel(sdata):
    del sdata["table"].uns["nextmarker"]["detect_cells"]
    with pytest.raises(KeyError, match="channel=.*'DNA'"):
        cells(sdata)
    assert cells(sdata, channel="Ki 67").images
