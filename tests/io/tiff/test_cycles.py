"""One TIFF per channel: in one folder, in a folder for each cycle, or in a folder for each field of view."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm
from nextmarker import _keys

COUNTS = np.random.default_rng(0).poisson(200, (12, 30, 40)).astype(np.uint16)
FILE = "C-{:03}_S-000_S_FITC_R-01_W-A-1_ROI-01_A-{}_C-REA1.ome.tif"


def write(path, plane, marker=None, **header):
    path.parent.mkdir(parents=True, exist_ok=True)
    channel = {"Channel": {"Name": [marker]}} if marker else {}
    tifffile.imwrite(path, plane, metadata={"axes": "YX", **channel, **header})


def write_cycles(folder, cycles, names="Cycle{:02}", **header):
    """A folder for each cycle, a file for each of its markers."""
    planes = iter(COUNTS)
    for number, markers in enumerate(cycles):
        for marker in markers:
            name = FILE.format(number, marker)
            write(folder / names.format(number) / name, next(planes), marker, PhysicalSizeX=0.17, **header)


def test_channels_of_a_flat_folder_are_named_by_their_headers(tmp_path, recwarn):
    for cycle, marker in enumerate(["DAPI", "CD3", "CD20"]):
        write(tmp_path / "run" / FILE.format(cycle, marker), COUNTS[cycle], marker)
    for reader in (nm.io.read, nm.io.read_folder):
        sdata = reader(tmp_path / "run")
        assert list(sdata.images) == ["run"]
        assert sdata["run"]["c"].values.tolist() == ["DAPI", "CD3", "CD20"]
        np.testing.assert_array_equal(sdata["run"], COUNTS[:3])
        assert sdata.attrs[_keys.CHANNELS]["run"]["original_name"][1].endswith("A-CD3_C-REA1")
    assert not [w for w in recwarn if w.category is UserWarning]


@pytest.mark.parametrize("names", ["Cycle{:02}", "cyc{:03}_reg001", "{:03}_AntigenCycle", "round {}"])
def test_cycles_are_one_image(tmp_path, recwarn, names):
    write_cycles(tmp_path / "run", [["DAPI"], ["CD3"], ["CD20", "CK"]], names)
    (tmp_path / "run" / "empty").mkdir()
    for reader in (nm.io.read, nm.io.read_folder):
        sdata = reader(tmp_path / "run")
        assert list(sdata.images) == ["run"]
        assert sdata["run"]["c"].values.tolist() == ["DAPI", "CD3", "CD20", "CK"]
        np.testing.assert_array_equal(sdata["run"], COUNTS[:4])
        assert sdata.attrs[_keys.PIXEL_SIZE] == {"run": 0.17}
    assert not [w for w in recwarn if w.category is UserWarning]


def test_the_nuclear_channel_of_each_cycle_is_numbered_and_cycles_come_in_their_order(tmp_path):
    write_cycles(tmp_path, [["DAPI", f"CD{n}"] for n in (3, 4, 8)], "cycle {}")
    (tmp_path / "cycle 2").rename(tmp_path / "cycle 10")
    with pytest.warns(UserWarning, match="'DAPI' -> 'DAPI_2', 'DAPI' -> 'DAPI_3'"):
        [image] = nm.io.read(tmp_path).images.values()
    # in a folder, files come by name: the marker before the nuclei
    assert image["c"].values.tolist() == ["CD3", "DAPI", "CD4", "DAPI_2", "CD8", "DAPI_3"]
    np.testing.assert_array_equal(image, COUNTS[[1, 0, 3, 2, 5, 4]])


def test_cycles_of_plain_tiffs_are_named_by_their_files(tmp_path):
    for cycle, marker in enumerate(["DAPI", "CD3", "CD20"]):
        write(tmp_path / f"Cycle{cycle}" / f"{marker}.tif", COUNTS[cycle])
    [image] = nm.io.read(tmp_path).images.values()
    assert image["c"].values.tolist() == ["DAPI", "CD3", "CD20"]


def test_cycles_of_another_shape_are_read_apart_with_a_warning(tmp_path):
    write_cycles(tmp_path, [["DAPI"], ["CD3"]])
    write(tmp_path / "Cycle02" / "CD20.ome.tif", COUNTS[2, :20], "CD20")
    with pytest.warns(UserWarning, match=r"the cycles differ in shape: .*\(20, 40\)\. Align them first"):
        sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == ["Cycle00", "Cycle01", "Cycle02"]
    with pytest.raises(ValueError, match=r"differ in shape: .*\(20, 40\)"):
        nm.io.read_folder(tmp_path)


def test_cycles_that_hold_the_same_channels_are_read_apart_with_a_warning(tmp_path):
    for cycle in range(3):
        for place, dye in enumerate(["DAPI", "FITC"]):
            write(tmp_path / f"Cycle{cycle}" / f"{dye}.tif", COUNTS[place])
    with pytest.warns(UserWarning, match="are called cycles and have the same channels"):
        assert list(nm.io.read(tmp_path).images) == ["Cycle0", "Cycle1", "Cycle2"]


@pytest.mark.parametrize("within", ["", "TIFs"])
@pytest.mark.parametrize("headers", [True, False])
def test_fields_of_view_stay_images_of_their_own(tmp_path, recwarn, within, headers):
    for point in ("Point1", "Point2", "Point10"):
        for place, marker in enumerate(["dsDNA", "CD3", "CD20", "CK"][: 3 if point == "Point2" else 4]):
            write(tmp_path / point / within / f"{point}_{marker}.tif", COUNTS[place], marker if headers else None)
    assert sorted(nm.io.read(tmp_path).images) == ["Point1", "Point10", "Point2"]
    assert not [w for w in recwarn if w.category is UserWarning]
    with pytest.raises(ValueError, match=r"have the same channels.*nm\.io\.read"):
        nm.io.read_folder(tmp_path)


def test_folders_of_other_channels_that_are_not_called_cycles_are_read_apart_with_the_way_out(tmp_path):
    write_cycles(tmp_path / "run", [["DAPI"], ["CD3"], ["CD20"]], "part{}")
    with pytest.warns(
        UserWarning, match=r"channels differ from those of the folders next to it.*nm\.io\.read_folder\('.*run'\)"
    ):
        assert list(nm.io.read(tmp_path / "run").images) == ["part0", "part1", "part2"]
    sdata = nm.io.read_folder(tmp_path / "run")
    assert sdata["run"]["c"].values.tolist() == ["DAPI", "CD3", "CD20"]


@pytest.mark.parametrize("header", [None, "Channel:0:0", "Channel 1", "gray"])
def test_headers_that_name_nothing_leave_the_names_to_the_files(tmp_path, header):
    for place, marker in enumerate(["CD20", "CD3"]):
        write(tmp_path / "run" / f"{marker}.ome.tif", COUNTS[place], header)
    assert nm.io.read(tmp_path / "run")["run"]["c"].values.tolist() == ["CD20", "CD3"]


def test_headers_that_all_repeat_leave_the_names_to_the_files_with_a_warning(tmp_path):
    for place, (file, dye) in enumerate([("CD20", "FITC"), ("CD3", "FITC"), ("CK", "PE"), ("SMA", "PE")]):
        write(tmp_path / "run" / f"{file}.ome.tif", COUNTS[place], dye)
    with pytest.warns(UserWarning, match=r"repeat, \['FITC', 'PE'\]: named by the files.*give each a folder"):
        sdata = nm.io.read(tmp_path / "run")
    assert sdata["run"]["c"].values.tolist() == ["CD20", "CD3", "CK", "SMA"]


def test_labels_of_imagej_slices_do_not_name_channels(tmp_path):
    for place, marker in enumerate(["CD20", "CD3"]):
        tifffile.imwrite(tmp_path / f"{marker}.tif", COUNTS[place], imagej=True, metadata={"Labels": ["c:1/2 - a.tif"]})
    [image] = nm.io.read(tmp_path).images.values()
    assert image["c"].values.tolist() == ["CD20", "CD3"]


def test_channels_of_different_pixel_size(tmp_path):
    for place, size in enumerate([0.5, 0.25]):
        write(tmp_path / "run" / f"{place}.ome.tif", COUNTS[place], "ab"[place], PhysicalSizeX=size, PhysicalSizeY=size)
    with pytest.raises(ValueError, match=r"differ in pixel size: 0\.ome\.tif 0\.5, 1\.ome\.tif 0\.25 micrometres"):
        nm.io.read(tmp_path / "run")
    assert nm.io.read(tmp_path / "run", pixel_size=0.5).attrs[_keys.PIXEL_SIZE] == {"run": 0.5}


def test_a_damaged_channel_of_a_cycle_is_skipped(tmp_path):
    write_cycles(tmp_path, [["DAPI"], ["CD3", "CD8"]])
    (tmp_path / "Cycle01" / FILE.format(1, "CD8")).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"A-CD8.*is empty"):
        [image] = nm.io.read(tmp_path).images.values()
    assert image["c"].values.tolist() == ["DAPI", "CD3"]


def test_whole_images_stay_as_they_are(tmp_path):
    for name in ("a", "b"):
        header = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}}
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", COUNTS[:2], metadata=header, photometric="minisblack")
    write_cycles(tmp_path / "run", [["DAPI"], ["CD3"]])
    assert list(nm.io.read(tmp_path).images) == ["a", "b"]
