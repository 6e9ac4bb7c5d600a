"""Saving: all or nothing, refused before it starts, and safe for the store that is open."""

import asyncio
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import spatialdata
import xarray as xr
import zarr
from anndata import AnnData
from scipy import sparse
from shapely import points
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel
from spatialdata.transformations import Scale, get_transformation, set_transformation
from zarr.core.sync import _get_loop

import nextmarker as nm
from nextmarker import _replace as replace
from nextmarker.io.store import write
from tests.copies import made_once


@made_once
def tissue(n_cells=5):
    """One element of each kind."""
    rng = np.random.default_rng(0)
    circles = gpd.GeoDataFrame({"radius": np.ones(n_cells)}, geometry=points(rng.random((n_cells, 2)) * 8))
    obs = pd.DataFrame({"region": "cells", "instance_id": np.arange(n_cells)}, index=[f"c{i}" for i in range(n_cells)])
    obs["region"] = obs["region"].astype("category")
    adata = AnnData(rng.random((n_cells, 2)), obs=obs)
    return SpatialData(
        images={
            "image": Image2DModel.parse(
                rng.integers(0, 9, (2, 8, 9)).astype(np.uint8), dims=("c", "y", "x"), c_coords=["CD3", "HLA-DR/DP"]
            ),
            "pyramid": Image2DModel.parse(rng.random((1, 16, 16)), dims=("c", "y", "x"), scale_factors=[2]),
        },
        labels={"masks": Labels2DModel.parse(rng.integers(0, 5, (8, 9)), dims=("y", "x"))},
        points={"spots": PointsModel.parse(pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}))},
        shapes={"cells": ShapesModel.parse(circles)},
        tables={"table": TableModel.parse(adata, region="cells", region_key="region", instance_key="instance_id")},
        attrs={"nextmarker_pixel_size": {"image": 0.5}},
    )


@pytest.fixture
def sdata():
    return tissue()


@pytest.fixture
def cells():
    """A table and its circles, for tests of what tables hold."""
    sdata = tissue()
    return SpatialData(shapes={"cells": sdata["cells"]}, tables={"table": sdata["table"]})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "a.zarr"
    nm.io.write(tissue(), path)
    return path


@pytest.fixture
def store(tmp_path, sdata, written):
    """The object in a store of its own."""
    sdata.path = shutil.copytree(written, tmp_path / "a.zarr")
    return sdata.path


def matrices(element):
    """Transformations by coordinate system; spatialdata cannot compare a scale of two axes with one of three."""
    transformations = get_transformation(element, get_all=True)
    return {name: value.to_affine_matrix(("x", "y"), ("x", "y")).tolist() for name, value in transformations.items()}


def assert_equal(one, other):
    """All elements, their values, names and transformations."""
    assert {name for _, name, _ in one.gen_elements()} == {name for _, name, _ in other.gen_elements()}
    for kind, name, element in one.gen_elements():
        read = other[name]
        if kind != "tables":
            assert matrices(element) == matrices(read)
        if kind in ("images", "labels"):
            xr.testing.assert_equal(element, read)
        elif kind == "points":
            pd.testing.assert_frame_equal(element.compute(), read.compute())
        elif kind == "shapes":
            pd.testing.assert_frame_equal(pd.DataFrame(element), pd.DataFrame(read))
        else:
            pd.testing.assert_frame_equal(element.obs, read.obs)
            np.testing.assert_array_equal(element.X, read.X)
            assert list(element.var_names) == list(read.var_names)
            assert set(element.uns) == set(read.uns)
            assert set(element.obsm) == set(read.obsm)


def pixels(store, kind="images", name="image"):
    """Files of an element with their identity on the disk."""
    files = [path for path in (store / kind / name).rglob("*") if path.is_file() and path.name != "zarr.json"]
    return {path: path.stat().st_ino for path in files}


def assert_consolidated(store):
    """The metadata at the root must name exactly the groups and arrays that are there."""
    listed = json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    there = {str(path.parent.relative_to(store)) for path in store.rglob("zarr.json")} - {"."}
    assert set(listed) == there


def test_what_is_written_is_read(sdata, tmp_path):
    store = tmp_path / "a.zarr"
    nm.io.write(sdata, store)
    stored = spatialdata.read_zarr(store)
    assert_equal(sdata, stored)
    assert stored.attrs["nextmarker_pixel_size"] == {"image": 0.5}
    assert stored["image"]["c"].values.tolist() == ["CD3", "HLA-DR/DP"]
    assert sdata.path == store
    assert [path.name for path in store.parent.iterdir()] == ["a.zarr"]
    assert_consolidated(store)


def test_results_of_the_whole_chain_can_be_written(tmp_path):
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=40)
    nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=6, progress=False)
    nm.io.write(sdata, tmp_path / "a.zarr")
    assert_equal(sdata, spatialdata.read_zarr(tmp_path / "a.zarr"))


def test_new_results_of_an_open_store_are_saved_without_copying_pixels(store):
    kinds = {"image": "images", "pyramid": "images", "masks": "labels"}
    before = {name: pixels(store, kind, name) for name, kind in kinds.items()}
    sdata = spatialdata.read_zarr(store)
    sdata["table"].obs["cluster"] = pd.Categorical(list("ababa"))
    sdata["table"].uns["note"] = "new"
    sdata.shapes["more"] = sdata.shapes["cells"].copy()
    del sdata.tables["table"].obsm
    nm.io.write(sdata, store, overwrite=True)

    stored = spatialdata.read_zarr(store)
    assert_equal(sdata, stored)
    assert stored["table"].obs["cluster"].tolist() == list("ababa")
    assert before == {name: pixels(store, kind, name) for name, kind in kinds.items()}
    assert all(before.values())
    assert json.loads((store / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"] == ["masks"]
    assert_consolidated(store)


def test_a_table_can_be_removed_and_renamed_in_an_open_store(store):
    sdata = spatialdata.read_zarr(store)
    sdata.tables["cells_of_a"] = sdata.tables["table"]
    del sdata.tables["table"]
    nm.io.write(sdata, store, overwrite=True)
    assert list(spatialdata.read_zarr(store).tables) == ["cells_of_a"]
    assert_consolidated(store)


def test_pixels_computed_from_the_open_store_replace_it_once(sdata, store):
    opened = spatialdata.read_zarr(store)
    opened.images["image"] = opened.images["image"].copy(data=opened.images["image"].data * 2)
    before = pixels(store, "labels", "masks")
    nm.io.write(opened, store, overwrite=True)
    for read in (opened, spatialdata.read_zarr(store)):  # the object in memory must not double them again
        np.testing.assert_array_equal(read["image"], sdata["image"] * 2)
    assert pixels(store, "labels", "masks") == before


def test_metadata_changed_in_an_open_store_is_saved(sdata, store):
    opened = spatialdata.read_zarr(store)
    set_transformation(opened["masks"], Scale([0.5, 0.5], ("x", "y")), "image")
    set_transformation(opened["pyramid"], Scale([0.5, 0.5], ("x", "y")), "global")
    opened.set_channel_names("image", ["CD4", "CD8"])
    nm.io.write(opened, store, overwrite=True)
    stored = spatialdata.read_zarr(store)
    for name, system in (("masks", "image"), ("pyramid", "global")):
        assert matrices(stored[name])[system] == [[0.5, 0, 0], [0, 0.5, 0], [0, 0, 1]]
    assert stored["image"]["c"].values.tolist() == ["CD4", "CD8"]
    np.testing.assert_array_equal(stored["image"], sdata["image"])


def test_a_store_can_be_replaced_by_another_object(sdata, store):
    small = SpatialData(images={"other": sdata.images["image"]})
    nm.io.write(small, store, overwrite=True)
    assert [name for _, name, _ in spatialdata.read_zarr(store).gen_elements()] == ["other"]


def test_pixels_that_were_not_read_are_not_lost(store):
    part = spatialdata.read_zarr(store, selection=("tables", "shapes"))
    with pytest.raises(ValueError, match=r"images/image.*delete_element_from_disk"):
        nm.io.write(part, store, overwrite=True)
    assert len(spatialdata.read_zarr(store).images) == 2


def test_without_links_pixels_are_copied(store, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(write, "os", SimpleNamespace(**{**vars(os), "link": refuse}))
    sdata = spatialdata.read_zarr(store)
    nm.io.write(sdata, store, overwrite=True)
    assert_equal(sdata, spatialdata.read_zarr(store))


@pytest.mark.parametrize("where", ["missing/a.zarr", "a.zarr/b.zarr", "photos", "a.zarr"])
def test_a_place_that_is_not_free_is_refused(store, where):
    (store.parent / "photos").mkdir()
    (store.parent / "photos" / "holiday.jpg").write_text("precious")
    before = sorted(store.parent.rglob("*"))
    with pytest.raises((FileNotFoundError, FileExistsError, ValueError), match="choose another path"):
        nm.io.write(tissue(), store.parent / where, overwrite=where != "a.zarr")
    assert sorted(store.parent.rglob("*")) == before


@pytest.mark.parametrize(("sdata", "path"), [(AnnData(), "a.zarr"), (None, "a.zarr"), (tissue(), 3)])
def test_other_types_are_refused(sdata, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"Expected SpatialData|of type int"):
        nm.io.write(sdata, path)
    assert not any(tmp_path.iterdir())


# what a store cannot hold; the last part of each message is a call, which must fix it
UNWRITABLE = {
    "list of dicts": ("uns", [{"a": 1}]),
    "tuple": ("uns", ("a", "b")),
    "set": ("uns", {"a"}),
    "Series": ("uns", pd.Series([1, 2])),
    "list of lists of different lengths": ("uns", [[1, 2], [3]]),
    "mixed list": ("uns", ["a", 1]),
    "objects": ("uns", np.array([1, 2], dtype=object)),
    "text with a gap": ("uns", np.array(["a", None], dtype=object)),
    "nested": ("uns", {"inner": {"tuple": (1, 2)}}),
    "table of mixed types": ("uns", pd.DataFrame({"a": [1, "b"]})),
    "function": ("uns", len),
    "mixed column": ("obs", [1, "a", 2, "b", 3]),
    "text with missing values": ("uns", pd.DataFrame({"a": pd.Series(["a", np.nan, "b", None], dtype=object)})),
    "mixed categories": ("obs", pd.Categorical([1, "a", 1, "a", 1])),
    "dates": ("obs", pd.date_range("2020", periods=5)),
    "intervals": ("obs", pd.cut([1, 2, 3, 4, 5], 2)),
    "nullable numbers": ("obs", pd.array([1.5, None, 2, 3, 4], dtype="Float64")),
    "masked array": ("uns", np.ma.masked_array([1.0, 2.0], [True, False])),
    "long numbers": ("uns", np.ones(2, dtype=np.longdouble)),
    "large number": ("uns", 2**70),
    "list of large numbers": ("uns", [2**70]),
    "index": ("uns", pd.Index(["a", "b"])),
    "table by date": ("uns", pd.DataFrame({"a": [1]}, index=pd.date_range("2020", periods=1))),
    "sparse vector": ("uns", sparse.coo_array(np.ones(5))),
    "sparse matrix": ("uns", sparse.coo_array(np.eye(5))),
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_a_value_that_cannot_be_written_is_named_with_a_remedy_that_works(tmp_path, cells, case):
    slot, value = UNWRITABLE[case]
    getattr(cells["table"], slot)["key"] = value
    with pytest.raises(ValueError, match=rf"sdata\['table'\]\.{slot}\['key'\]") as refused:
        nm.io.write(cells, tmp_path / "a.zarr")
    assert not any(tmp_path.iterdir())
    (problem,) = str(refused.value).splitlines()[1:]
    remedy = problem[problem.index(" = ") :].removesuffix(", or remove it")
    place = problem[: problem.index(" = ")].rsplit(" ", 1)[1]
    exec(place + remedy, {"sdata": cells, "pandas": pd, "numpy": np})
    nm.io.write(cells, tmp_path / "a.zarr")


def test_progress_is_shown_if_wanted(tmp_path, sdata, capsys):
    nm.io.write(sdata, tmp_path / "a.zarr", progress=False)
    assert capsys.readouterr().err == ""
    nm.io.write(sdata, tmp_path / "b.zarr")
    number = len(list(sdata.gen_elements()))
    assert re.search(rf"writing: 100%.* {number}/{number} ", capsys.readouterr().err)


KEPT = {
    "text": ["a", "b", "a", "b", "c"],
    "text of pandas": pd.array(list("abcde"), dtype="string"),
    "text of pandas with missing values": pd.array(["a", None, "b", None, "c"], dtype="string"),
    "categories with missing values": pd.Categorical(["a", None, "b", None, "c"]),
    "whole numbers with missing values": pd.array([1, None, 2, None, 3], dtype="Int64"),
    "complex numbers": np.arange(5) * 1j,
}


@pytest.mark.parametrize("case", KEPT)
def test_what_a_store_can_hold_is_read_as_it_was(tmp_path, cells, case):
    cells["table"].obs["key"] = KEPT[case]
    cells["table"].uns["table"] = pd.DataFrame({"key": KEPT[case]})
    nm.io.write(cells, tmp_path / "a.zarr")
    stored = spatialdata.read_zarr(tmp_path / "a.zarr")["table"]
    for column in (stored.obs["key"], stored.uns["table"]["key"]):
        before, after = (
            pd.Series(values, dtype=object).where(pd.notna(values), None) for values in (KEPT[case], column)
        )
        assert after.tolist() == before.tolist()


def test_plain_values_are_read_as_they_were(tmp_path, cells):
    plain = {"text": "a b", "nothing": "", "unit": "µm", "whole": -(2**62), "number": 1.5, "is": True, "none": np.inf}
    cells["table"].uns["plain"] = plain
    nm.io.write(cells, tmp_path / "a.zarr")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].uns["plain"] == plain


@pytest.mark.skipif(pd.__version__ < "2.3", reason="pandas 2.2 has another such type, which was given up")
def test_text_can_be_written_where_pandas_gives_it_a_type_of_its_own(tmp_path):
    with pd.option_context("future.infer_string", True):  # the default from pandas 3 on
        sdata = tissue.__wrapped__()  # made anew
        obs = sdata["table"].obs
        obs["patient"] = pd.Series(["A", "B", "A", "B", None], index=obs.index)
        assert isinstance(obs.index.dtype, pd.StringDtype)
        assert isinstance(obs["patient"].dtype, pd.StringDtype)
        nm.io.write(sdata, tmp_path / "a.zarr")
    stored = spatialdata.read_zarr(tmp_path / "a.zarr")
    nm.io.write(stored, tmp_path / "b.zarr")
    for path in ("a.zarr", "b.zarr"):
        stored = spatialdata.read_zarr(tmp_path / path)["table"]
        assert stored.obs_names.tolist() == ["c0", "c1", "c2", "c3", "c4"]
        assert stored.obs["patient"].tolist()[:4] == ["A", "B", "A", "B"]
        assert stored.obs["patient"].isna().tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("slot", "key"), [("obs", "a b"), ("uns", "a/b"), ("obsm", "[a]"), ("layers", "__a"), ("obs", "_index")]
)
def test_names_that_spatialdata_refuses_are_named(tmp_path, cells, slot, key):
    value = np.ones((5, 2)) if slot in ("obsm", "layers") else "x"
    getattr(cells["table"], slot)[key] = value
    with pytest.raises(ValueError, match=r"; rename it: spatialdata\.sanitize_table") as refused:
        nm.io.write(cells, tmp_path / "a.zarr")
    assert f"sdata['table'].{slot}[{key!r}]: Name " in str(refused.value)
    spatialdata.sanitize_table(cells["table"])
    nm.io.write(cells, tmp_path / "a.zarr")


def test_names_that_differ_in_case_only_are_refused(tmp_path, sdata):
    sdata["table"].obs["Type"] = sdata["table"].obs["type"] = 1
    with pytest.raises(ValueError, match=r"sdata\['table'\]\.obs\['type'\]: .*another case-variant of it exists"):
        nm.io.write(sdata, tmp_path / "a.zarr")


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], [["a"], ["b"]]])
def test_a_list_of_lists_is_read_as_an_array(tmp_path, sdata, rows):
    sdata["table"].uns["rows"] = rows
    nm.io.write(sdata, tmp_path / "a.zarr")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].uns["rows"].tolist() == rows


def test_a_key_inside_a_dict_needs_to_be_text_without_slashes(tmp_path, sdata):
    sdata["table"].uns["record"] = {"a/b": 1, 2: 3}
    with pytest.raises(ValueError, match=r"(?s)the key 'a/b'.*the key 2"):
        nm.io.write(sdata, tmp_path / "a.zarr")


@pytest.mark.parametrize(("attrs", "place"), [({"a": {"b": np.ones(2)}}, r"\['a'\]\['b'\]"), ({"a": {1: 2}}, "key 1")])
def test_attrs_are_what_json_knows(tmp_path, sdata, attrs, place):
    sdata.attrs.update(attrs)
    with pytest.raises(ValueError, match=rf"sdata\.attrs.*{place}"):
        nm.io.write(sdata, tmp_path / "a.zarr")


def test_shapes_with_mixed_columns_are_refused(tmp_path, sdata):
    sdata["cells"]["type"] = [1, "a", 2, "b", 3]
    with pytest.raises(ValueError, match=r"sdata\['cells'\] has columns of mixed types"):
        nm.io.write(sdata, tmp_path / "a.zarr")


def test_a_table_that_does_not_match_its_circles_is_refused(tmp_path, sdata):
    cells = sdata.shapes["cells"]
    del sdata.shapes["cells"]
    with pytest.raises(ValueError, match="has cells of 'cells', which is no element"):
        nm.io.write(sdata, tmp_path / "a.zarr")
    sdata.shapes["cells"] = cells.iloc[1:]
    with pytest.raises(ValueError, match=r"does not match sdata\['cells'\]: 1 of its cells are missing, first 0"):
        nm.io.write(sdata, tmp_path / "a.zarr")
    sdata["table"].uns["spatialdata_attrs"]["region"] = ["cells", "gone"]
    with pytest.raises(ValueError, match="update_annotated_regions_metadata"):
        nm.io.write(sdata, tmp_path / "a.zarr")


def test_a_table_without_some_of_the_cells_can_be_written(tmp_path, sdata):
    adata = sdata["table"][1:3]  # a view
    del sdata.tables["table"]
    sdata.tables["table"] = adata
    nm.io.write(sdata, tmp_path / "a.zarr")
    assert spatialdata.read_zarr(tmp_path / "a.zarr")["table"].n_obs == 2


def broken_image():
    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    block = da.ones((1, 8, 8), chunks=-1, dtype=np.uint8).map_blocks(fail, dtype=np.uint8, meta=np.empty((0, 0, 0)))
    return Image2DModel.parse(block, dims=("c", "y", "x"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk_leaves_what_was_there(tmp_path, sdata, store, overwrite):
    path = store if overwrite else tmp_path / "b.zarr"
    sdata.images["broken"] = broken_image()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    sdata.path = None
    with pytest.raises(OSError, match=r"the disk of .* is full, and nothing was written"):
        nm.io.write(sdata, path, overwrite=overwrite)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    assert sdata.path is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path, sdata, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(PermissionError, match=r"Cannot write to .*Permission denied.*choose another folder"):
        nm.io.write(sdata, tmp_path / "a.zarr")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyError("X"), RuntimeError("in a thread")])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_whoever_noticed_it(tmp_path, sdata, monkeypatch, error, code):
    def fail(*_, **__):
        try:
            raise OSError(code, os.strerror(code))
        except OSError as full:
            raise error from full

    monkeypatch.setattr(gpd.GeoDataFrame, "to_parquet", fail)
    with pytest.raises(OSError, match=rf"{os.strerror(code)}.*disk of .* is full") as told:
        nm.io.write(sdata, tmp_path / "a.zarr")
    assert told.value.errno == code
    assert not any(tmp_path.iterdir())
    monkeypatch.undo()
    nm.io.write(sdata, tmp_path / "a.zarr")  # the object is as it was, transformations of shapes among it
    assert_equal(sdata, spatialdata.read_zarr(tmp_path / "a.zarr"))


def test_threads_that_write_on_after_an_error_do_not_bring_the_draft_back(tmp_path, sdata, monkeypatch):
    chunks = da.from_array(np.ones((1, 16, 16)), chunks=(1, 4, 4))
    sdata.images["chunks"] = Image2DModel.parse(chunks, dims=("c", "y", "x"))
    put = zarr.storage.LocalStore.set
    begun, ended = [], []

    async def fail_at_one(store, key, value):
        if "chunks/s0/c/" in key:
            begun.append(key)
            if len(begun) == 1:
                ended.append(key)
                raise OSError(errno.ENOSPC, "No space left on device")
            await asyncio.sleep(0.2)
            ended.append(key)
        await put(store, key, value)

    monkeypatch.setattr(zarr.storage.LocalStore, "set", fail_at_one)
    with pytest.raises(OSError, match="No space left"):
        nm.io.write(sdata, tmp_path / "a.zarr")
    assert begun
    assert sorted(begun) == sorted(ended)
    assert not any(tmp_path.iterdir())


def test_writing_ends_when_the_threads_of_dask_and_zarr_have_ended():
    ended = []

    async def late():
        await asyncio.sleep(0.2)
        ended.append("zarr")

    def fail():
        dask.config.get("pool").submit(lambda: ended.append("dask"))
        asyncio.run_coroutine_threadsafe(late(), _get_loop())
        raise OSError

    with pytest.raises(OSError), write._threads_ended():  # noqa: PT011 no message is needed here
        fail()
    assert sorted(ended) == ["dask", "zarr"]


@pytest.mark.parametrize(
    "name", [".a.zarr.unfinished", ".a.zarr.abcd1234.unfinished", ".a.zarr.lock", ".nextmarker.abcd1234.unfinished"]
)
@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_others_put_beside_a_store_is_neither_followed_nor_removed(tmp_path, sdata, name, kind):
    victim = tmp_path / "victim" if kind == "link" else tmp_path / name
    for folder in ("replaced", "store", "photos"):
        (victim / folder).mkdir(parents=True)
        (victim / folder / "a.txt").write_text("dear")
    if kind == "link":
        (victim / "nextmarker").touch()
        (tmp_path / name).symlink_to(victim)
    before = sorted(tmp_path.rglob("*"))
    if name.endswith("lock"):
        with pytest.raises(PermissionError, match="choose another"):
            nm.io.write(sdata, tmp_path / "a.zarr")
        assert sorted(tmp_path.rglob("*")) == before
    else:
        nm.io.write(sdata, tmp_path / "a.zarr")
        assert sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "a.zarr")) == before


def test_a_file_in_the_place_of_the_lock_stays(tmp_path, sdata):
    (tmp_path / ".a.zarr.lock").write_text("precious")
    nm.io.write(sdata, tmp_path / "a.zarr")
    assert (tmp_path / ".a.zarr.lock").read_text() == "precious"


def test_the_folder_to_write_into_is_private_and_the_store_is_not(tmp_path, sdata):
    with replace.unfinished(tmp_path / "a.zarr") as one:
        assert one.stat().st_mode & 0o777 == 0o700
    with replace.unfinished(tmp_path / "a.zarr") as other:
        assert one.name != other.name
    nm.io.write(sdata, tmp_path / "a.zarr")
    (tmp_path / "ordinary").mkdir()
    assert (tmp_path / "a.zarr").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_links_to_a_place_are_followed(tmp_path, sdata):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.zarr").symlink_to("disk/a.zarr")  # leads nowhere so far
    for overwrite in (False, True):
        nm.io.write(sdata, tmp_path / "link.zarr", overwrite=overwrite)
        assert (tmp_path / "link.zarr").is_symlink()
        assert_equal(sdata, spatialdata.read_zarr(tmp_path / "disk" / "a.zarr"))
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("leads_to", ["missing/a.zarr", "link.zarr", "file"])
def test_links_that_lead_to_no_good_place_are_refused(tmp_path, sdata, leads_to):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link.zarr").symlink_to(leads_to)
    with pytest.raises((FileExistsError, FileNotFoundError), match="choose another path"):
        nm.io.write(sdata, tmp_path / "link.zarr", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link.zarr"]


def test_a_store_that_cannot_be_replaced_is_told_before_it_is_written(store, sdata, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: path == store)
    with pytest.raises(PermissionError, match="read-only or a mount point"):
        nm.io.write(sdata, store, overwrite=True)


@pytest.mark.parametrize("kind", ["folder", "link", "store"])
def test_what_comes_to_be_at_the_place_while_writing_is_not_replaced(tmp_path, sdata, kind):
    target = tmp_path / "a.zarr"
    with replace.unfinished(target) as folder:
        (folder / "store").mkdir()
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "zarr.json").touch()
        if kind == "link":
            target.symlink_to(tmp_path / "photos")
        else:
            target.mkdir()
            (target / ("zarr.json" if kind == "store" else "a.txt")).touch()
        with pytest.raises(FileExistsError, match="is there by now"):
            replace.put_in_place(folder / "store", target, overwrite=kind != "store")
    assert any(target.iterdir())


def test_two_writers_do_not_meet(tmp_path, sdata):
    with replace.unfinished(tmp_path / "a.zarr"), pytest.raises(BlockingIOError, match="Another process"):
        nm.io.write(sdata, tmp_path / "a.zarr")


def test_where_folders_cannot_be_exchanged_they_are_moved(tmp_path, sdata, store, monkeypatch):
    monkeypatch.setattr(replace, "_exchange", lambda *_: False)
    sdata["table"].obs["new"] = 1
    nm.io.write(sdata, store, overwrite=True)
    assert "new" in spatialdata.read_zarr(store)["table"].obs
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]

    rename = Path.rename

    def interrupted(path, target):
        if path.name == "store":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nm.io.write(SpatialData(), store, overwrite=True)
    assert "new" in spatialdata.read_zarr(store)["table"].obs
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


KILLED_BETWEEN = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("replace", sys.argv[1])  # alone, without the imports of nextmarker.io
replace = importlib.util.module_from_spec(spec)
spec.loader.exec_module(replace)
replace._exchange = lambda *_: False
replace._move = lambda *_: os._exit(9)
store = Path(sys.argv[2])
with replace.unfinished(store) as folder:
    replace.put_in_place(folder / "store", store, overwrite=True)
"""


@pytest.fixture
def moved_aside(store):
    """A store whose writer was killed between the two moves, where folders cannot be exchanged."""
    done = subprocess.run([sys.executable, "-c", KILLED_BETWEEN, replace.__file__, str(store)], check=False)
    assert done.returncode == 9
    assert not store.exists()
    return store


def test_a_store_moved_aside_by_a_killed_write_comes_back(sdata, moved_aside):
    with pytest.raises(ValueError, match=r"is a Zarr store.*spatialdata\.read_zarr"):
        nm.io.read(moved_aside)
    assert_equal(sdata, spatialdata.read_zarr(moved_aside))
    assert [path.name for path in moved_aside.parent.iterdir()] == ["a.zarr"]


def test_a_store_moved_aside_is_not_taken_for_a_free_place(sdata, moved_aside):
    with pytest.raises(FileExistsError, match="exists already"):
        nm.io.write(SpatialData(), moved_aside)
    assert_equal(sdata, spatialdata.read_zarr(moved_aside))
    nm.io.write(SpatialData(), moved_aside, overwrite=True)
    assert not spatialdata.read_zarr(moved_aside).images
    assert [path.name for path in moved_aside.parent.iterdir()] == ["a.zarr"]


def test_a_store_that_another_process_is_moving_is_left_to_it(store):
    with replace.unfinished(store) as folder:
        store.rename(folder / "replaced")
        with pytest.raises(FileNotFoundError):
            nm.io.read(store)
        assert not store.exists()
    assert store.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two folders")
def test_folders_are_exchanged_in_one_step(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert replace._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    assert (tmp_path / "other" / "one").exists()


ESSENTIAL = ["image", "masks", "cells", "table"]
"""One element of each kind that is linked, and of each that is written anew."""

RACE = """
import os, sys, warnings
from pathlib import Path
import spatialdata, nextmarker as nm, nextmarker.io

folder = Path(sys.argv[1])

def write(number, name, overwrite):
    sdata = spatialdata.read_zarr(folder / "a.zarr")
    sdata["table"].obs["writer"] = sdata["cells"]["writer"] = number
    sdata.attrs["writer"] = number
    os.read(start, 1)
    try:
        nm.io.write(sdata, folder / name, overwrite=overwrite)
    except (BlockingIOError, FileExistsError) as error:
        return 3
    return 0

warnings.simplefilter("ignore")
for name, overwrite in [("b.zarr", False), ("a.zarr", True)]:
    start, ready = os.pipe()
    writers = {}
    for number in range(4):
        process = os.fork()
        if process == 0:
            os._exit(write(number, name, overwrite))
        writers[process] = number
    os.write(ready, b"start")
    for process, number in writers.items():
        print(name, number, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the writers are forked processes")
def test_several_writers_at_once_succeed_one_after_another_or_fail_clearly(tmp_path):
    nm.io.write(tissue().subset(ESSENTIAL), tmp_path / "a.zarr")
    done = subprocess.run([sys.executable, "-c", RACE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = [line.split() for line in done.stdout.splitlines()]
    assert {end for _, _, end in ends} <= {"0", "3"}, done.stderr
    for name in ("a.zarr", "b.zarr"):
        stored = spatialdata.read_zarr(tmp_path / name)
        (writer,) = set(stored["table"].obs["writer"]) | set(stored["cells"]["writer"]) | {stored.attrs["writer"]}
        assert [name, str(writer), "0"] in ends
        np.testing.assert_array_equal(stored["image"], tissue()["image"])
    assert sum(name == "b.zarr" and end == "0" for name, _, end in ends) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]


KILLED = """
import os, signal, sys, warnings
from pathlib import Path
import spatialdata, zarr, nextmarker as nm, nextmarker.io

folder = Path(sys.argv[1])
active, exchanged, events = False, False, {"before": 0, "after": 0}
store, count_file = folder / "a.zarr", folder / "count"
EVENTS = ("open", "os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.dlsym")

def kill_at(moment):
    "Count what happens until the old store and the new one are exchanged, and afterwards."
    def count(event, details):
        global exchanged
        if active and event in EVENTS:
            part = "after" if exchanged else "before"
            events[part] += 1
            if (part, events[part]) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            exchanged = exchanged or (event == "ctypes.dlsym" and details[1] == "renameat2")
    sys.addaudithook(count)

def child(moment):
    "Read what the last one left, write the next state, be killed on the way."
    global active
    sdata = spatialdata.read_zarr(store)
    state = int(sdata["table"].uns["state"])
    whole = sdata["image"].values.sum() == 144 and len(sdata["cells"]) == 5 and sdata["masks"].values.max() == 4
    print(state, int(whole), len(list(folder.glob(".a.zarr.*.unfinished"))), flush=True)
    sdata["table"].uns["state"] = state + 1
    kill_at(moment)
    active = True
    nm.io.write(sdata, store, overwrite=True)
    active = False
    count_file.write_text(f"{events['before']} {events['after']}")

def fork(moment):
    process = os.fork()
    if process == 0:
        child(moment)
        os._exit(0)
    print("exit", os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)

warnings.simplefilter("ignore")
fork(None)
before, after = map(int, count_file.read_text().split())
for moment in [before // 10, before // 3, before * 2 // 3, before]:
    fork(("before", moment))
for moment in [1, after // 2, after - 2]:
    fork(("after", moment))
fork(None)
count_file.unlink()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kills are timed in forked processes")
def test_a_kill_at_any_moment_leaves_the_old_store_or_the_new_one(tmp_path):
    sdata = tissue().subset(ESSENTIAL)
    sdata.images["image"].data[:] = 1
    sdata.labels["masks"].data[:] = 4
    sdata["table"].uns["state"] = 0
    nm.io.write(sdata, tmp_path / "a.zarr")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [int(line[1]) for line in lines if line[0] == "exit"] == [0, *[-signal.SIGKILL] * 7, 0]
    found = [tuple(map(int, line)) for line in lines if len(line) == 3]
    assert all(whole for _, whole, _ in found)
    states = np.diff([state for state, _, _ in found])
    assert states.tolist() == [1, 0, 0, 0, 0, 1, 1, 1]  # complete, killed before the new one was in place, and after it
    assert sum(leftover for _, _, leftover in found) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
