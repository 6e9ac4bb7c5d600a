"""Reading image files, against pixels that the tests wrote themselves."""

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from spatialdata.transformations import Identity, Scale, get_transformation

import nextmarker as nm
from nextmarker import _keys

NAMES = ["DNA1", "CD3", "pan CK/7"]


@pytest.fixture
def counts():
    """Three channels, not square, not a multiple of anything."""
    return np.random.default_rng(0).poisson(200, (3, 70, 110)).astype(np.uint16)


def write_ome(path, counts, names=NAMES, **header):
    channel = {} if names is None else {"Channel": {"Name": names}}
    tifffile.imwrite(path, counts, metadata={"axes": "CYX", **channel, **header}, photometric="minisblack")


def write_stack(path, counts, **options):
    tifffile.imwrite(path, counts, photometric="minisblack", **options)


def write_channels(folder, counts, names=NAMES[:2]):
    folder.mkdir()
    for name, channel in zip(names, counts, strict=False):
        tifffile.imwrite(folder / f"{name}.tif", channel)


def test_ome_tiff_keeps_pixels_names_and_data_type(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts)
    sdata = nm.io.read(tmp_path / "core.ome.tif")
    image = sdata["core"]
    assert image.dims == ("c", "y", "x")
    assert image["c"].values.tolist() == NAMES
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, counts)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "rowsperstrip": 16},
        {"compression": "zlib", "tile": (32, 48)},
        {"tile": (32, 48)},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "zlib"},
        {"metadata": None},
        {"imagej": True},
    ],
)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_every_layout_of_the_file_gives_the_same_pixels(tmp_path, counts, options, n_channels):
    write_stack(tmp_path / "stack.tif", counts[:n_channels], **options)
    image = nm.io.read_tiff(tmp_path / "stack.tif", channel_names=NAMES[:n_channels])["stack"]
    assert image.dtype == np.uint16
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, counts[:n_channels])
    np.testing.assert_array_equal(image[0, 5:60, 40:101], counts[0, 5:60, 40:101])


def test_planes_stored_as_samples_are_channels(tmp_path, counts):
    write_stack(tmp_path / "stack.tif", counts, planarconfig="separate")
    np.testing.assert_array_equal(nm.io.read(tmp_path / "stack.tif", channel_names=NAMES)["stack"], counts)


def test_images_are_lazy(tmp_path, counts):
    write_stack(tmp_path / "stack.tif", counts)
    image = nm.io.read(tmp_path / "stack.tif", channel_names=NAMES)["stack"]
    assert isinstance(image.data, da.Array)
    write_stack(tmp_path / "stack.tif", counts + 1)
    np.testing.assert_array_equal(image, counts + 1)


@pytest.mark.parametrize(
    ("options", "block"),
    [
        ({"compression": "zlib", "tile": (240, 304)}, (960, 912)),
        ({"compression": "zlib", "tile": (1120, 1200)}, (1120, 1200)),
        ({"compression": "zlib", "rowsperstrip": 300}, (900, 1300)),
        ({"compression": None}, (1024, 1024)),
    ],
)
def test_a_block_is_one_channel_and_whole_tiles_or_strips(tmp_path, options, block):
    write_stack(tmp_path / "big.tif", np.zeros((2, 1250, 1300), np.uint8), **options)
    image = nm.io.read(tmp_path / "big.tif", channel_names=["a", "b"])["big"]
    assert tuple(sizes[0] for sizes in image.data.chunks) == (1, *block)


def test_only_the_full_resolution_of_a_pyramid_is_read(tmp_path, counts):
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif") as tif:
        tif.write(counts, subifds=1, metadata={"axes": "CYX", "Channel": {"Name": NAMES}}, photometric="minisblack")
        tif.write(counts[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(nm.io.read(tmp_path / "slide.ome.tif")["slide"], counts)


def test_given_names_come_before_those_of_the_header(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts)
    assert nm.io.read(tmp_path / "core.ome.tif", channel_names=["a", "b", "c"])["core"]["c"].values.tolist() == list(
        "abc"
    )


def test_imagej_labels_name_the_channels(tmp_path, counts):
    tifffile.imwrite(tmp_path / "stack.tif", counts, imagej=True, metadata={"axes": "CYX", "Labels": NAMES})
    assert nm.io.read(tmp_path / "stack.tif")["stack"]["c"].values.tolist() == NAMES


def test_names_can_be_written_and_are_unique(tmp_path, counts):
    files = ["a/core [1].tif", "b/core [1].tif", "b/CORE_1.tif", "b/cells.tif", "b/()[].tif"]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        write_stack(tmp_path / file, counts)
    sdata = nm.io.read([tmp_path / file for file in files], channel_names=NAMES)
    assert list(sdata.images) == ["core__1", "core__1_2", "CORE_1", "cells_2", "image"]
    sdata.write(tmp_path / "all.zarr")


def test_each_image_has_a_coordinate_system_in_micrometres_where_known(tmp_path, counts):
    write_ome(tmp_path / "known.ome.tif", counts, PhysicalSizeX=0.39, PhysicalSizeY=0.391)
    write_ome(tmp_path / "unknown.ome.tif", counts)
    sdata = nm.io.read([tmp_path / "known.ome.tif", tmp_path / "unknown.ome.tif"])
    in_micrometres = Scale([0.39, 0.39], axes=("x", "y"))
    assert get_transformation(sdata["known"], get_all=True) == {"known": in_micrometres, "micrometre": in_micrometres}
    assert get_transformation(sdata["unknown"], get_all=True) == {"unknown": Identity()}
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"known": 0.39}


@pytest.mark.parametrize(("size", "unit", "micrometres"), [(500, "nm", 0.5), (0.001, "mm", 1.0), (2, "pixel", None)])
def test_units_of_the_header(tmp_path, counts, size, unit, micrometres):
    header = {"PhysicalSizeX": size, "PhysicalSizeY": size, "PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    write_ome(tmp_path / "core.ome.tif", counts, **header)
    assert nm.io.read(tmp_path / "core.ome.tif").attrs[_keys.PIXEL_SIZE].get("core") == pytest.approx(micrometres)


def test_given_pixel_size_comes_before_that_of_the_header(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts, PhysicalSizeX=0.5, PhysicalSizeY=1.5)
    write_channels(tmp_path / "Point1", counts)
    sdata = nm.io.read([tmp_path / "core.ome.tif", tmp_path / "Point1"], pixel_size=2)
    assert sdata.attrs[_keys.PIXEL_SIZE] == {"core": 2.0, "Point1": 2.0}
    assert get_transformation(sdata["Point1"], "Point1") == Scale([2, 2], axes=("x", "y"))


def test_survives_writing_and_reading_back(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts, PhysicalSizeX=0.5, PhysicalSizeY=0.5)
    sdata = nm.io.read(tmp_path / "core.ome.tif")
    sdata.write(tmp_path / "core.zarr")
    back = sd.read_zarr(tmp_path / "core.zarr")
    assert back["core"]["c"].values.tolist() == NAMES
    assert back["core"].dtype == np.uint16
    np.testing.assert_array_equal(back["core"], counts)
    transformations = get_transformation(back["core"], get_all=True)
    assert sorted(transformations) == ["core", "micrometre"]
    for transformation in transformations.values():
        np.testing.assert_array_equal(transformation.to_affine_matrix(("x", "y"), ("x", "y")), np.diag([0.5, 0.5, 1]))
    assert back.attrs[_keys.PIXEL_SIZE] == {"core": 0.5}


# errors


def test_no_such_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file or folder 'core\.tif' in .*; there is nothing"):
        nm.io.read([tmp_path, tmp_path / "core.tif"])
    with pytest.raises(FileNotFoundError, match=r"No such file: .*core\.tif"):
        nm.io.read_tiff(tmp_path / "core.tif")
    with pytest.raises(FileNotFoundError, match="No such folder: .*Point1"):
        nm.io.read_folder(tmp_path / "Point1")


def test_no_paths_and_paths_given_twice(tmp_path, counts):
    with pytest.raises(ValueError, match="paths is empty"):
        nm.io.read([])
    write_ome(tmp_path / "core.ome.tif", counts)
    (tmp_path / "within").mkdir()
    for other in ("core.ome.tif", "within/../core.ome.tif", "."):
        with pytest.raises(ValueError, match=r"Given twice: \['.*core\.ome\.tif'\]"):
            nm.io.read([tmp_path / "core.ome.tif", tmp_path / other])


def test_two_images_of_one_name_in_a_file_are_not_given_twice(tmp_path, counts):
    with tifffile.TiffWriter(tmp_path / "two.ome.tif") as tif:
        for _ in range(2):
            tif.write(counts, metadata={"axes": "CYX", "Name": "core", "Channel": {"Name": NAMES}})
    assert list(nm.io.read([tmp_path / "two.ome.tif"]).images) == ["core", "core_2"]


@pytest.mark.parametrize("paths", [None, 3, [None], {"a": 1}.values()])
def test_what_is_no_path_is_refused(paths):
    with pytest.raises(TypeError, match="must be a path or a list of paths"):
        nm.io.read(paths)


def test_a_store_is_not_read_as_images(tmp_path):
    nm.io.write(nm.datasets.synthetic_tissue(n_images=1, n_cells=20), tmp_path / "tissue.zarr")
    with pytest.raises(ValueError, match=r"is a Zarr store.*spatialdata\.read_zarr"):
        nm.io.read(tmp_path / "tissue.zarr")


@pytest.mark.parametrize("content", [b"II", b"II*\0", b"not a picture at all", b"\xff\xd8\xff\xe0 a JPEG named tif"])
def test_not_a_tiff(tmp_path, content):
    (tmp_path / "core.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"core\.tif is another kind of file"):
        nm.io.read(tmp_path / "core.tif")


def test_an_empty_file(tmp_path):
    (tmp_path / "core.tif").touch()
    with pytest.raises(ValueError, match=r"core\.tif is empty"):
        nm.io.read(tmp_path / "core.tif")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_a_file_that_is_cut_short(tmp_path, counts, options):
    path = tmp_path / "core.tif"
    write_stack(path, counts, **options)
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 8)])
    with pytest.raises(ValueError, match="not complete"):
        nm.io.read(path, channel_names=NAMES)


def test_number_of_channel_names(tmp_path, counts):
    write_stack(tmp_path / "stack.tif", counts)
    with pytest.raises(ValueError, match=r"has 3 channels.*Name all 3: channel_names="):
        nm.io.read(tmp_path / "stack.tif")
    with pytest.raises(ValueError, match=r"has 3 channels, but channel_names has 2"):
        nm.io.read(tmp_path / "stack.tif", channel_names=["a", "b"])
    write_ome(tmp_path / "stack.ome.tif", counts, names=None)
    with pytest.raises(ValueError, match=r"has 3 channels without names"):
        nm.io.read(tmp_path / "stack.ome.tif")


def test_channel_names_must_tell_the_channels_apart(tmp_path, counts):
    write_stack(tmp_path / "stack.tif", counts)
    with pytest.raises(ValueError, match=r"repeated channel names: \['a'\]"):
        nm.io.read(tmp_path / "stack.tif", channel_names=["a", "b", "a"])
    with pytest.raises(ValueError, match="empty channel names"):
        nm.io.read(tmp_path / "stack.tif", channel_names=["a", "b", " "])


def test_arguments_of_another_kind(tmp_path, counts):
    write_stack(tmp_path / "stack.tif", counts)
    for names in ("abc", [1, 2, 3], 3, set(NAMES), (name for name in NAMES)):
        with pytest.raises(TypeError, match="channel_names=.* must be a list of strings"):
            nm.io.read(tmp_path / "stack.tif", channel_names=names)
    with pytest.raises(TypeError, match="must be a number"):
        nm.io.read(tmp_path / "stack.tif", channel_names=NAMES, pixel_size="1 um")
    for size in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            nm.io.read(tmp_path / "stack.tif", channel_names=NAMES, pixel_size=size)


@pytest.mark.parametrize(("axes", "found"), [("ZYX", "3 z-planes"), ("TYX", "3 time points")])
def test_depth_and_time(tmp_path, counts, axes, found):
    tifffile.imwrite(tmp_path / "core.ome.tif", counts, metadata={"axes": axes}, photometric="minisblack")
    with pytest.raises(ValueError, match=f"{found}.*channel_names="):
        nm.io.read(tmp_path / "core.ome.tif")
    image = nm.io.read(tmp_path / "core.ome.tif", channel_names=NAMES)["core"]
    np.testing.assert_array_equal(image, counts)


def test_pixels_that_are_not_square(tmp_path, counts):
    write_ome(tmp_path / "core.ome.tif", counts, PhysicalSizeX=0.5, PhysicalSizeY=0.6)
    with pytest.raises(ValueError, match=r"0\.5 by 0\.6 micrometres"):
        nm.io.read(Path(tmp_path) / "core.ome.tif")
