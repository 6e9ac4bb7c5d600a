import dask.array as da
import numpy as np
import pytest
import torch
from spatialdata.models import Image2DModel

import nextmarker as nm
from nextmarker.pl import normalization


def test_learned_and_starting_sigmoid_of_each_marker(sdata):
    axes = normalization(sdata["table"])
    assert [ax.get_title() for ax in axes] == ["DNA", "CD3", "HLA-DR/DP", "Ki 67"]
    for ax, centre in zip(axes, [2, 3, 4, 5], strict=True):
        learned, start = ax.get_lines()
        assert (start.get_linestyle(), learned.get_linestyle()) == ("--", "-")
        assert start.get_linewidth() < learned.get_linewidth() / 2  # both can be seen where they are the same
        assert np.interp(centre, *learned.get_data()) == pytest.approx(0.5, abs=0.02)
        assert np.interp(0.8 * centre, *start.get_data()) == pytest.approx(0.5, abs=0.02)
        rise = np.interp(centre * 1.05, *learned.get_data()) - np.interp(centre * 0.95, *learned.get_data())
        assert rise / (0.1 * centre) == pytest.approx(2 / centre, rel=0.02)  # the slope, x'
        assert ax.get_xlim() == (0, 4 * centre)
        assert not ax.patches


@pytest.fixture
def log_sdata(sdata):
    """Sigmoids on the logarithmic axis; the powers of the learned ones are 2."""
    record = sdata["table"].uns["nextmarker"]["embed"]
    record |= {"axis": "log", "slope": np.full(4, 1 / 2), "slope_start": np.full(4, 1 / 4)}
    return sdata


def test_sigmoids_on_the_logarithmic_axis(log_sdata):
    for ax, centre in zip(normalization(log_sdata["table"]), [2, 3, 4, 5], strict=True):
        learned, start = ax.get_lines()
        counts = learned.get_xdata()
        assert ax.get_xscale() == "log"
        np.testing.assert_allclose(ax.get_xlim(), [0.8 * centre / 8, 64 * centre])  # it starts at 0.8
        np.testing.assert_allclose([counts[0], counts[-1]], ax.get_xlim())
        np.testing.assert_allclose(learned.get_ydata(), counts**2 / (counts**2 + centre**2))
        np.testing.assert_allclose(start.get_ydata(), counts / (counts + 0.8 * centre))


@pytest.mark.parametrize("axis", ["log", "linear"])
def test_drawn_sigmoids_are_those_of_the_network(sdata, axis):
    centre = [0.3, 4.0, 900.0, 60_000.0]
    network = nm.nn.Normalization(torch.tensor(centre), axis)
    with torch.no_grad():
        network.log_centre += torch.tensor([0.2, -0.3, 0.0, 0.1])
        network.log_slope += torch.tensor([0.3, 0.0, -0.5, 2.5])  # the last is steep
    record = sdata["table"].uns["nextmarker"]["embed"]
    record |= {"axis": axis, **network.as_arrays()}
    lines = [ax.get_lines()[0].get_data() for ax in normalization(sdata["table"])]
    counts, drawn = np.array(lines).swapaxes(0, 1)
    expected = network(torch.from_numpy(counts)[None, :, :, None]).detach()[0, :, :, 0]
    np.testing.assert_allclose(drawn, expected, atol=1e-5)


def test_the_histogram_goes_as_far_as_the_sigmoid(log_sdata):
    for ax, centre in zip(normalization(log_sdata), [2, 3, 4, 5], strict=True):
        _, edges, _ = ax.patches[0].get_data()
        assert edges[0] == 0.5
        assert 60 * centre <= edges[-1] <= 64 * centre


def test_bars_on_the_logarithmic_axis(log_sdata):
    """One for each of the lowest counts, then of as many counts as have about the same width on the axis."""
    ax = normalization(log_sdata)[3]
    _, edges, _ = ax.patches[0].get_data()
    np.testing.assert_allclose(edges[:3], [0.5, 1.5, 2.5])
    assert np.diff(np.log(edges[edges > 40])) == pytest.approx(np.log(512 / 0.8) / 40, rel=0.1)


def test_counts_as_frequent_as_their_width_on_the_logarithmic_axis_give_bars_of_one_height(log_sdata):
    for image in ("left", "right"):
        counts = np.exp(np.random.default_rng(0).uniform(np.log(0.5), np.log(300.5), log_sdata[image].shape))
        counts = counts.round().clip(1).astype(np.uint16)
        log_sdata[image] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=log_sdata[image]["c"].to_numpy())
    heights, edges, _ = normalization(log_sdata)[3].patches[0].get_data()
    heights = heights[edges[1:] < 300]
    assert heights / heights.mean() == pytest.approx(1, abs=0.4)


def test_centre_far_below_one_count(log_sdata):
    record = log_sdata["table"].uns["nextmarker"]["embed"]
    record |= {"x_c": np.full(4, 1e-3), "x_c_start": np.full(4, 1e-3)}
    for ax in normalization(log_sdata):
        assert ax.patches[0].get_data().edges.tolist() == [0.5, 1.5]


def test_histogram_of_positive_pixels(sdata):
    ax = normalization(sdata)[3]
    (histogram,) = ax.patches
    heights, edges, _ = histogram.get_data()
    np.testing.assert_allclose(edges[:3], [0.5, 1.5, 2.5])
    pixels = np.concatenate([sdata[image].sel(c="Ki 67").to_numpy().ravel() for image in ("left", "right")])
    counts = np.bincount(pixels)[1:6]
    np.testing.assert_allclose(heights[:5], counts / counts.max(), atol=0.1)
    assert heights.max() == 1


@pytest.mark.parametrize("axis", ["log", "linear"])
@pytest.mark.parametrize(("dtype", "unit"), [(np.uint16, 1), (np.float32, 0.01)])
def test_the_histogram_begins_with_the_faintest_pixels(log_sdata, axis, dtype, unit):
    """Bars of several counts, and those of a float image: the lowest positive counts are in the first of them."""
    record = log_sdata["table"].uns["nextmarker"]["embed"]
    centre = {"log": 8.0, "linear": 40.0}[axis] * unit
    record |= {"axis": axis, "x_c": np.full(4, centre), "x_c_start": np.full(4, centre)}
    for image in ("left", "right"):
        counts = np.full(log_sdata[image].shape, 1.01 * unit, dtype)
        log_sdata[image] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=log_sdata[image]["c"].to_numpy())
    for ax in normalization(log_sdata):
        heights, edges, _ = ax.patches[0].get_data()
        assert edges[0] < 1.01 * unit < edges[1]
        assert heights[0] == 1
        assert (heights[1:] == 0).all()


def test_marker_that_an_image_lacks(sdata):
    """As after nm.tl.embed(sdata, model, missing="zero")."""
    before = normalization(sdata)[0].patches[0].get_data().values
    for image in ("left", "right"):
        sdata[image] = sdata[image].isel(c=[0, 2, 3])
    axes = normalization(sdata)
    np.testing.assert_array_equal(axes[0].patches[0].get_data().values, before)
    assert (axes[1].patches[0].get_data().values == 0).all()


def test_marker_without_signal(sdata):
    for image in ("left", "right"):
        counts = sdata[image].to_numpy().copy()
        counts[1] = 0
        sdata[image] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=sdata[image]["c"].to_numpy())
    heights, _, _ = normalization(sdata)[1].patches[0].get_data()
    assert (heights == 0).all()


def test_reads_only_windows(sdata):
    """An image of 3 GB, of which every chunk read would be noticed."""
    read = []

    def chunk(block_info=None):
        read.append(block_info[None]["chunk-location"])
        return np.ones((1, 500, 500), np.uint16)

    huge = da.map_blocks(chunk, chunks=((1,) * 4, (500,) * 40, (500,) * 40), dtype=np.uint16, meta=np.empty((0, 0, 0)))
    sdata["right"] = Image2DModel.parse(huge, dims=("c", "y", "x"), c_coords=sdata["right"]["c"].to_numpy())
    read.clear()
    normalization(sdata)
    assert len(set(read)) <= 4  # one chunk of each marker holds all cells


def backgrounds(ax):
    return [line.get_xdata()[0] for line in ax.get_lines()[2:]]


def with_zero(sdata, offset, background):
    record = sdata["table"].uns["nextmarker"]["embed"]
    offset = np.asarray(offset, np.float32)
    record |= {"images": np.array(["left", "right"], dtype=object), "offset": offset}
    record |= {"background": offset + np.asarray(background, np.float32)}
    return sdata


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_background_of_each_image(log_sdata, axis):
    """Where it is on the axis; zero is not, on a logarithmic one."""
    log_sdata["table"].uns["nextmarker"]["embed"]["axis"] = axis
    sdata = with_zero(log_sdata, np.zeros((2, 4)), [[1, 1, 0, 1], [2, 1e4, 0, 3]])
    axes = normalization(sdata)
    assert [backgrounds(ax) for ax in axes] == [[1, 2], [1], [], [1, 3]]
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()].count("background of each image") == 1
    assert axes[0].figure.get_supxlabel() == "raw counts per pixel"
    assert [backgrounds(ax) for ax in normalization(sdata["table"])] == [[1, 2], [1], [], [1, 3]]


def test_a_background_that_no_line_can_show_is_not_in_the_legend(log_sdata):
    axes = normalization(with_zero(log_sdata, np.zeros((2, 4)), np.zeros((2, 4))))
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["positive pixels (relative)", "learned", "start"]


def test_counts_are_shown_above_the_offset_of_their_image(log_sdata):
    expected = [ax.patches[0].get_data().values for ax in normalization(log_sdata)]
    for image, offset in (("left", 100), ("right", 40)):
        log_sdata[image].data = log_sdata[image].data + np.uint16(offset)
    axes = normalization(with_zero(log_sdata, [[100] * 4, [40] * 4], [[1] * 4, [2] * 4]))
    for ax, heights in zip(axes, expected, strict=True):
        np.testing.assert_array_equal(ax.patches[0].get_data().values, heights)
        assert backgrounds(ax) == [1, 2]
    assert axes[0].figure.get_supxlabel() == "counts per pixel above the offset"


def test_dead_pixels_lie_below_the_offset(log_sdata):
    for image in ("left", "right"):
        counts = np.full(log_sdata[image].shape, 102, np.uint16)
        counts[:, :2] = 0
        log_sdata[image] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=log_sdata[image]["c"].to_numpy())
    heights, edges, _ = (
        normalization(with_zero(log_sdata, np.full((2, 4), 100), np.ones((2, 4))))[3].patches[0].get_data()
    )
    assert edges[:-1][heights > 0].tolist() == [1.5]


def test_a_table_of_an_older_version_has_no_background(sdata):
    (legend,) = normalization(sdata)[0].figure.legends
    assert "background of each image" not in [text.get_text() for text in legend.get_texts()]


def test_not_embedded(sdata):
    del sdata["table"].uns["nextmarker"]["embed"]
    with pytest.raises(KeyError, match="nm.tl.embed"):
        normalization(sdata)


def test_the_legend_of_few_markers_is_not_cut_off(sdata):
    record = sdata["table"].uns["nextmarker"]["embed"]
    chosen = ("markers", "x_c", "slope", "x_c_start", "slope_start")
    record.update({name: record[name][:2] for name in chosen})
    figure = normalization(sdata)[0].figure
    figure.canvas.draw()
    assert figure.bbox.x0 <= figure.legends[0].get_window_extent().x0


def test_places_of_the_grid_are_filled(sdata):
    record = sdata["table"].uns["nextmarker"]["embed"]
    record.update({name: np.tile(record[name], 3) for name in ("markers", "x_c", "slope", "x_c_start", "slope_start")})
    assert normalization(sdata["table"])[0].get_gridspec().get_geometry() == (3, 4)  # 12 markers
