import dask.array as da
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.legend import Legend
from matplotlib.offsetbox import AnchoredOffsetbox
from scipy import sparse
from spatialdata.models import Image2DModel

import nextmarker as nm
from nextmarker.pl import cells
from nextmarker.pl._dots import dot_size


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


@pytest.mark.parametrize(("colored", "share"), [(False, 0.35), (True, 0.45)])
def test_dots_are_smaller_than_nuclei_also_where_most_of_the_image_is_empty(colored, share):
    _, ax = plt.subplots(figsize=(6, 6))
    inches = ax.bbox.width / ax.figure.dpi
    for n in (10, 40):  # of 40 x 40 places that are 20 pixels apart
        xy = 20 * np.argwhere(np.ones((n, n))).astype(float)
        pixels = np.sqrt(dot_size(ax, 800, xy, colored=colored)) / 72 / inches * 800
        np.testing.assert_allclose(pixels, share * 20)
    assert dot_size(ax, 800, xy[:1], colored=colored) == 36
    assert dot_size(ax, 800, xy[[0, 0, 0]], colored=colored) >= 1.5**2


def test_background_is_the_nuclear_channel_in_its_place(sdata):
    counts = sdata["right"].to_numpy().copy()
    counts[0] = 0
    counts[0, 10, 100] = 50  # centre at x = 100.5, y = 10.5
    sdata["right"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["DNA", "CD3", "HLA-DR/DP", "Ki 67"])
    (image,) = cells(sdata, "right").images
    assert image.get_extent() == [0, 120, 50, 0]
    assert np.argwhere(image.get_array() > 0).tolist() == [[10, 100]]


def test_crop(sdata):
    ax = cells(sdata, "right", channels="CD3", crop=(30, 20, 50, 40))
    (image,) = ax.images
    assert (ax.get_xlim(), ax.get_ylim()) == ((30, 80), (50, 20))  # cut off at the lower edge of the image
    assert image.get_array().shape == (30, 50)
    counts = sdata["right"].sel(c="CD3").to_numpy()[20:50, 30:80]
    order = np.argsort(counts, axis=None)
    assert (np.diff(image.get_array().ravel()[order]) >= 0).all()
    x, y = centres(sdata, "right").T
    inside = (x >= 30) & (x < 80) & (y >= 20)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([x, y])[inside])


@pytest.mark.parametrize("color", [None, "area", "nextmarker"])
def test_an_image_without_cells_is_drawn_alone(sdata, color):
    adata = sdata["table"]
    left = adata[adata.obs["image"] == "left"].copy()
    left.uns["spatialdata_attrs"]["region"] = ["cells_left"]
    sdata.tables["table"] = left
    ax = cells(sdata, "right", color=color)
    assert len(ax.images) == 1
    assert len(ax.collections) == 0
    assert ax.get_legend() is None
    assert ax.get_title() == "right: DNA, 0 cells"
    assert [len(each.collections) for each in cells(sdata, ["left", "right"])] == [1, 0]
    with pytest.raises(KeyError, match="No image 'middle' in sdata.images; there is 'left', 'right'"):
        cells(sdata, ["left", "middle"])


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


def colour_bars(ax):
    return [other for other in ax.figure.axes if other is not ax]


@pytest.mark.parametrize("as_matrix", [np.asarray, sparse.csr_matrix])
def test_color_by_marker(sdata, as_matrix):
    adata = sdata["table"]
    intensities = np.random.default_rng(1).uniform(size=(40, 4)).astype(np.float32)
    adata.X = as_matrix(intensities)
    adata.obs["DNA"] = 1.0
    ax = cells(sdata, "right", color="Ki 67")
    np.testing.assert_allclose(ax.collections[0].get_array(), intensities[20:, 3])
    assert [bar.get_ylabel() for bar in colour_bars(ax)] == ["Ki 67"]
    ax = cells(sdata, color="CD3", layer="interpretability")
    np.testing.assert_allclose(ax.collections[0].get_array(), adata.layers["interpretability"][:20, 1])
    np.testing.assert_allclose(cells(sdata, color="DNA").collections[0].get_array(), 1)  # .obs comes first
    dots = cells(sdata, color="DNA", layer="interpretability").collections[0]
    np.testing.assert_allclose(dots.get_array(), adata.layers["interpretability"][:20, 0])


@pytest.mark.parametrize("dtype", [bool, "boolean", object])
def test_color_by_true_and_false(sdata, dtype):
    positive = np.arange(40) % 3 == 0
    sdata["table"].obs["positive"] = pd.Series(positive, sdata["table"].obs_names).astype(dtype)
    ax = cells(sdata, color="positive")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["False", "True"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), centres(sdata, "left")[positive[:20]])
    assert not colour_bars(ax)
    if dtype == "boolean":
        sdata["table"].obs.loc["cell4", "positive"] = pd.NA
        ax = cells(sdata, color="positive")
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["False", "True", "none"]


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "float64"])
def test_cells_without_number_are_grey(sdata, dtype):
    numbers = pd.Series(np.arange(40), sdata["table"].obs_names).astype(dtype)
    numbers.iloc[[3, 5]] = [np.nan, np.inf] if dtype == "float64" else pd.NA
    sdata["table"].obs["number"] = numbers
    ax = cells(sdata, color="number")
    without, with_number = ax.collections
    np.testing.assert_allclose(without.get_offsets(), centres(sdata, "left")[[3, 5]])
    np.testing.assert_allclose(without.get_facecolors(), [to_rgba("0.6")])
    np.testing.assert_allclose(with_number.get_array(), np.delete(np.arange(20), [3, 5]))
    assert with_number.get_clim() == (0, 19)
    assert [bar.get_ylabel() for bar in colour_bars(ax)] == ["number"]
    sdata["table"].obs["number"] = np.nan
    ax = cells(sdata, color="number")
    assert len(ax.collections[0].get_offsets()) == 20
    assert not colour_bars(ax)


def test_legend_of_axes_that_hold_more(sdata):
    _, ax = plt.subplots()
    ax.scatter([1], [1], label="mine")
    cells(sdata, color="nextmarker", ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2"]


def test_clusters_of_an_earlier_embedding_are_drawn_with_a_warning(sdata):
    adata = sdata["table"]
    for number in range(2):
        adata.obs["nextmarker_embedding"] = [f"{'a' * 16}-0000000{number}"] * 40
        if number == 0:
            nm.tl.cluster(adata, n_neighbors=5, key_added="mine")
            cells(sdata, color="mine")
    with pytest.warns(UserWarning, match=r"earlier embedding.*nm.tl.cluster\(adata, key_added='mine'\)") as caught:
        cells(sdata, color="mine")
    assert caught[0].filename == __file__


def test_crop_without_cells(sdata):
    x, y = centres(sdata, "left")[0]
    ax = cells(sdata, color="nextmarker", crop=(int(x) + 1, int(y) + 1, 1, 1))
    assert sum(len(dots.get_offsets()) for dots in ax.collections) <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": "middle"}, KeyError, r"'middle'.*'left', 'right'"),
        ({"channels": "DAPI"}, KeyError, "'DAPI'.*'DNA'"),
        ({"color": "type"}, KeyError, "'type'.*'nextmarker'.*'HLA-DR/DP'.*color="),
        ({"color": "CD3", "layer": "arcsinh"}, KeyError, r"'arcsinh' in .layers.*'interpretability'.*layer="),
        ({"color": "area", "layer": "interpretability"}, KeyError, "marker 'area'.*color="),
        ({"layer": "interpretability"}, ValueError, r"'interpretability'.*color=.*'CD3'"),
        ({"crop": (90, 0, 10, 10)}, ValueError, "outside.*90 pixels wide and 60 high"),
    ],
)
def test_errors(sdata, arguments, error, message):
    with pytest.raises(error, match=message):
        cells(sdata, **arguments)


def test_unknown_nuclear_channel(sdata):
    del sdata["table"].uns["nextmarker"]["detect_cells"]
    with pytest.raises(KeyError, match="channels=.*'DNA'"):
        cells(sdata)
    assert cells(sdata, channels="Ki 67").images


def test_channels_in_colours_add_up(sdata):
    counts = np.zeros((4, 60, 90), np.uint16)
    counts[1, 10, 10] = counts[2, 20, 20] = counts[1, 30, 30] = counts[2, 30, 30] = 8
    counts[3, 40, 40] = 2
    sdata["left"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["DNA", "CD3", "HLA-DR/DP", "Ki 67"])
    limits = {"contrast": (0, 8)}
    picture = cells(sdata, channels=["CD3", "HLA-DR/DP", "Ki 67"], **limits).images[0].get_array()
    np.testing.assert_allclose(picture[10, 10], [1, 0, 1])  # magenta
    np.testing.assert_allclose(picture[20, 20], [0, 1, 1])  # cyan
    np.testing.assert_allclose(picture[30, 30], [1, 1, 1])
    np.testing.assert_allclose(picture[40, 40], [0.5, 0.5, 0])  # yellow, the root of a quarter
    assert (picture[50] == 0).all()
    ax = cells(sdata, channels={"CD3": "red", "Ki 67": (0, 0.5, 0)}, **limits)
    np.testing.assert_allclose(ax.images[0].get_array()[10, 10], [1, 0, 0])
    np.testing.assert_allclose(ax.images[0].get_array()[40, 40], [0, 0.25, 0])
    assert channel_names(ax) == ["CD3", "Ki 67"]
    assert ax.get_title() == "left: 20 cells"
    assert cells(sdata, channels=["CD3"]).images[0].get_array().ndim == 2


def channel_names(ax):
    (legend,) = [artist for artist in ax.artists if isinstance(artist, Legend)]
    return [text.get_text() for text in legend.get_texts()]


def test_contrast(sdata):
    counts = np.broadcast_to(np.arange(101, dtype=np.uint16), (4, 60, 101)).copy()
    counts[2] *= 2
    sdata["left"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=["DNA", "CD3", "HLA-DR/DP", "Ki 67"])

    def column(channels, contrast):
        return cells(sdata, channels=channels, contrast=contrast).images[0].get_array()[0] ** 2

    brightest = np.percentile(counts[1], 99.5)
    np.testing.assert_allclose(column("CD3", None), (np.arange(101) / brightest).clip(0, 1), rtol=1e-5)
    np.testing.assert_allclose(column("CD3", (20, 60)), ((np.arange(101) - 20) / 40).clip(0, 1), atol=1e-6)
    np.testing.assert_allclose(column("CD3", (20, "p60")), column("CD3", (20, 60)))
    both = column({"CD3": "red", "HLA-DR/DP": "lime"}, {"HLA-DR/DP": (0, 50)})
    np.testing.assert_allclose(both[:, 0], (np.arange(101) / brightest).clip(0, 1), rtol=1e-5)
    np.testing.assert_allclose(both[:, 1], (np.arange(101) / 25).clip(0, 1), rtol=1e-5)


@pytest.mark.parametrize("image", ["all", ["left", "right"]])
def test_a_grid_of_images_has_one_scale(sdata, image):
    axes = cells(sdata, image, channels="CD3", color="area")
    assert [ax.get_title().split("\n")[0] for ax in axes] == ["left", "right"]
    for ax, name in zip(axes, ["left", "right"], strict=True):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), centres(sdata, name))
    area = sdata["table"].obs["area"]
    assert {ax.collections[0].get_clim() for ax in axes} == {(area.min(), area.max())}
    (bar,) = [ax for ax in axes[0].figure.axes if ax not in axes]
    assert bar.get_ylabel() == "area"
    counts = {name: sdata[name].sel(c="CD3").to_numpy() for name in ("left", "right")}
    brightest = np.percentile(np.concatenate([part.ravel() for part in counts.values()]), 99.5)
    for ax, part in zip(axes, counts.values(), strict=True):
        np.testing.assert_allclose(ax.images[0].get_array() ** 2, (part / brightest).clip(0, 1), atol=1e-6)


def test_a_grid_of_images_has_one_legend(sdata):
    sdata["table"].obs["type"] = ["a"] * 20 + ["b"] * 20
    axes = cells(sdata, "all", color="type")
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert len(cells(sdata, ["right"])) == 1


def test_several_large_images_share_the_pixels(sdata):
    for name, size in {"left": (3000, 4500), "right": (100, 130)}.items():
        counts = da.zeros((4, *size), chunks=(1, 1000, 1500), dtype=np.uint16)
        sdata[name] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=sdata[name]["c"].to_numpy())
    left, right = (ax.images[0].get_array().shape for ax in cells(sdata, ["left", "right"]))
    assert left == (600, 900)
    assert right == (100, 130)


def test_boxes_around_the_cells_of_a_type(sdata):
    adata = sdata["table"]
    adata.uns["nextmarker_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    ax = cells(sdata, color="nextmarker", boxes="1")
    ours = (adata.obs["nextmarker"] == "1").to_numpy()[:20]
    (boxes,) = ax.collections
    corners = np.array([path.get_extents().get_points() for path in boxes.get_paths()])
    np.testing.assert_allclose(corners.mean(1), centres(sdata, "left")[ours])
    np.testing.assert_allclose(np.ptp(corners, axis=1), 11)
    np.testing.assert_allclose(boxes.get_edgecolors(), [to_rgba("#00ff00")] * ours.sum())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1"]
    assert ax.get_title() == f"left: DNA, {ours.sum()} of 20 cells"
    both = cells(sdata, color="nextmarker", boxes=["0", "1"], size=5).collections[0]
    assert len(both.get_paths()) == (adata.obs["nextmarker"][:20] != "2").sum()


def test_boxes_are_as_wide_as_the_patches_of_the_model(sdata):
    """The model saw pixels of 1 um, the image has pixels of 0.5 um."""
    nm.pp.set_pixel_size(sdata, {"left": 0.5, "right": 1.0})
    sdata["table"].uns["nextmarker"]["embed"]["pixel_size"] = 1.0
    (boxes,) = cells(sdata, color="nextmarker", boxes="0").collections
    np.testing.assert_allclose(boxes.get_paths()[0].get_extents().width, 22)


def test_scale_bar(sdata):
    def text(ax):
        (box,) = [artist for artist in ax.artists if isinstance(artist, AnchoredOffsetbox)]
        bar, label = box.get_child().get_children()
        return bar.get_children()[0].get_width(), label.get_text()

    assert text(cells(sdata)) == (20, "20 pixels")
    nm.pp.set_pixel_size(sdata, {"left": 0.5, "right": 1.0})
    assert text(cells(sdata)) == (20, "10 µm")
    assert text(cells(sdata, crop=(0, 0, 30, 30))) == (4, "2 µm")
    assert text(cells(sdata, "right")) == (20, "20 µm")


def test_the_table_is_not_changed(sdata):
    before = sdata["table"].copy()
    cells(sdata, "all", color="nextmarker", boxes="0")
    pd.testing.assert_frame_equal(sdata["table"].obs, before.obs)
    assert sdata["table"].uns.keys() == before.uns.keys()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"image": ["left", "middle"]}, KeyError, r"'middle'.*'left', 'right'"),
        ({"image": []}, ValueError, "each once"),
        ({"channels": ["DNA", "DNA"]}, ValueError, "each once"),
        ({"channels": ["DNA", "DAPI"]}, KeyError, "'DAPI'.*channels="),
        ({"channels": {"DNA": "bleu"}}, ValueError, r"channels\['DNA'\]='bleu' must be a colour"),
        ({"contrast": {"CD3": (0, 1)}}, KeyError, "'CD3' in this figure.*'DNA'"),
        ({"contrast": (5, 5)}, ValueError, r"contrast=\(5, 5\).*p99"),
        ({"contrast": (0, "99%")}, ValueError, r"must be \(low, high\)"),
        ({"contrast": 5}, ValueError, r"must be \(low, high\)"),
        ({"boxes": "1"}, ValueError, "column: color="),
        ({"boxes": "1", "color": "area"}, ValueError, "column: color="),
        ({"boxes": ["1", "T"], "color": "nextmarker"}, KeyError, "'T' in .obs.*'0', '1', '2'"),
    ],
)
def test_errors_of_channels_and_boxes(sdata, arguments, error, message):
    with pytest.raises(error, match=message):
        cells(sdata, **arguments)


def test_one_axes_for_several_images(sdata):
    with pytest.raises(ValueError, match="ax=.*several images"):
        cells(sdata, "all", ax=plt.figure().add_subplot())
