"""A store that is moved, removed or partly lost while it is open: zarr gives zeros, and nextmarker an error."""

import shutil

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata
import zarr
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel

import nextmarker as nm
from nextmarker._backing import CHUNK_FILES, check_there, check_whole
from nextmarker._regions import read_image, read_pixels


def blocks(dtype=np.uint16):
    """Pixels in four chunks, one of them without signal."""
    pixels = np.ones((2, 32, 32), dtype)
    pixels[:, :16, :16] = 0
    return da.from_array(pixels, chunks=(2, 16, 16))


def tissue():
    return SpatialData(
        images={"image": Image2DModel.parse(blocks(), dims=("c", "y", "x"), c_coords=["DNA", "CD3"])},
        labels={"masks": Labels2DModel.parse(blocks(np.int32)[0], dims=("y", "x"))},
        points={"spots": PointsModel.parse(pd.DataFrame({"x": [20.0, 25.0], "y": [20.0, 9.0]}))},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "a.zarr"
    nm.io.write(tissue(), path)
    return path


@pytest.fixture
def store(tmp_path, written):
    return shutil.copytree(written, tmp_path / "a.zarr")


def move(store, kind, name):
    store.rename(store.with_name("b.zarr"))


def remove_element(store, kind, name):
    shutil.rmtree(store / kind / name)


def remove_metadata(store, kind, name):
    (store / kind / name / "s0" / "zarr.json").unlink()


def damage_metadata(store, kind, name):
    (store / kind / name / "s0" / "zarr.json").write_text("{")


def remove_chunks(store, kind, name):
    shutil.rmtree(store / kind / name / "s0" / "c")


def remove_a_chunk(store, kind, name):
    max(file for file in (store / kind / name / "s0" / "c").rglob("*") if file.is_file()).unlink()


def replace(store, kind, name):
    shutil.rmtree(store)
    nm.io.write(nm.datasets.synthetic_tissue(n_images=1, n_cells=20), store)
    shutil.move(store / "images" / "tissue_1", store / "images" / "image")
    shutil.move(store / "labels" / "masks_tissue_1", store / "labels" / "masks")


LOSSES = [move, remove_element, remove_metadata, damage_metadata, remove_chunks, remove_a_chunk, replace]
TOLD = r"is read from .*(was moved or removed|has lost \d of its 3 files|was replaced).*(Read|Copy) the store again"


@pytest.mark.parametrize("lose", LOSSES)
def test_pixels_that_are_lost_are_told_before_they_are_used(store, lose):
    sdata = spatialdata.read_zarr(store)
    lose(store, "images", "image")
    with pytest.raises((FileNotFoundError, ValueError), match=f"'image' {TOLD}"):
        read_image(sdata, "image")
    with pytest.raises((FileNotFoundError, ValueError), match=TOLD):
        nm.pp.add_cells(sdata, pd.DataFrame({"x": [20], "y": [20]}), progress=False)
    assert not sdata.tables
    assert not sdata.shapes


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("place", [("images", "image"), ("labels", "masks")])
def test_an_object_that_lost_pixels_is_not_written(store, tmp_path, lose, place):
    sdata = spatialdata.read_zarr(store)
    lose(store, *place)
    with pytest.raises((FileNotFoundError, ValueError), match=TOLD):
        nm.io.write(sdata, tmp_path / "other.zarr")
    assert not (tmp_path / "other.zarr").exists()


def test_labels_that_are_lost_are_told_before_cells_are_made_of_them(store):
    sdata = spatialdata.read_zarr(store)
    remove_a_chunk(store, "labels", "masks")
    with pytest.raises(FileNotFoundError, match=f"'masks' {TOLD}"):
        nm.pp.add_cells(sdata, "masks", progress=False)


def test_points_that_are_lost_are_told(store, tmp_path):
    sdata = spatialdata.read_zarr(store)
    shutil.rmtree(store / "points" / "spots" / "points.parquet")
    with pytest.raises(FileNotFoundError, match="'spots' .*does not exist"):
        nm.io.write(sdata, tmp_path / "other.zarr")


def test_a_store_that_goes_while_pixels_are_read_is_told(store):
    pixels = read_image(spatialdata.read_zarr(store), "image")
    assert read_pixels("image", pixels, slice(16, 32), slice(0, 32)).min() == 1
    move(store, "images", "image")
    with pytest.raises(FileNotFoundError, match=TOLD):
        read_pixels("image", pixels, slice(16, 32), slice(0, 32))


@pytest.mark.parametrize(
    "derive",
    [
        lambda image: image * 2,
        lambda image: image.isel(x=slice(3, 20)),
        lambda image: image.assign_coords(c=["a", "b"]).transpose("y", "x", "c"),
        lambda image: image.chunk({"y": 5}),
        lambda image: image.astype(np.float32).fillna(0),
    ],
)
def test_what_is_computed_from_lost_pixels_is_told(store, derive):
    pixels = derive(spatialdata.read_zarr(store)["image"])
    check_whole("image", pixels)
    move(store, "images", "image")
    for check in (check_there, check_whole):
        with pytest.raises(FileNotFoundError, match=TOLD):
            check("image", pixels)


@pytest.mark.parametrize("open_it", [da.from_zarr, lambda path: da.from_array(zarr.open_array(path))])
def test_arrays_of_others_are_looked_at(tmp_path, open_it):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((1, 8, 8), np.uint8))
    pixels = Image2DModel.parse(open_it(str(tmp_path / "a.zarr")), dims=("c", "y", "x"))
    check_whole("image", pixels)
    shutil.rmtree(tmp_path / "a.zarr")
    with pytest.raises(FileNotFoundError, match=TOLD):
        check_whole("image", pixels)


def test_every_scale_is_looked_at(tmp_path):
    image = Image2DModel.parse(blocks(), dims=("c", "y", "x"), scale_factors=[2])
    nm.io.write(SpatialData(images={"image": image}), tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    nm.io.write(sdata, tmp_path / "b.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / "images" / "image" / "s1")
    read_image(sdata, "image")  # full resolution is all that is needed here
    with pytest.raises(FileNotFoundError, match="s1"):
        nm.io.write(sdata, tmp_path / "c.zarr")


def test_pixels_without_signal_are_no_loss(store, tmp_path):
    """Chunks of zeros have no file: the number of files is noted, not that of chunks."""
    assert zarr.open_array(store / "images" / "image" / "s0").attrs[CHUNK_FILES] == 3
    sdata = spatialdata.read_zarr(store)
    nm.io.write(sdata, tmp_path / "b.zarr")
    again = spatialdata.read_zarr(tmp_path / "b.zarr")
    np.testing.assert_array_equal(read_image(again, "image"), blocks())
    empty = Image2DModel.parse(da.zeros((1, 8, 8), dtype=np.uint8), dims=("c", "y", "x"))
    nm.io.write(SpatialData(images={"image": empty}), tmp_path / "c.zarr")
    assert not read_image(spatialdata.read_zarr(tmp_path / "c.zarr"), "image").any()


def test_in_a_store_of_spatialdata_what_can_be_known_is_told(tmp_path):
    tissue().write(tmp_path / "a.zarr")
    sdata = spatialdata.read_zarr(tmp_path / "a.zarr")
    nm.io.write(sdata, tmp_path / "b.zarr")
    remove_metadata(tmp_path / "a.zarr", "images", "image")
    with pytest.raises(FileNotFoundError, match=TOLD):
        read_image(sdata, "image")


def test_what_is_in_memory_is_written_again_where_its_store_was(store):
    sdata = tissue()
    nm.io.write(sdata, store, overwrite=True)
    shutil.rmtree(store)
    nm.io.write(sdata, store)
    np.testing.assert_array_equal(spatialdata.read_zarr(store)["image"], blocks())


def test_a_damaged_store_is_repaired_by_an_object_that_has_the_pixels(store):
    sdata = spatialdata.read_zarr(store)
    remove_metadata(store, "images", "image")
    sdata.images["image"] = tissue().images["image"]
    nm.io.write(sdata, store, overwrite=True)
    np.testing.assert_array_equal(spatialdata.read_zarr(store)["image"], blocks())
