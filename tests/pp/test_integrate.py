"""nm.pp.integrate: means, medians and sums in masks, compared with numpy on whole images."""

import warnings
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import squidpy as sq
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, Labels3DModel
from spatialdata.transformations import Identity, Scale, Translation, set_transformation

import nextmarker as nm
from tests.copies import made_once

REDUCE = {"mean": np.mean, "median": np.median, "sum": np.sum}


def lazily(sdata: SpatialData, chunk: int) -> SpatialData:
    """Cut images and labels into chunks that do not fit each other."""
    for name in list(sdata.images):
        sdata.images[name] = sdata.images[name].chunk({"c": 5, "y": chunk, "x": chunk + 3})
        sdata.labels[f"masks_{name}"] = sdata.labels[f"masks_{name}"].chunk({"y": chunk + 7, "x": chunk})
    return sdata


@pytest.fixture
def tissue() -> SpatialData:
    return make_tissue()


@made_once
def make_tissue() -> SpatialData:
    return lazily(nm.datasets.dense_tissue(n_images=2, n_cells=60), 16)


def integrate(sdata: SpatialData, labels: object = "masks", **kwargs: object) -> ad.AnnData:
    nm.pp.integrate(sdata, labels, progress=False, **kwargs)
    return sdata.tables[kwargs.get("key_added", "intensity")]


def truth(pixels: np.ndarray, labels: np.ndarray, statistic: str) -> np.ndarray:
    names = np.unique(labels[labels > 0])
    return np.array([REDUCE[statistic](pixels[:, labels == name].astype(float), axis=1) for name in names])


def assert_unchanged_by(sdata: SpatialData, match: str, labels: object = "masks", **kwargs: object) -> None:
    before = {name: element for _, name, element in sdata.gen_elements()}
    with pytest.raises((KeyError, TypeError, ValueError), match=match):
        integrate(sdata, labels, **kwargs)
    after = {name: element for _, name, element in sdata.gen_elements()}
    assert all(after[name] is before[name] for name in before)
    assert after.keys() == before.keys()


@pytest.mark.parametrize("statistic", REDUCE)
def test_values_are_those_of_numpy_on_the_whole_image(tissue: SpatialData, statistic: str) -> None:
    table = integrate(tissue, statistics=statistic)
    whole = [truth(tissue[i].to_numpy(), tissue[f"masks_{i}"].to_numpy(), statistic) for i in tissue.images]
    np.testing.assert_allclose(table.X, np.concatenate(whole), rtol=1e-6)


def test_table_has_everything_that_is_documented(tissue: SpatialData) -> None:
    table = integrate(tissue, statistics=["mean", "sum"], cofactor=2)
    masks = tissue["masks_dense_2"].to_numpy()
    own = table[table.obs["image"] == "dense_2"]
    assert own.obs["region"].unique().tolist() == ["masks_dense_2"]
    assert own.obs["instance_id"].tolist() == np.unique(masks).tolist()  # numbers repeat in the other image
    assert own.obs["area"].tolist() == np.bincount(masks.ravel())[1:].tolist()
    assert own.obs_names[0] == "dense_2_1"
    assert table.var_names.tolist() == tissue["dense_1"]["c"].to_numpy().tolist()
    assert {str(table.obs[column].dtype) for column in ("region", "image")} == {"category"}
    assert (table.X.dtype, table.layers["sum"].dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(table.layers["arcsinh"], np.arcsinh(table.X / 2), rtol=1e-6)
    np.testing.assert_allclose(table.layers["sqrt"] ** 2, table.X, rtol=1e-5)
    np.testing.assert_allclose(table.layers["sum"], table.X * table.obs[["area"]].to_numpy(), rtol=1e-6)
    record = table.uns["nextmarker"]["integrate"]
    assert record["labels"] == {"dense_1": "masks_dense_1", "dense_2": "masks_dense_2"}
    assert (record["cofactor"], list(record["statistics"])) == (2.0, ["mean", "sum"])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiles_and_chunks_do_not_change_a_bit(dtype: type) -> None:
    results = []
    for chunk, tile_size in [(16, 1), (16, 30), (11, 1), (500, 500)]:
        sdata = lazily(nm.datasets.dense_tissue(n_images=1, n_cells=60), chunk)
        sdata["dense_1"] = sdata["dense_1"].astype(dtype)  # whole numbers, so sums are exact
        results.append(integrate(sdata, statistics=list(REDUCE), tile_size=tile_size))
    for other in results[1:]:
        assert results[0].X.tobytes() == other.X.tobytes()
        assert all(results[0].layers[key].tobytes() == other.layers[key].tobytes() for key in other.layers)
        assert results[0].obsm["spatial"].tobytes() == other.obsm["spatial"].tobytes()


def test_each_chunk_of_the_image_is_read_once(tissue: SpatialData) -> None:
    reads = []

    def read(block: np.ndarray, block_info: dict) -> np.ndarray:
        reads.append(tuple(block_info[0]["chunk-location"]))
        return block

    pixels = tissue["dense_1"]
    counted = pixels.copy(data=pixels.data.map_blocks(read, dtype=pixels.dtype, meta=np.empty((0, 0, 0), pixels.dtype)))
    tissue["dense_1"] = counted
    integrate(tissue, images="dense_1", statistics=["mean", "median"], tile_size=20)
    assert sorted(reads) == sorted(np.ndindex(pixels.data.numblocks))


def pieces(dtype: type = np.int32) -> SpatialData:
    """One image of 30 x 40 pixels with three objects, of which one is in two distant pieces."""
    labels = np.zeros((30, 40), dtype)
    labels[2:6, 3:9], labels[10:20, 10:12], labels[0, 0], labels[29, 39] = 3, 7, 100, 100
    pixels = np.random.default_rng(0).poisson(5, (2, 30, 40)).astype(np.uint16)
    image = Image2DModel.parse(da.from_array(pixels, chunks=(1, 8, 8)), dims=("c", "y", "x"), c_coords=["CD3", "CD8"])
    return SpatialData(images={"a": image}, labels={"seg": Labels2DModel.parse(labels, dims=("y", "x"))})


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_labels_of_any_type_with_gaps_and_in_pieces(dtype: type) -> None:
    sdata = pieces(dtype)
    table = integrate(sdata, "seg", statistics=["mean", "median"], tile_size=8)
    assert table.obs["instance_id"].tolist() == [3, 7, 100]
    for statistic, values in [("mean", table.X), ("median", table.layers["median"])]:
        expected = truth(sdata["a"].to_numpy(), sdata["seg"].to_numpy(), statistic)
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    np.testing.assert_allclose(table.obsm["spatial"], [[6, 4], [11, 15], [20, 15]])


def test_centroids_are_in_micrometres_where_the_pixel_size_is_known() -> None:
    sdata = pieces()
    nm.pp.set_pixel_size(sdata, 0.5)
    set_transformation(sdata["seg"], Scale([0.5, 0.5], ("x", "y")), "micrometre")
    assert integrate(sdata, "seg").obsm["spatial"].tolist() == [[3, 2], [5.5, 7.5], [10, 7.5]]


def test_pyramids_are_read_at_full_resolution() -> None:
    sdata = pieces()
    plain = integrate(sdata, "seg").copy()
    sdata.labels["deep"] = Labels2DModel.parse(sdata["seg"].to_numpy(), dims=("y", "x"), scale_factors=[2])
    image = sdata["a"]
    sdata.images["a"] = Image2DModel.parse(image.data, dims=image.dims, c_coords=["CD3", "CD8"], scale_factors=[2])
    np.testing.assert_array_equal(integrate(sdata, {"a": "deep"}, overwrite=True).X, plain.X)


def test_spatialdata_and_squidpy_understand_the_table(tissue: SpatialData) -> None:
    table = integrate(tissue)
    joined = sd.join_spatialelement_table(
        tissue, spatial_element_names="masks_dense_1", table_name="intensity", how="left"
    )
    assert joined[1].obs["region"].tolist() == ["masks_dense_1"] * 60
    sq.gr.spatial_neighbors(table, library_key="region", coord_type="generic")
    crop = tissue.query.bounding_box(("x", "y"), [10, 5], [40, 40], target_coordinate_system="dense_1")
    again = integrate(crop, key_added="again")
    assert again.obs["instance_id"].tolist() == crop["intensity"].obs["instance_id"].tolist()
    uncut = (again.obs["area"] == crop["intensity"].obs["area"].to_numpy()).to_numpy()
    assert 0 < uncut.sum() < len(uncut)
    np.testing.assert_array_equal(again.X[uncut], crop["intensity"].X[uncut])
    np.testing.assert_allclose(again.obsm["spatial"][uncut], crop["intensity"].obsm["spatial"][uncut])


def test_results_survive_files(tissue: SpatialData, tmp_path: Path) -> None:
    table = integrate(tissue, statistics=["mean", "median"])
    table.write_h5ad(tmp_path / "table.h5ad")
    nm.io.write(tissue, tmp_path / "tissue.zarr")
    for loaded in (ad.read_h5ad(tmp_path / "table.h5ad"), sd.read_zarr(tmp_path / "tissue.zarr")["intensity"]):
        np.testing.assert_array_equal(loaded.X, table.X)
        np.testing.assert_array_equal(loaded.layers["median"], table.layers["median"])
        assert loaded.obs.equals(table.obs[loaded.obs.columns])
        assert loaded.uns["nextmarker"]["integrate"]["labels"] == table.uns["nextmarker"]["integrate"]["labels"]


def test_markers_are_chosen_in_order(tissue: SpatialData) -> None:
    table = integrate(tissue, markers=["CD8", "DNA"])
    assert table.var_names.tolist() == ["CD8", "DNA"]
    np.testing.assert_array_equal(table.X, integrate(tissue, overwrite=True)[:, ["CD8", "DNA"]].X)


def test_an_image_without_objects_is_left_out_with_a_warning(tissue: SpatialData) -> None:
    tissue["masks_dense_1"].data = tissue["masks_dense_1"].data * 0
    with pytest.warns(UserWarning, match="image 'dense_1' is not in the table"):
        table = integrate(tissue)
    assert table.obs["image"].unique().tolist() == ["dense_2"]
    assert_unchanged_by(tissue, "No object in the labels 'masks_dense_1': all", images="dense_1", overwrite=True)


def test_a_cofactor_far_above_the_counts_is_named_with_a_better_one(tissue: SpatialData) -> None:
    bright = np.median(np.percentile(integrate(tissue).X, 99, axis=0))  # no warning
    with pytest.warns(UserWarning, match=f"{bright:.2g} counts.*cofactor=100,.*cofactor={bright:.1g}\\)"):
        integrate(tissue, cofactor=100, overwrite=True)
    integrate(tissue, cofactor=float(f"{bright:.1g}"), overwrite=True)  # as advised, without a warning


def test_markers_without_signal_say_nothing_of_the_cofactor(tissue: SpatialData) -> None:
    for image in tissue.images:
        tissue[image][:7] = 0  # more than half
    integrate(tissue)
    for image in tissue.images:
        tissue[image][:] = 0
    integrate(tissue, overwrite=True)


def test_bad_input_changes_nothing(tissue: SpatialData) -> None:
    integrate(tissue)
    assert_unchanged_by(tissue, r"exists already: sdata.tables\['intensity'\]; .*overwrite=True")
    assert_unchanged_by(tissue, r"sdata.images\['dense_1'\]; choose another with key_added", key_added="dense_1")
    assert_unchanged_by(tissue, "No labels 'nuclei' in sdata.labels", "nuclei")
    assert_unchanged_by(tissue, "No labels 'truth_dense_1' in sdata.labels", "truth_dense_1")  # shapes
    assert_unchanged_by(tissue, "No labels 'x' in sdata.labels", {"dense_1": "x"})
    assert_unchanged_by(
        tissue, "No image 'dense_2' in labels", {"dense_1": "masks_dense_1"}, images=list(tissue.images)
    )
    free = {"overwrite": True}
    assert_unchanged_by(tissue, "No channel 'CD99' in image 'dense_1'", markers=["CD99"], **free)
    assert_unchanged_by(tissue, "statistics='std' must be one of", statistics=["mean", "std"], **free)
    assert_unchanged_by(tissue, "one name or more, each once", statistics=[], **free)
    assert_unchanged_by(tissue, "cofactor=0 must be a number above 0", cofactor=0, **free)
    nm.pp.integrate(tissue, "masks", overwrite=True, progress=False)


def test_labels_that_are_no_numbers_of_objects_are_refused(tissue: SpatialData) -> None:
    masks = tissue["masks_dense_1"]
    integers = masks.data
    masks.data = integers.astype(float)  # newer releases of spatialdata refuse to set such labels
    assert_unchanged_by(tissue, r"are float64, not integers.*astype\('int32'\)")
    masks.data = (integers % 3 == 0).astype(int)
    assert_unchanged_by(tissue, "'masks_dense_1' has 1 value.* in .* pieces. Number the cells")
    masks.data = -integers.astype("int64")
    assert_unchanged_by(tissue, "negative or not integers")
    tissue.labels["deep"] = Labels3DModel.parse(np.ones((2, 5, 5), int), dims=("z", "y", "x"))
    assert_unchanged_by(tissue, "Project them", {"dense_1": "deep"})


def test_pixels_that_are_not_finite_are_refused(tissue: SpatialData) -> None:
    pixels = tissue["dense_2"].astype(np.float32)
    tissue["dense_2"] = pixels.where(pixels["x"] < pixels["x"].max(), np.nan)
    assert_unchanged_by(tissue, r"'dense_2'\] are NaN or infinite")


def test_other_panels_are_refused(tissue: SpatialData) -> None:
    tissue["dense_2"] = tissue["dense_2"].isel(c=slice(1, None))
    assert_unchanged_by(tissue, "another panel")
    assert integrate(tissue, markers=["CD3"]).shape == (120, 1)


def test_labels_of_another_resolution_are_read_at_the_pixels_of_the_image() -> None:
    sdata = pieces()
    plain = integrate(sdata, "seg").copy()
    finer = np.kron(sdata["seg"].to_numpy(), np.ones((3, 2), np.int32))[:, :-1]  # the edge may be cut
    scale = {"global": Scale([1 / 2, 1 / 3], ("x", "y"))}
    lazy = da.from_array(finer, chunks=13)
    sdata.labels["finer"] = Labels2DModel.parse(lazy, dims=("y", "x"), transformations=scale)
    table = integrate(sdata, "finer", overwrite=True, tile_size=8)
    np.testing.assert_array_equal(table.X, plain.X)
    assert table.obs["area"].tolist() == plain.obs["area"].tolist()
    np.testing.assert_array_equal(table.obsm["spatial"], plain.obsm["spatial"])


def test_labels_of_another_area_are_refused() -> None:
    sdata = pieces()
    sdata.labels["twice"] = Labels2DModel.parse(np.ones((60, 80), int), dims=("y", "x"))  # a scale was forgotten
    assert_unchanged_by(sdata, r"\(80 x 60 pixels\) and image 'a' \(40 x 30 pixels\) do not cover", {"a": "twice"})
    set_transformation(sdata["seg"], Translation([3, 0], ("x", "y")), "global")
    assert_unchanged_by(sdata, "do not cover the same area", "seg")
    set_transformation(sdata["seg"], Scale([-1, 1], ("x", "y")), "global")
    assert_unchanged_by(sdata, "do not cover the same area", "seg")
    other = {"other": Identity()}
    sdata.labels["elsewhere"] = Labels2DModel.parse(np.ones((30, 40), int), dims=("y", "x"), transformations=other)
    assert_unchanged_by(sdata, "share no coordinate system", {"a": "elsewhere"})


def test_joined_patients_keep_their_objects(tissue: SpatialData) -> None:
    integrate(tissue)
    other = nm.datasets.dense_tissue(n_images=2, n_cells=60, random_state=1)
    integrate(other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        joined = sd.concatenate({"P1": tissue, "P2": other}, concatenate_tables=True)
    again = integrate(joined, {name: f"masks_{name}" for name in joined.images}, key_added="again")
    np.testing.assert_array_equal(again.X, joined["intensity"].X)
