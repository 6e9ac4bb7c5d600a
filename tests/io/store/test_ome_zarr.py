"""OME-Zarr in its formats, written by the tests; and what is not an image in it."""

import json
import shutil

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import zarr

import nextmarker as nm
from nextmarker import _keys

COUNTS = np.random.default_rng(0).poisson(5, (3, 70, 110)).astype(np.uint16)
NAMES = ["DNA1", "CD3", "CK"]
AXES = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space", "unit": "micrometer"} for name in "yx")]


def multiscale(axes=AXES, scale=(1, 0.5, 0.5), **more):
    steps = [{"type": "scale", "scale": list(scale)}]
    levels = [{"path": str(level), "coordinateTransformations": steps} for level in range(2)]
    return {"axes": axes, "datasets": levels, **more}


def write(path, pixels=COUNTS, version=2, names=NAMES, chunks=None, scales=None, **attributes):
    """An image of two resolutions in the format 0.4 (Zarr 2) or 0.5 (Zarr 3)."""
    group = zarr.open_group(path, mode="w", zarr_format=version)
    chunks = chunks or (1,) * (pixels.ndim - 2) + (32, 48)
    for level, data in enumerate([pixels, pixels[..., ::2, ::2]]):
        array = group.create_array(str(level), shape=data.shape, chunks=chunks, dtype=data.dtype)
        array[...] = data
    known = {"multiscales": [scales or multiscale()], **attributes}
    if names:
        known["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update(known if version == 2 else {"ome": {"version": "0.5", **known}})
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_an_image_is_read_lazily_with_names_and_pixel_size(tmp_path, recwarn, version):
    path = write(tmp_path / "core.ome.zarr", version=version)
    sdata = nm.io.read(path)
    assert list(sdata.images) == ["core"]
    image = sdata["core"]
    assert isinstance(image.data, da.Array)
    assert image.dtype == np.uint16
    assert image["c"].values.tolist() == NAMES
    np.testing.assert_array_equal(image, COUNTS)
    np.testing.assert_array_equal(image[1, 5:60:3, 101:40:-2], COUNTS[1, 5:60:3, 101:40:-2])
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"core": 0.5}
    assert nm.io.report(sdata).loc[str(path), "note"] == ""
    assert not [w for w in recwarn if w.category is UserWarning]


def test_what_was_read_survives_writing(tmp_path):
    sdata = nm.io.read(write(tmp_path / "core.ome.zarr"))
    sdata.write(tmp_path / "saved.zarr")
    np.testing.assert_array_equal(sd.read_zarr(tmp_path / "saved.zarr")["core"], COUNTS)


def test_blocks_are_whole_chunks(tmp_path):
    path = write(tmp_path / "a.zarr", np.zeros((2, 1100, 1300), np.uint8), names=["a", "b"], chunks=(1, 300, 400))
    assert nm.io.read(path)["a"].data.chunks == ((1, 1), (900, 200), (800, 500))


def test_names_are_needed_if_there_are_none(tmp_path):
    path = write(tmp_path / "a.ome.zarr", names=None)
    with pytest.raises(ValueError, match=r"a\.ome\.zarr has 3 channels without names.*channel_names="):
        nm.io.read(path)
    assert nm.io.read(path, channel_names=["x", "y", "z"])["a"]["c"].values.tolist() == ["x", "y", "z"]
    with pytest.raises(ValueError, match="has 3 channels, but channel_names has 2"):
        nm.io.read(path, channel_names=["x", "y"])


def test_axes_of_length_one_are_dropped_and_others_refused(tmp_path):
    axes = [{"name": "t", "type": "time"}, AXES[0], {"name": "z", "type": "space"}, *AXES[1:]]
    scales = multiscale(axes, (1, 1, 1, 0.5, 0.5))
    write(tmp_path / "flat.zarr", COUNTS[None, :, None], scales=scales)
    np.testing.assert_array_equal(nm.io.read(tmp_path / "flat.zarr")["flat"], COUNTS)
    write(tmp_path / "deep.zarr", np.stack([COUNTS] * 2, 1)[None], scales=scales)
    with pytest.raises(ValueError, match=r"deep\.zarr has 2 z-planes, .*a projection"):
        nm.io.read(tmp_path / "deep.zarr")


def test_axes_in_another_order_and_an_image_without_channels(tmp_path):
    write(tmp_path / "a.zarr", np.moveaxis(COUNTS, 0, -1), scales=multiscale([*AXES[1:], AXES[0]], (0.5, 0.5, 1)))
    np.testing.assert_array_equal(nm.io.read(tmp_path / "a.zarr")["a"], COUNTS)
    write(tmp_path / "b.zarr", COUNTS[0], names=["DNA"], scales=multiscale(AXES[1:], (0.5, 0.5)))
    np.testing.assert_array_equal(nm.io.read(tmp_path / "b.zarr")["b"], COUNTS[:1])


def test_images_of_older_formats(tmp_path):
    levels = [{"path": "0"}, {"path": "1"}]
    write(tmp_path / "named.zarr", scales={"axes": ["c", "y", "x"], "datasets": levels, "version": "0.3"})
    write(tmp_path / "not.zarr", COUNTS[None, :, None], scales={"datasets": levels, "version": "0.1"})
    for name in ("named", "not"):
        sdata = nm.io.read(tmp_path / f"{name}.zarr")
        np.testing.assert_array_equal(sdata[name], COUNTS)
        assert sdata.attrs[_keys.PIXEL_SIZE] == {}


def units(y, x):
    return [AXES[0], {"name": "y", "unit": y}, {"name": "x", "unit": x}]


@pytest.mark.parametrize(
    ("scales", "expected", "note"),
    [
        (multiscale(units("nanometer", "nanometer"), (1, 500, 500)), 0.5, ""),
        (multiscale(units(None, "nanometer"), (1, 500, 500)), 0.5, "unit of one axis only"),
        (multiscale(units(None, None)), None, "it has no unit"),
        (multiscale(units("unit", "unit")), None, "is not used"),
        (multiscale(units(None, None), (1, 1, 1)), None, ""),
        (multiscale(scale=(1, 0.25, 0.25), coordinateTransformations=[{"type": "scale", "scale": [1, 2, 2]}]), 0.5, ""),
    ],
)
def test_pixel_size(tmp_path, scales, expected, note):
    path = write(tmp_path / "a.zarr", scales=scales)
    sdata = nm.io.read(path)
    assert sdata.attrs[_keys.PIXEL_SIZE].get("a") == (None if expected is None else pytest.approx(expected))
    found = nm.io.report(sdata)["note"].iloc[0]
    assert note in found
    assert bool(note) == bool(found)
    assert nm.io.read(path, pixel_size=2).attrs[_keys.PIXEL_SIZE] == {"a": 2.0}


@pytest.mark.parametrize(
    ("scale", "message"), [((1, 1e-6, 1e-6), "states a pixel size of 1e-06"), ((1, 1, 2), "not square")]
)
def test_a_pixel_size_that_is_wrong(tmp_path, scale, message):
    with pytest.raises(ValueError, match=message):
        nm.io.read(write(tmp_path / "a.zarr", scales=multiscale(scale=scale)))


def test_in_a_folder_each_is_an_image_and_spatialdata_stores_are_left_out(tmp_path, recwarn):
    write(tmp_path / "a.ome.zarr")
    write(tmp_path / "b.ome.zarr", version=3)
    nm.datasets.synthetic_tissue(n_images=1, n_cells=20).write(tmp_path / "result.zarr")
    sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == ["a", "b"]
    assert "spatialdata.read_zarr" in nm.io.report(sdata).loc[str(tmp_path / "result.zarr"), "note"]
    assert not [w for w in recwarn if w.category is UserWarning and "nm.io.report" in str(w.message)]


def test_masks_beside_the_image_are_reported(tmp_path):
    path = write(tmp_path / "a.zarr")
    labels = zarr.open_group(path / "labels", mode="w", zarr_format=2)
    labels.attrs["labels"] = ["cells"]
    write(path / "labels" / "cells", COUNTS[0], names=None, scales=multiscale(AXES[1:], (1, 1)), **{"image-label": {}})
    assert "masks" in nm.io.report(nm.io.read(path)).loc[str(path / "labels"), "note"]
    with pytest.raises(ValueError, match=r"labels/cells is masks, not an image"):
        nm.io.read(path / "labels" / "cells")
    with pytest.raises(ValueError, match=r"labels is a group of masks, not an image"):
        nm.io.read(path / "labels")


# what is not an image


def test_spatialdata_stores_keep_their_message_and_their_images_can_be_named(tmp_path):
    tissue = nm.datasets.synthetic_tissue(n_images=1, n_cells=20)
    tissue.write(tmp_path / "s.zarr")
    for path in (tmp_path / "s.zarr", tmp_path / "s.zarr" / "images"):
        with pytest.raises(ValueError, match=r"spatialdata\.read_zarr|Name the images in it: .*images/tissue_1"):
            nm.io.read(path)
    sdata = nm.io.read(tmp_path / "s.zarr" / "images" / "tissue_1")
    np.testing.assert_array_equal(sdata["s_images_tissue_1"], tissue["tissue_1"])


@pytest.mark.parametrize("version", [2, 3])
def test_plates_and_collections_say_which_images_to_name(tmp_path, version):
    plate = tmp_path / "plate.zarr"
    attributes = {plate: {"plate": {"wells": []}}, plate / "A": {}, plate / "A" / "1": {"well": {"images": []}}}
    for path, known in attributes.items():
        group = zarr.open_group(path, mode="w", zarr_format=version)
        group.attrs.update(known if version == 2 else {"ome": known})
    write(plate / "A" / "1" / "0", version=version)
    with pytest.raises(
        ValueError, match=r"plate\.zarr is a plate .* Name the images in it: nm\.io\.read\(\['.*A/1/0'\]\)"
    ):
        nm.io.read(plate)
    with pytest.raises(ValueError, match=r"1 is a well with several fields of view"):
        nm.io.read(plate / "A" / "1")
    assert list(nm.io.read(plate / "A" / "1" / "0").images) == ["plate_A_1_0"]


def test_a_collection_of_one_image_is_that_image(tmp_path):
    path = tmp_path / "slide.zarr"
    zarr.open_group(path, mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    zarr.open_group(path / "OME", mode="w", zarr_format=2)
    write(path / "0")
    sdata = nm.io.read(path)
    np.testing.assert_array_equal(sdata["slide"], COUNTS)
    write(path / "1")
    with pytest.raises(
        ValueError, match=r"slide\.zarr is a collection of several images\. .*slide\.zarr/0.*slide\.zarr/1"
    ):
        nm.io.read(path)
    assert list(nm.io.read([path / "0", path / "1"]).images) == ["slide_0", "slide_1"]


@pytest.mark.parametrize("version", [2, 3])
def test_arrays_and_other_stores(tmp_path, version):
    path = write(tmp_path / "a.zarr", version=version)
    with pytest.raises(ValueError, match=r"a\.zarr/0 is one resolution of an image: read "):
        nm.io.read(path / "0")
    zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=version).attrs["encoding-type"] = "anndata"
    with pytest.raises(ValueError, match=r"b\.zarr is a Zarr store, but not an OME-Zarr image"):
        nm.io.read(tmp_path / "b.zarr")
    (tmp_path / "c.ome.zarr").mkdir()
    with pytest.raises(ValueError, match=r"c\.ome\.zarr is not complete"):
        nm.io.read(tmp_path / "c.ome.zarr")


def test_complex_numbers_and_chunks_that_no_memory_holds(tmp_path):
    with pytest.raises(ValueError, match="type complex64: not an image"):
        nm.io.read(write(tmp_path / "a.zarr", COUNTS.astype(np.complex64)))
    path = write(tmp_path / "b.zarr")
    header = json.loads((path / "0" / ".zarray").read_text())
    (path / "0" / ".zarray").write_text(
        json.dumps(header | {"shape": [3, 40_000, 40_000], "chunks": [1, 40_000, 40_000]})
    )
    with pytest.raises(ValueError, match="chunks of 3,052 MiB"):
        nm.io.read(path)
    (path / "0" / ".zarray").write_text(json.dumps(header | {"shape": [3, 10**9, 10**9]}))
    with pytest.raises(ValueError, match="claims to have 3 x 1000000000 x 1000000000 pixels"):
        nm.io.read(path)


# damage


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"multiscales": 3}'])
def test_metadata_that_makes_no_sense(tmp_path, version, content):
    path = write(tmp_path / "a.zarr", version=version)
    (path / (".zattrs" if version == 2 else "zarr.json")).write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zarr (is damaged|is not complete|is a Zarr store, but not)"):
        nm.io.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"datasets": []},
        {"datasets": [{"path": "7"}]},
        {"datasets": [{"path": "../b.zarr/0"}]},
        {"datasets": 3},
        {"axes": ["c", "y"]},
        {"axes": ["c", "y", "q"]},
        {"axes": [{}, {}, {}]},
        {"datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, "a", 1]}]}]},
    ],
)
def test_descriptions_that_contradict_the_pixels(tmp_path, change):
    path = write(tmp_path / "a.zarr", scales=multiscale() | change)
    write(tmp_path / "b.zarr")
    with pytest.raises(ValueError, match=r"a\.zarr"):
        nm.io.read(path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_chunk_is_an_error_when_it_is_needed(tmp_path, version):
    path = write(tmp_path / "a.zarr", version=version)
    image = nm.io.read(path)["a"]
    chunk = path / "0" / ("1.0.0" if version == 2 else "c/1/0/0")
    if not chunk.exists():
        chunk = path / "0" / "1" / "0" / "0"
    chunk.write_bytes(b"damaged")
    np.testing.assert_array_equal(image[0], COUNTS[0])
    with pytest.raises(ValueError, match=r"a\.zarr/0 cannot be read at \[1:2, 0:70, 0:110\]"):
        image[1].compute()


def test_a_store_that_is_moved_or_changed_while_it_is_open(tmp_path):
    path = write(tmp_path / "a.zarr")
    image = nm.io.read(path)["a"]
    path.rename(tmp_path / "b.zarr")
    with pytest.raises(ValueError, match=r"a\.zarr/0 cannot be read"):
        image.compute()
    write(path, COUNTS[:, :50])
    with pytest.raises(ValueError, match="has changed since"):
        image.compute()


def test_chunks_without_a_file_are_reported(tmp_path):
    path = write(tmp_path / "a.zarr", chunks=(1, 70, 110))
    files = [file for file in (path / "0").rglob("*") if file.is_file() and not file.name.startswith(".")]
    assert len(files) == 3
    files[0].unlink()
    sdata = nm.io.read(path)
    assert nm.io.report(sdata)["note"].iloc[0] == "1 of its 3 chunks have no file: their pixels are 0"


def test_a_damaged_one_in_a_folder_is_skipped(tmp_path):
    write(tmp_path / "a.ome.zarr")
    write(tmp_path / "b.ome.zarr")
    shutil.rmtree(tmp_path / "b.ome.zarr" / "0")
    with pytest.warns(UserWarning, match=r"b\.ome\.zarr: skipped"):
        assert list(nm.io.read(tmp_path).images) == ["a"]
