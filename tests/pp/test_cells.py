"""nm.pp.detect_cells and nm.pp.add_cells: what they write, from what, and what they refuse."""

import warnings
from importlib import import_module
from pathlib import Path

import anndata as ad
import dask.array as da
import dask.dataframe as dd
import geopandas as gpd
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from shapely import Point, box
from spatialdata import SpatialData
from spatialdata.models import (
    Image2DModel,
    Image3DModel,
    Labels2DModel,
    Labels3DModel,
    PointsModel,
    ShapesModel,
    TableModel,
)
from spatialdata.transformations import Affine, Identity, Scale, Translation, get_transformation

import nextmarker as nm
from nextmarker._checkpoint import progress
from nextmarker._regions import read_regions

SHAPE = (60, 90)
CENTRES = {
    "a": np.array([[20.5, 12.5], [40.5, 12.5], [20.5, 40.5], [71.5, 45.5]]),
    "b": np.array([[15.5, 30.5], [33.5, 30.5]]),
}


def pixels(centres: np.ndarray) -> np.ndarray:
    """Three channels of counts: nuclei, a marker that grows with x, and one that is empty."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    nuclei = sum(90 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18) for x, y in centres)
    return np.stack([nuclei, columns, 0 * rows]).astype(np.uint16)


def image(raw: np.ndarray, transformations: dict | None = None, **kwargs: object) -> object:
    names = ["DNA", "CD3", "CD8"][: len(raw)]
    lazy = da.from_array(raw, chunks=(1, 32, 32))
    return Image2DModel.parse(lazy, dims=("c", "y", "x"), c_coords=names, transformations=transformations, **kwargs)


def one_image(**kwargs: object) -> SpatialData:
    return SpatialData(images={"a": image(pixels(CENTRES["a"]), **kwargs)})


def two_images() -> SpatialData:
    """Half a micrometre per pixel in `a`, one in `b`."""
    return SpatialData(
        images={
            "a": image(pixels(CENTRES["a"]), {"a": Scale([0.5, 0.5], axes=("x", "y"))}),
            "b": image(pixels(CENTRES["b"]), {"b": Identity()}),
        },
        attrs={"nextmarker_pixel_size": {"a": 0.5, "b": 1.0}},
    )


def detect(sdata: SpatialData, nuclear_channels: object = "DNA", **kwargs: object) -> None:
    nm.pp.detect_cells(sdata, nuclear_channels, progress=False, **{"diameter": 12, **kwargs})


class Calls:
    """Lists the images in which nuclei are found and measured, and interrupts one of these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.made: list[str] = []
        for module, name in (("_detect", "detail_by_width"), ("_detect", "find_nuclei"), ("_write", "circle_means")):
            self.watch(monkeypatch, import_module(f"nextmarker.pp.{module}"), name, at)

    def watch(self, monkeypatch: pytest.MonkeyPatch, module: object, name: str, at: int | None) -> None:
        function = ORIGINAL.setdefault(name, getattr(module, name))

        def call(image: object, *arguments: object) -> object:
            self.made.append(f"{name} {getattr(image, 'image', None) or image.name}")
            if len(self.made) == at:
                raise KeyboardInterrupt
            return function(image, *arguments)

        monkeypatch.setattr(module, name, call)


ORIGINAL: dict[str, object] = {}
ALL_CALLS = [f"{name} {image}" for name in ("detail_by_width", "find_nuclei", "circle_means") for image in "ab"]


def assert_same_cells(ours: SpatialData, theirs: SpatialData) -> None:
    assert ours["table"].X.tobytes() == theirs["table"].X.tobytes()
    pd.testing.assert_frame_equal(ours["table"].obs, theirs["table"].obs)
    for name in theirs.shapes:
        pd.testing.assert_frame_equal(pd.DataFrame(ours[name]), pd.DataFrame(theirs[name]))


@pytest.mark.parametrize("at", [1, 2, 4, 6])
def test_an_interrupted_detection_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: int) -> None:
    sdata, whole = two_images(), two_images()
    detect(whole, diameter=None)
    Calls(monkeypatch, at)
    with pytest.raises(KeyboardInterrupt):
        detect(sdata, diameter=None, checkpoint=tmp_path)
    assert not sdata.shapes
    assert not sdata.tables
    calls = Calls(monkeypatch)
    detect(sdata, diameter=None, checkpoint=tmp_path)
    assert calls.made == ALL_CALLS[at - 1 :]
    assert_same_cells(sdata, whole)
    steps = ["estimate_diameter", "detect_cells", "mean_intensity"]
    assert progress(tmp_path) == {step: {"done": 2, "total": 2, "unit": "image"} for step in steps}


def test_kept_cells_of_another_image_or_parameter_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sdata, other = two_images(), two_images()
    detect(sdata, checkpoint=tmp_path)
    other["a"].data = other["a"].data[..., ::-1]
    calls = Calls(monkeypatch)
    detect(other, checkpoint=tmp_path)
    assert calls.made == ["find_nuclei a", "circle_means a"]
    detect(other, checkpoint=tmp_path, markers=["CD3"], overwrite=True)
    assert calls.made[2:] == ["circle_means a", "circle_means b"]
    detect(other, checkpoint=tmp_path, method="blobs", overwrite=True)
    assert {"find_nuclei a", "find_nuclei b"} <= {*calls.made[4:]}


def add(sdata: SpatialData, cells: object, **kwargs: object) -> None:
    nm.pp.add_cells(sdata, cells, progress=False, **kwargs)


def assert_unchanged_by(sdata: SpatialData, call: object, error: type[Exception], match: str) -> None:
    before = {name: element for _, name, element in sdata.gen_elements()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=match):
            call(sdata)
    after = {name: element for _, name, element in sdata.gen_elements()}
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)


# --- what is written


@pytest.mark.parametrize("method", ["maxima", "blobs", "threshold"])
def test_one_image_gives_circles_and_table(method: str) -> None:
    sdata = one_image()
    detect(sdata, method=method)
    circles, table = sdata.shapes["cells"], sdata["table"]
    np.testing.assert_array_equal(np.column_stack([circles.geometry.x, circles.geometry.y]), CENTRES["a"])
    np.testing.assert_array_equal(table.obsm["spatial"], CENTRES["a"])
    assert table.obsm["spatial"].dtype == np.float64
    assert table.X.dtype == np.float32
    assert table.var_names.tolist() == ["DNA", "CD3", "CD8"]
    assert table.obs_names.tolist() == ["a_0", "a_1", "a_2", "a_3"]
    assert table.obs["region"].unique().tolist() == ["cells"]
    assert table.obs["image"].unique().tolist() == ["a"]
    assert table.obs["instance_id"].tolist() == circles.index.tolist() == [0, 1, 2, 3]
    assert {str(table.obs[column].dtype) for column in ("region", "image")} == {"category"}


def test_x_is_the_mean_in_the_circle() -> None:
    sdata = one_image()
    detect(sdata)
    raw = sdata.images["a"].to_numpy().astype(float)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    (radius,) = sdata.shapes["cells"].radius.unique()
    expected = [raw[:, np.hypot(columns - x, rows - y) <= radius].mean(axis=1) for x, y in CENTRES["a"]]
    np.testing.assert_allclose(sdata["table"].X, expected, rtol=1e-6)


def test_radius_is_half_the_median_distance_of_neighbours() -> None:
    sdata = one_image()
    detect(sdata)
    nearest = [20, 20, 28, np.hypot(31, 33)]
    np.testing.assert_allclose(sdata.shapes["cells"].radius, np.median(nearest) / 2)


def test_several_images_give_one_table_in_micrometres() -> None:
    sdata = two_images()
    detect(sdata)
    table = sdata["table"]
    assert set(sdata.shapes) == {"cells_a", "cells_b"}
    np.testing.assert_allclose(table.obsm["spatial"], np.concatenate([CENTRES["a"] / 2, CENTRES["b"]]))
    nearest_um = [10, 10, 14, np.hypot(31, 33) / 2, 18, 18]
    np.testing.assert_allclose(sdata.shapes["cells_a"].radius, np.median(nearest_um))
    np.testing.assert_allclose(sdata.shapes["cells_b"].radius, np.median(nearest_um) / 2)
    assert table.obs_names.is_unique
    record = table.uns["nextmarker"]["detect_cells"]
    assert record["coordinate_system"] == {"a": "a", "b": "b"}
    assert record["method"] == "maxima"
    assert list(record["nuclear_channels"]) == ["DNA"]
    assert record["diameter"] == {"a": 12, "b": 12}
    assert sd.get_extent(sdata["cells_a"], coordinate_system="a")["x"][1] < 45


def test_regions_can_be_read_back() -> None:
    sdata = two_images()
    detect(sdata)
    a, b = read_regions(sdata)
    assert (a.name, a.image, b.name, b.image) == ("cells_a", "a", "cells_b", "b")
    np.testing.assert_array_equal(a.centres, CENTRES["a"])
    np.testing.assert_array_equal(b.rows, [4, 5])


def test_all_transformations_of_the_image_are_kept() -> None:
    tilted = Affine([[0, -2, 300], [3, 0, 7], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    transformations = {"slide": tilted, "global": Identity()}
    sdata = one_image(transformations=transformations, scale_factors=[2])
    detect(sdata)
    assert get_transformation(sdata.shapes["cells"], get_all=True) == transformations
    x, y = CENTRES["a"].T
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], np.column_stack([300 - 2 * y, 3 * x + 7]))
    assert sdata["table"].uns["nextmarker"]["detect_cells"]["coordinate_system"] == {"a": "slide"}


def test_single_cell_has_half_the_diameter_as_radius() -> None:
    sdata = SpatialData(images={"a": image(pixels(CENTRES["a"][:1]))})
    detect(sdata)
    assert sdata.shapes["cells"].radius.tolist() == [6]
    add(sdata, pd.DataFrame({"x": [3], "y": [4]}), overwrite=True)
    assert sdata.shapes["cells"].radius.tolist() == [5]


def test_diameter_is_estimated_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    sdata = two_images()
    nm.pp.detect_cells(sdata, "DNA")
    printed = capsys.readouterr().out
    diameter = sdata["table"].uns["nextmarker"]["detect_cells"]["diameter"]
    assert f"{diameter['a']:g} pixels ({diameter['a'] / 2:.1f} um)" in printed
    assert diameter["b"] == pytest.approx(12, rel=0.35)
    assert len(sdata["table"]) == 6


def test_images_and_markers_can_be_chosen() -> None:
    sdata = two_images()
    detect(sdata, images=["b"], markers=["CD8", "DNA"], key_added="nuclei", table_key="nuclei_table")
    assert set(sdata.shapes) == {"nuclei"}
    assert sdata["nuclei_table"].var_names.tolist() == ["CD8", "DNA"]
    assert len(sdata["nuclei_table"]) == 2


def test_overwrite_leaves_no_circles_of_images_without_cells() -> None:
    sdata = two_images()
    detect(sdata)
    sdata.images["b"] = image(0 * pixels(CENTRES["b"]), {"b": Identity()})
    with pytest.warns(UserWarning, match="No cells in image 'b'"):
        detect(sdata, overwrite=True)
    assert set(sdata.shapes) == {"cells_a"}
    assert sdata["table"].obs["image"].cat.categories.tolist() == ["a"]


def test_result_survives_files(tmp_path: Path) -> None:
    sdata = two_images()
    detect(sdata)
    table = sdata["table"]
    sdata.write(tmp_path / "cells.zarr")
    table.write_h5ad(tmp_path / "table.h5ad")
    back = sd.read_zarr(tmp_path / "cells.zarr")
    for found in (back["table"], ad.read_h5ad(tmp_path / "table.h5ad")):
        pd.testing.assert_frame_equal(found.obs, table.obs)
        np.testing.assert_array_equal(found.X, table.X)
        np.testing.assert_array_equal(found.obsm["spatial"], table.obsm["spatial"])
        assert found.uns["nextmarker"]["detect_cells"]["radius"] == table.uns["nextmarker"]["detect_cells"]["radius"]
        assert list(found.uns["nextmarker"]["detect_cells"]["markers"]) == ["DNA", "CD3", "CD8"]
    np.testing.assert_array_equal(read_regions(back)[0].centres, CENTRES["a"])
    detect(back, overwrite=True)  # a backed object
    np.testing.assert_array_equal(back["table"].X, table.X)


def test_squidpy_finds_neighbours() -> None:
    sq = pytest.importorskip("squidpy")
    sdata = two_images()
    detect(sdata)
    adata = sdata["table"]
    sq.gr.spatial_neighbors_knn(adata, n_neighs=1, library_key="region")
    neighbour = adata.obsp["spatial_distances"].toarray()
    assert neighbour[4, 5] == neighbour[5, 4] == 18
    assert not neighbour[:4, 4:].any()


def test_spatialdata_plot_colours_circles() -> None:
    pytest.importorskip("spatialdata_plot")
    sdata = two_images()
    detect(sdata)
    axes = sdata.pl.render_shapes("cells_a", color="CD3").pl.show(coordinate_systems="a", return_ax=True)
    (drawn,) = axes.collections
    intensity = mpl.colors.Normalize()(sdata["table"].X[:4, 1])
    np.testing.assert_allclose(drawn.get_facecolor(), mpl.colormaps["viridis"](intensity), atol=0.01)


# --- images without nuclei


def with_image(name: str, raw: np.ndarray) -> SpatialData:
    """A good image and another."""
    return SpatialData(images={"good": image(pixels(CENTRES["a"])), name: image(raw)})


@pytest.mark.parametrize("rate", [0.02, 0.4, 6])
def test_cells_of_an_empty_image_are_announced_as_noise(rate: float) -> None:
    noise = np.random.default_rng(0).poisson(rate, (3, 120, 150))
    with pytest.warns(UserWarning, match=r"'empty' .*noise in \['DNA'\].*images=\[\.\.\.\]") as caught:
        detect(sdata := with_image("empty", noise))
    assert len([w for w in caught if "noise" in str(w.message)]) == 1
    assert (sdata["table"].obs["image"] == "good").sum() == 4
    with pytest.warns(UserWarning, match="may be noise"):
        detect(SpatialData(images={"alone": image(noise)}))


@pytest.mark.parametrize("thinning", [0.3, 0.05])
def test_dim_cells_are_no_noise(thinning: float) -> None:
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=200)
    dim = np.random.default_rng(0).binomial(sdata["tissue_1"].values[:1], thinning)
    dim_sdata = SpatialData(images={"dim": image(dim)})
    detect(dim_sdata, diameter=7)  # a warning would be an error
    assert len(dim_sdata["table"]) == pytest.approx(200, rel=0.05)


@pytest.mark.parametrize("um", [None, 1.0, 0.1])
def test_diameter_that_is_hardly_a_nucleus_is_announced(um: float | None) -> None:
    rows, columns = np.mgrid[:150, :200]
    glow = np.random.default_rng(0).poisson(5 * np.exp(-((rows - 75) ** 2 + (columns - 100) ** 2) / 1800))
    sdata = SpatialData(images={"glow": image(glow[None])})
    if um is not None:
        nm.pp.set_pixel_size(sdata, um)
    if um == 0.1:  # 5 micrometres
        detect(sdata, diameter=None)
        return
    with pytest.warns(UserWarning, match=r"estimated nuclear diameter, .*'glow'.* diameter=\.\.\."):
        detect(sdata, diameter=None)


def histology() -> object:
    """A slide stained with haematoxylin and eosin, as spatialdata-io reads it."""
    return Image2DModel.parse(np.full((3, *SHAPE), 200, np.uint8), dims=("c", "y", "x"), c_coords=["r", "g", "b"])


@pytest.mark.parametrize("arguments", [{}, {"markers": ["CD3"]}])
def test_image_without_the_nuclear_channel_is_left_to_the_user(arguments: dict) -> None:
    sdata = SpatialData(images={"he": histology(), "if": image(pixels(CENTRES["a"]))})
    call = r"'DNA' in image 'he'.* images=\['if'\]"
    assert_unchanged_by(sdata, lambda s: detect(s, **arguments), KeyError, call)
    detect(sdata, images="if")
    assert len(sdata["table"]) == 4


def stack(**kwargs: object) -> object:
    """Three planes, of which the last has the nuclei."""
    raw = pixels(CENTRES["a"])
    planes = np.stack([0 * raw, raw // 2, raw], axis=1)
    return Image3DModel.parse(planes, dims=("c", "z", "y", "x"), c_coords=["DNA", "CD3", "CD8"], **kwargs)


@pytest.mark.parametrize("scale_factors", [None, [2]])
def test_deep_image_is_refused_with_a_call_that_projects_it(scale_factors: list[int] | None) -> None:
    sdata = SpatialData(images={"deep": stack(scale_factors=scale_factors)})
    frame = pd.DataFrame({"x": [1], "y": [1]})
    for call in (detect, lambda s: add(s, frame), lambda s: nm.pp.match_panels(s)):
        assert_unchanged_by(sdata, call, ValueError, r"'deep' has the dimensions \('c', 'z', 'y', 'x'\)")
    with pytest.raises(ValueError, match="project it") as caught:
        detect(sdata)
    exec(str(caught.value).split("project it: ")[1].rstrip("."), {"sdata": sdata, "spatialdata": sd})
    detect(sdata, images="deep_flat")
    np.testing.assert_array_equal(sdata["table"].obsm["spatial"], CENTRES["a"])
    assert sdata["table"].var_names.tolist() == ["DNA", "CD3", "CD8"]


def test_deep_labels_are_refused_with_a_call_that_works() -> None:
    sdata = one_image()
    sdata.labels["deep"] = Labels3DModel.parse(np.stack([label_image()] * 2), dims=("z", "y", "x"))
    assert_unchanged_by(
        sdata, lambda s: add(s, "deep"), ValueError, r"nm.pp.add_cells\(sdata, sdata\['deep'\].max\('z'\)"
    )
    add(sdata, sdata["deep"].max("z"), images="a")
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], LABEL_CENTRES)


def test_panels_that_share_nothing_lead_to_a_choice_of_images() -> None:
    sdata = SpatialData(images={"he": histology(), "if": image(pixels(CENTRES["a"]))})
    frame = pd.DataFrame({"image": ["he", "if"], "x": [1, 1], "y": [1, 1]})
    assert_unchanged_by(sdata, lambda s: add(s, frame), ValueError, r"images=\['if'\]")


def test_every_step_leaves_images_without_cells_alone(tmp_path: Path) -> None:
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=60)
    sdata.images["he"], sdata.images["deep"] = histology(), stack()
    detect(sdata, "DNA1", images="tissue_1", diameter=7)
    nm.tl.embed(sdata, nm.tl.train(sdata, 6, training=nm.nn.TrainingConfig(steps=1), progress=False), progress=False)
    nm.tl.cluster(sdata["table"])
    nm.pl.cells(sdata)
    nm.io.write_geojson(sdata, tmp_path / "cells.geojson")
    nm.io.write(sdata, tmp_path / "tissue.zarr")
    assert np.isfinite(sdata["table"].obsm["X_nextmarker"]).all()


# --- cells from elsewhere


def label_image(dtype: type = np.int32) -> np.ndarray:
    labels = np.zeros(SHAPE, dtype)
    labels[10:14, 30:36] = 9
    labels[40:43, 5:8] = 4
    return labels


LABEL_CENTRES = np.array([[6.5, 41.5], [33, 12]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint32])
@pytest.mark.parametrize("scale_factors", [None, [2]])
def test_cells_from_labels(dtype: type, scale_factors: list[int] | None) -> None:
    sdata = one_image()
    sdata.labels["segmentation"] = Labels2DModel.parse(
        da.from_array(label_image(dtype), chunks=16), dims=("y", "x"), scale_factors=scale_factors
    )
    add(sdata, "segmentation")
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], LABEL_CENTRES)
    assert sdata["table"].obs["source_id"].tolist() == [4, 9]
    assert sdata["table"].uns["nextmarker"]["add_cells"]["cells"] == "segmentation"


def test_labels_of_another_resolution_are_brought_into_the_pixels_of_the_image() -> None:
    sdata = one_image(transformations={"slide": Translation([100, 200], axes=("x", "y"))})
    to_slide = Affine([[3, 0, 100], [0, 2, 200], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y"))
    labels = np.zeros((30, 30), int)
    labels[4:8, 10:12] = 1
    sdata.labels["small"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations={"slide": to_slide})
    add(sdata, "small")
    assert [(p.x, p.y) for p in sdata.shapes["cells"].geometry] == [(33, 12)]
    np.testing.assert_allclose(sdata["table"].obsm["spatial"], [[133, 212]])


def test_cells_from_shapes_and_points() -> None:
    sdata = one_image()
    squares = gpd.GeoDataFrame(geometry=[box(4, 40, 9, 43), box(30, 10, 36, 14)], index=["q", "r"])
    sdata.shapes["squares"] = ShapesModel.parse(squares)
    sdata.shapes["discs"] = ShapesModel.parse(LABEL_CENTRES, geometry=0, radius=3, index=[7, 8])
    sdata.points["spots"] = PointsModel.parse(dd.from_pandas(pd.DataFrame(LABEL_CENTRES, columns=["x", "y"]), 1))
    for name, ids in {"squares": ["q", "r"], "discs": [7, 8], "spots": [0, 1]}.items():
        add(sdata, name, overwrite=True)
        np.testing.assert_allclose(sdata["table"].obsm["spatial"], LABEL_CENTRES)
        assert sdata["table"].obs["source_id"].tolist() == ids


def test_cells_from_tables_are_pixels_from_the_middle_of_the_first(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": [4, 9], "x": [6, 32.5], "y": [41, 11.5]})
    frame.to_csv(tmp_path / "cells.csv", index=False)
    adata = ad.AnnData(np.zeros((2, 1)), obs=pd.DataFrame(index=["q", "r"]))
    adata.obsm["spatial"] = frame[["x", "y"]].to_numpy()
    sdata = one_image()
    sdata.tables["old"] = TableModel.parse(adata.copy())
    sources = {"file": tmp_path / "cells.csv", "text": str(tmp_path / "cells.csv"), "frame": frame}
    for source in [*sources.values(), adata, "old"]:
        add(sdata, source, overwrite=True)
        np.testing.assert_allclose(sdata["table"].obsm["spatial"], LABEL_CENTRES)
        assert sdata["table"].obs["source_id"].tolist() in ([4, 9], ["q", "r"])


def test_cells_of_several_images_from_one_table() -> None:
    sdata = two_images()
    add(sdata, pd.DataFrame({"x": [1, 2, 3], "y": [4, 5, 6], "image": ["b", "a", "b"]}))
    assert [(p.x, p.y) for p in sdata.shapes["cells_b"].geometry] == [(1.5, 4.5), (3.5, 6.5)]
    assert sdata["table"].obs["image"].tolist() == ["a", "b", "b"]
    assert sdata["table"].obs["source_id"].tolist() == [1, 0, 2]


def test_source_ids_of_any_kind_can_be_written(tmp_path: Path) -> None:
    sdata = two_images()
    places = {"x": [1, 2], "y": [4, 5]}
    add(sdata, {"a": pd.DataFrame(places, index=[("s", 1), ("s", 2)]), "b": pd.DataFrame(places, index=[0.5, 7.0])})
    assert sdata["table"].obs["source_id"].tolist() == ["('s', 1)", "('s', 2)", "0.5", "7.0"]
    sdata["table"].write_h5ad(tmp_path / "table.h5ad")


def test_cells_of_several_images_from_elements_of_like_names() -> None:
    sdata = two_images()
    half = Scale([0.5, 0.5], axes=("x", "y"))
    sdata.labels["masks_a"] = Labels2DModel.parse(label_image(), dims=("y", "x"), transformations={"a": half})
    sdata.shapes["b_masks"] = ShapesModel.parse(LABEL_CENTRES, geometry=0, radius=3, transformations={"b": Identity()})
    for cells in ("masks", {"a": "masks_a", "b": "b_masks"}):
        add(sdata, cells, overwrite=True)
        assert sdata["table"].obs["image"].tolist() == ["a", "a", "b", "b"]
        np.testing.assert_allclose(sdata["table"].obsm["spatial"][2:], LABEL_CENTRES)
        np.testing.assert_allclose(sdata["table"].obsm["spatial"][:2], LABEL_CENTRES / 2)


def test_element_belongs_to_the_image_whose_coordinate_system_or_name_it_shares() -> None:
    sdata = two_images()
    sdata.labels["segmentation"] = Labels2DModel.parse(
        label_image(), dims=("y", "x"), transformations={"b": Identity()}
    )
    add(sdata, "segmentation")
    assert set(sdata.shapes) == {"cells"}
    assert sdata["table"].obs["image"].tolist() == ["b", "b"]
    both = SpatialData(images={name: image(pixels(CENTRES[name])) for name in "ab"})
    both.labels["masks_b"] = Labels2DModel.parse(label_image(), dims=("y", "x"))
    add(both, "masks_b")
    assert both["table"].obs["image"].tolist() == ["b", "b"]
    both.labels["unnamed"] = Labels2DModel.parse(label_image(), dims=("y", "x"))
    call = r"nm.pp.add_cells\(sdata, \{'a': 'unnamed'\}\)"
    assert_unchanged_by(both, lambda s: add(s, "unnamed", overwrite=True), ValueError, call)


# --- what is refused, and changes nothing


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"nuclear_channels": "DNa"}, KeyError, "Did you mean 'DNA'"),
        ({"nuclear_channels": ["DNA", "DNA"]}, ValueError, "each once"),
        ({"nuclear_channels": []}, ValueError, "each once"),
        ({"nuclear_channels": 0}, TypeError, r"nuclear_channels=0 must be a name.*\['c'\]"),
        ({"nuclear_channels": [0, 1]}, TypeError, r"nuclear_channels=\[0, 1\] must be a name"),
        ({"nuclear_channels": "CD8"}, ValueError, "No cells in"),
        ({"nuclear_channels": "CD8", "diameter": None}, ValueError, "No cells in"),
        ({"method": "cellpose"}, ValueError, "maxima"),
        ({"diameter": -1}, ValueError, "diameter=-1"),
        ({"diameter": np.nan}, ValueError, "diameter=nan"),
        ({"images": "c"}, KeyError, "'a', 'b'"),
        ({"images": []}, ValueError, "each once"),
        ({"markers": ["CD4"]}, ValueError, "CD4"),
        ({"markers": []}, ValueError, "each once"),
        ({"key_added": "my cells"}, ValueError, "my cells"),
        ({"key_added": "a", "images": "a"}, ValueError, r"sdata.images\['a'\]"),
        ({"table_key": "A"}, ValueError, r"sdata.images\['a'\]"),
        ({"table_key": "cells_a"}, ValueError, "different names"),
    ],
)
def test_bad_arguments_of_detection(arguments: dict, error: type[Exception], match: str) -> None:
    assert_unchanged_by(two_images(), lambda sdata: detect(sdata, **arguments), error, match)


def test_no_images() -> None:
    assert_unchanged_by(SpatialData(), detect, ValueError, "nm.io.read")
    assert_unchanged_by(SpatialData(), lambda sdata: add(sdata, "masks"), ValueError, "nm.io.read")


@pytest.mark.parametrize(("channel", "name"), [(0, "DNA"), (1, "CD3")])
def test_nan_pixels(channel: int, name: str) -> None:
    raw = pixels(CENTRES["a"]).astype(float)
    raw[channel, 50, 3] = np.nan
    sdata = SpatialData(images={"tissue": image(raw)})
    assert_unchanged_by(sdata, detect, ValueError, f"'tissue'.*{name}")


def test_panels_that_differ() -> None:
    sdata = two_images()
    sdata.images["b"] = image(pixels(CENTRES["b"])[:2])
    assert_unchanged_by(sdata, detect, ValueError, r"markers=\['DNA', 'CD3'\]")
    detect(sdata, markers=["CD3"])
    assert sdata["table"].var_names.tolist() == ["CD3"]


def test_existing_cells_are_kept() -> None:
    sdata = one_image()
    detect(sdata)
    for call in (detect, lambda s: add(s, pd.DataFrame({"x": [1], "y": [1]}))):
        assert_unchanged_by(sdata, call, ValueError, r"shapes\['cells'\].*tables\['table'\].*overwrite=True")


@pytest.mark.parametrize(
    ("cells", "error", "match"),
    [
        ("mask", KeyError, "masks_a"),
        ("nowhere.csv", KeyError, "nowhere.csv"),
        (3, TypeError, "int"),
        (pd.DataFrame({"x": [1], "Y": [1]}), ValueError, "'y'.*'x', 'Y'"),
        (pd.DataFrame({"x": [1], "y": [1]}), ValueError, "column 'image'"),
        (pd.DataFrame({"x": [1], "y": [1], "image": ["c"]}), ValueError, "'c'.*'a', 'b'"),
        ({"a": pd.DataFrame({"x": [1, 95, np.nan], "y": [1, 1, 1]})}, ValueError, "2 of 3 centres"),
        ({"a": pd.DataFrame({"x": [1, 2], "y": [59.4, 59.6]})}, ValueError, "1 of 2 centres"),
        ({"a": pd.DataFrame({"x": ["left"], "y": [1]})}, ValueError, "1 of 1 centres"),
        ({"a": pd.DataFrame({"x": [], "y": []})}, ValueError, "No cells"),
        ({"c": "masks_a"}, KeyError, "'c'"),
        ({"b": "masks_a"}, ValueError, "share no coordinate system"),
        ("masks", ValueError, "'b'"),
        (ad.AnnData(np.zeros((2, 1))), KeyError, "'spatial'"),
    ],
)
def test_bad_sources(cells: object, error: type[Exception], match: str) -> None:
    sdata = two_images()
    sdata.labels["masks_a"] = Labels2DModel.parse(label_image(), dims=("y", "x"), transformations={"a": Identity()})
    assert_unchanged_by(sdata, lambda s: add(s, cells), error, match)


def test_images_without_an_entry() -> None:
    frame = pd.DataFrame({"x": [1], "y": [1]})
    assert_unchanged_by(two_images(), lambda s: add(s, {"a": frame}, images=["a", "b"]), KeyError, "'b'")


def test_file_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(b"\xff\xfe\x00x")
    assert_unchanged_by(one_image(), lambda s: add(s, tmp_path / "cells.csv"), ValueError, "cells.csv")


def test_shapes_without_a_centre() -> None:
    sdata = one_image()
    sdata.shapes["far"] = ShapesModel.parse(gpd.GeoDataFrame({"radius": [2.0]}, geometry=[Point(500, 3)]))
    assert_unchanged_by(sdata, lambda s: add(s, "far"), ValueError, "1 of 1 centres")
