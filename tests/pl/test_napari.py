"""Layers of napari, without a window: its viewer model needs no screen."""

import json
import sys
from types import ModuleType

import dask.array as da
import numpy as np
import pytest
import spatialdata
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgba
from napari.components import ViewerModel
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Affine, Scale, set_transformation

import nextmarker as nm

MARKERS = ["DNA", "CD3", "HLA-DR/DP", "Ki 67"]


@pytest.fixture
def viewer():
    return ViewerModel()


def names(viewer):
    """From the top of the list, as users see them."""
    return [layer.name for layer in viewer.layers][::-1]


def centres(sdata, image):
    circles = sdata.shapes[f"cells_{image}"]
    return np.column_stack([circles.geometry.x, circles.geometry.y])


def test_every_channel_is_a_layer_in_its_colour_and_limits(sdata, viewer, tmp_path):
    assert nm.pl.napari(sdata, "left", viewer=viewer) is viewer
    assert names(viewer) == ["cells", *MARKERS]
    nm.io.write(sdata, tmp_path / "a.zarr")
    metadata = json.loads((tmp_path / "a.zarr" / "images" / "left" / "zarr.json").read_text())
    for described in metadata["attributes"]["ome"]["omero"]["channels"]:  # as other viewers show them
        layer, window = viewer.layers[described["label"]], described["window"]
        assert isinstance(layer.data, da.Array)
        np.testing.assert_array_equal(layer.data, sdata["left"].sel(c=layer.name))
        assert to_hex(layer.colormap.colors[-1]) == f"#{described['color'].lower()}"
        assert tuple(layer.contrast_limits) == (window["start"], window["end"])
        assert tuple(layer.contrast_limits_range) == (window["min"], window["max"])
        assert layer.visible == described["active"]
    assert viewer.canvas.overlays.scale_bar.visible


def test_channels_that_are_visible_at_first(sdata, viewer):
    nm.pl.napari(sdata, "left", channels=["Ki 67", "DNA"], viewer=viewer)
    shown = {layer.name: to_hex(layer.colormap.colors[-1]) for layer in viewer.layers[:-1] if layer.visible}
    assert shown == {"Ki 67": "#ff00ff", "DNA": "#00ffff"}
    own = nm.pl.napari(sdata, "left", channels={"CD3": "tab:red"}, viewer=ViewerModel()).layers
    assert to_hex(own["CD3"].colormap.colors[-1]) == to_hex("tab:red")
    grey = nm.pl.napari(sdata, "left", channels="CD3", viewer=ViewerModel()).layers
    assert to_hex(grey["CD3"].colormap.colors[-1]) == "#ffffff"
    assert [layer.name for layer in grey if layer.visible] == ["CD3", "cells"]


def test_scales_of_a_store_are_used(sdata, viewer):
    sdata["left"] = Image2DModel.parse(
        sdata["left"].to_numpy(), dims=("c", "y", "x"), c_coords=MARKERS, scale_factors=[2, 2]
    )
    nm.pl.napari(sdata, "left", viewer=viewer)
    assert [level.shape for level in viewer.layers["CD3"].data] == [(60, 90), (30, 45), (15, 22)]
    assert viewer.layers["CD3"].multiscale


def mark(sdata):
    """One cell of the image "left", with the only pixel that is bright."""
    x, y = centres(sdata, "left")[7]
    counts = np.zeros((4, 60, 90), np.uint16)
    counts[0, int(y), int(x)] = 100
    sdata["left"] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=MARKERS)
    return sdata


def cropped(sdata):
    x, y = centres(sdata, "left")[7]
    box = {"min_coordinate": [x - 8, y - 11], "max_coordinate": [x + 9, y + 6], "target_coordinate_system": "global"}
    return spatialdata.bounding_box_query(sdata, axes=("x", "y"), **box)


def turned(sdata):
    """Image and cells are turned together, and both are now in another system."""
    turn = Affine([[0, 0.5, 9], [-0.5, 0, 3], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    for element in ("left", "cells_left"):
        set_transformation(sdata[element], {"slide": turn}, set_all=True)
    return sdata


def sized(sdata):
    nm.pp.set_pixel_size(sdata, 0.4)
    return sdata


def moved(sdata):
    """The circles count in pixels of half the size."""
    sdata["cells_left"] = spatialdata.models.ShapesModel.parse(
        sdata["cells_left"].set_geometry(sdata["cells_left"].geometry.scale(2, 2, origin=(0, 0)))
    )
    set_transformation(sdata["cells_left"], Scale([0.5, 0.5], axes=("x", "y")))
    return sdata


@pytest.mark.parametrize("change", [lambda sdata: sdata, cropped, turned, sized, moved])
def test_cells_lie_on_their_pixels(sdata, viewer, change):
    sdata = change(mark(sdata))
    layers = nm.pl.napari(sdata, "left", viewer=viewer).layers
    (row,) = np.flatnonzero(layers["cells"].features["cell"] == "cell7")
    world = layers["cells"].data_to_world(layers["cells"].data[row])
    (pixel,) = np.argwhere(layers["DNA"].data.compute())
    np.testing.assert_allclose(layers["DNA"].world_to_data(world), pixel, atol=0.5)
    assert str(layers.units[0]) == ("micrometer" if change is sized else "pixel")


def test_coordinates_are_those_of_the_table(sdata, viewer):
    sdata["table"].obsm["spatial"] = np.vstack([centres(sdata, "left"), centres(sdata, "right")])
    nm.pp.set_pixel_size(sdata, 0.25)
    cells = nm.pl.napari(sdata, "right", viewer=viewer).layers["cells"]
    world = np.array([cells.data_to_world(point) for point in cells.data])
    np.testing.assert_allclose(world[:, ::-1], centres(sdata, "right") * 0.25)
    np.testing.assert_allclose(viewer.layers["CD3"].data_to_world([-0.5, -0.5]), 0, atol=1e-9)  # the corner


def test_masks_of_other_pixels_lie_on_the_image(sdata, viewer):
    labels = np.zeros((30, 45), np.int32)
    labels[10, 20] = 5  # pixels 20 to 21 in y, and 40 to 41 in x
    sdata["masks_left"] = Labels2DModel.parse(labels, dims=("y", "x"))
    set_transformation(sdata["masks_left"], Scale([2, 2], axes=("x", "y")))
    nm.pp.set_pixel_size(sdata, 0.4)
    sdata["unclear"] = Labels2DModel.parse(labels, dims=("y", "x"))
    nm.pl.napari(sdata, "left", viewer=viewer)
    masks = viewer.layers["masks_left"]
    assert (masks.visible, masks.contour) == (False, 1)
    np.testing.assert_allclose(viewer.layers["CD3"].world_to_data(masks.data_to_world([10, 20])), [20.5, 40.5])
    assert "unclear" not in viewer.layers
    assert "masks_left" not in nm.pl.napari(sdata, "right", viewer=ViewerModel()).layers


def test_masks_with_scales(sdata, viewer):
    labels = np.ones((60, 90), np.int32)
    sdata["masks_left"] = Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=[2])
    assert len(nm.pl.napari(sdata, "left", viewer=viewer).layers["masks_left"].data) == 2


def test_each_category_is_a_layer_in_its_colour(sdata, viewer):
    adata = sdata["table"]
    adata.uns["nextmarker_colors"] = ["#ff0000", "#00ff00", "#0000ff"]
    adata.obs.loc["cell23", "nextmarker"] = np.nan
    nm.pl.napari(sdata, "right", color="nextmarker", viewer=viewer)
    obs = adata.obs.iloc[20:]
    there = [cluster for cluster in "012" if (obs["nextmarker"] == cluster).any()]
    assert names(viewer) == [*(f"{cluster} (nextmarker)" for cluster in there), "none (nextmarker)", *MARKERS]
    for cluster in there:
        cells, rows = viewer.layers[f"{cluster} (nextmarker)"], (obs["nextmarker"] == cluster).to_numpy()
        np.testing.assert_allclose(cells.data[:, ::-1], centres(sdata, "right")[rows])
        assert {to_hex(color) for color in cells.face_color} == {adata.uns["nextmarker_colors"][int(cluster)]}
        assert cells.features["cell"].tolist() == obs.index[rows].tolist()
        assert (cells.features["nextmarker"] == cluster).all()
    assert viewer.layers["none (nextmarker)"].features["cell"].tolist() == ["cell23"]
    assert to_hex(viewer.layers["none (nextmarker)"].face_color[0]) == to_hex("0.6")


def test_text_and_truth_are_categories(sdata, viewer):
    sdata["table"].obs["patient"] = ["A", "B"] * 20
    sdata["table"].obs["large"] = [True, False] * 20
    assert names(nm.pl.napari(sdata, "left", color="patient", viewer=viewer))[:2] == ["A (patient)", "B (patient)"]
    assert names(nm.pl.napari(sdata, "left", color="large", viewer=ViewerModel()))[0] == "False (large)"


def test_color_by_numbers(sdata, viewer):
    adata = sdata["table"]
    adata.obs.loc["cell4", "area"] = np.inf
    nm.pl.napari(sdata, "left", color="area", viewer=viewer)
    cells, areas = viewer.layers[-1], adata.obs["area"].iloc[:20].replace(np.inf, np.nan)
    assert cells.name == f"area, {areas.min():.3g} to {areas.max():.3g}"
    relative = (areas - areas.min()) / (areas.max() - areas.min())
    expected = np.where(areas.notna().to_numpy()[:, None], colormaps["viridis"](relative), to_rgba("0.6"))
    np.testing.assert_allclose(cells.face_color, expected, atol=1e-6)


def test_color_by_marker_of_a_layer(sdata, viewer):
    activation = sdata["table"].layers["interpretability"][20:, 1]
    nm.pl.napari(sdata, "right", color="CD3", layer="interpretability", viewer=viewer)
    cells = viewer.layers[-1]
    np.testing.assert_allclose(cells.features["CD3"], activation)
    assert np.argmin(cells.face_color[:, 0] + cells.face_color[:, 1]) == np.argmin(activation)


def test_features_begin_with_what_is_asked_for(sdata, viewer):
    sdata["table"].X = np.random.default_rng(0).uniform(size=(40, 4))
    sdata["table"].obs_names = ["same"] * 40  # as after joining tables
    nm.pl.napari(sdata, "left", color="area", viewer=viewer)
    features = viewer.layers[-1].features
    assert features.columns.tolist() == ["area", "nextmarker", "cell", *MARKERS]
    np.testing.assert_allclose(features["Ki 67"], sdata["table"].X[:20, 3])


def test_images_without_cells(sdata, viewer):
    del sdata.tables["table"]
    assert names(nm.pl.napari(sdata, "left", viewer=viewer)) == MARKERS
    assert viewer.layers.units[0] == "pixel"
    with pytest.raises(KeyError, match=r"No table 'table' .* nm.pp.detect_cells"):
        nm.pl.napari(sdata, "left", color="CD3", viewer=viewer)


@pytest.mark.parametrize("color", [None, "area", "nextmarker"])
def test_an_image_of_which_the_table_has_no_cells(sdata, viewer, color):
    left = sdata["table"][sdata["table"].obs["image"] == "left"].copy()
    left.uns["spatialdata_attrs"]["region"] = ["cells_left"]
    sdata.tables["table"] = left
    assert names(nm.pl.napari(sdata, "right", color=color, viewer=viewer)) == MARKERS


@pytest.mark.parametrize(
    ("error", "match", "arguments"),
    [
        (ValueError, r"there is 'left', 'right'\. Name it: nm\.pl\.napari\(sdata, 'left'\)", {}),
        (KeyError, "No image 'middle'", {"image": "middle"}),
        (KeyError, "No column or marker 'cluster' in the table", {"image": "left", "color": "cluster"}),
        (KeyError, "No channel 'cd3' .* Did you mean 'CD3'", {"image": "left", "channels": "cd3"}),
        (ValueError, r"channels\['CD3'\]='no' must be a colour", {"image": "left", "channels": {"CD3": "no"}}),
        (KeyError, "No 'counts' in .layers", {"image": "left", "layer": "counts"}),
        (KeyError, "No table 'objects'", {"image": "left", "table_key": "objects"}),
    ],
)
def test_errors_leave_the_viewer_as_it_was(sdata, viewer, error, match, arguments):
    with pytest.raises(error, match=match):
        nm.pl.napari(sdata, viewer=viewer, **arguments)
    assert not viewer.layers


def test_too_many_categories(sdata, viewer, monkeypatch):
    monkeypatch.setattr("nextmarker.pl._napari.MOST_CATEGORIES", 2)
    sdata["table"].obs["name"] = sdata["table"].obs_names
    with pytest.raises(ValueError, match="color='name' must be a column of at most 2 categories"):
        nm.pl.napari(sdata, "left", color="name", viewer=viewer)


def test_clusters_of_an_earlier_embedding(sdata, viewer):
    adata = sdata["table"]
    adata.obs["nextmarker_embedding"] = "aaaaaaaaaaaaaaaa-00000000"
    nm.tl.cluster(adata, n_neighbors=5, key_added="mine")
    adata.obs["nextmarker_embedding"] = "aaaaaaaaaaaaaaaa-00000001"
    with pytest.warns(UserWarning, match=r"earlier embedding.*nm.tl.cluster\(adata, key_added='mine'\)") as caught:
        nm.pl.napari(sdata, "left", color="mine", viewer=viewer)
    assert [warning.filename for warning in caught if "earlier" in str(warning.message)] == [__file__]


def test_napari_is_not_installed(sdata, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari.components.canvas", None)
    with pytest.raises(ImportError, match=r'pip install "napari\[pyqt6\]>=0.9"'):
        nm.pl.napari(sdata, "left")


def test_napari_without_qt(sdata, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari.qt", None)
    with pytest.raises(ImportError, match=r'Qt for its window.* pip install "napari\[pyqt6\]>=0.9"'):
        nm.pl.napari(sdata, "left")


@pytest.fixture
def _qt(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari.qt", ModuleType("napari.qt"))
    monkeypatch.setattr("napari.Viewer", ViewerModel)
    monkeypatch.setattr(sys, "platform", "linux")
    for screen in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(screen, raising=False)


@pytest.mark.usefixtures("_qt")
def test_a_new_window_needs_a_screen(sdata, monkeypatch):
    with pytest.raises(RuntimeError, match="DISPLAY is not set"):
        nm.pl.napari(sdata, "left")
    monkeypatch.setenv("DISPLAY", ":0")
    viewer = nm.pl.napari(sdata, "left")
    assert viewer.title == "left"
    assert len(viewer.layers) == 5
