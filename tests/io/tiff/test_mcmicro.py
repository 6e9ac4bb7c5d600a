"""Folders of MCMICRO, imitated after its documentation."""

import numpy as np
import pytest
import tifffile
from spatialdata.transformations import Scale, get_transformation

import nextmarker as nm

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(3, (3, 64, 96)).astype(np.uint16)


def write_mcmicro(folder, markers=("DNA_1", "CD3", "DNA_1"), masks="unmicst-slide7/cell.ome.tif", mask=None):
    (folder / "registration").mkdir(parents=True)
    (folder / "markers.csv").write_text(
        "\ufeffcycle,marker_name\n" + "".join(f"1,{name}\n" for name in markers), "utf-8"
    )
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}
    tifffile.imwrite(folder / "registration" / "slide7.ome.tif", COUNTS, metadata=metadata, photometric="minisblack")
    if masks:
        (folder / "segmentation" / masks).parent.mkdir(parents=True)
        tifffile.imwrite(folder / "segmentation" / masks, COUNTS[0].astype(np.int32) if mask is None else mask)


def test_mcmicro_names_channels_after_the_markers_and_brings_masks(tmp_path):
    write_mcmicro(tmp_path / "run")
    with pytest.warns(UserWarning, match="'DNA_1' -> 'DNA_1_2'"):
        assert list(nm.io.read_mcmicro(tmp_path / "run").images) == ["slide7"]
    with pytest.warns(UserWarning, match="'DNA_1' -> 'DNA_1_2'"):
        sdata = nm.io.read(tmp_path / "run")
    assert list(sdata.images) == ["slide7"]
    assert sdata["slide7"]["c"].values.tolist() == ["DNA_1", "CD3", "DNA_1_2"]
    np.testing.assert_array_equal(sdata["slide7"], COUNTS)
    np.testing.assert_array_equal(sdata.labels["masks_slide7"], COUNTS[0])
    assert get_transformation(sdata.labels["masks_slide7"], "slide7") == Scale([0.65, 0.65], axes=("x", "y"))
    nm.pp.add_cells(sdata, "masks_slide7")
    assert len(sdata["table"]) == len(np.unique(COUNTS[0])) - 1


def test_mcmicro_cores_come_before_the_whole_slide(tmp_path):
    write_mcmicro(tmp_path, markers="abc", masks="unmicst-2/nuclei.ome.tif")
    (tmp_path / "dearray").mkdir()
    for core in "12":
        tifffile.imwrite(tmp_path / "dearray" / f"{core}.ome.tif", COUNTS, photometric="minisblack")
    sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == ["1", "2"]
    assert list(sdata.labels) == ["masks_2"]


CLEAN = np.maximum(COUNTS.astype(int) - 2, 0).astype(np.uint16)


def write_subtracted(folder, slides=("slide7",), name="{}_backsub", remove="TRUE"):
    """The raw image, and the one without its last channel from which the background was subtracted."""
    write_mcmicro(folder, masks=None)
    header = "channel_number,marker_name,background,remove\n"
    (folder / "markers.csv").write_text(f"{header}1,DNA,,\n2,CD3,AF,\n3,AF,,{remove}\n")
    (folder / "background").mkdir()
    for slide in slides:
        file = folder / "background" / f"{name.format(slide)}.ome.tif"
        tifffile.imwrite(file, CLEAN[:2], metadata={"axes": "CYX"}, photometric="minisblack")


@pytest.mark.parametrize("name", ["{}_backsub", "{}"])
@pytest.mark.parametrize("table", ["markers_bs.csv", "background/markers_bs.csv", None])
def test_mcmicro_image_with_the_background_subtracted_comes_before_the_raw_one(tmp_path, recwarn, name, table):
    write_subtracted(tmp_path, name=name)
    if table:
        (tmp_path / table).write_text("channel_number,marker_name\n1,DNA\n2,CD3\n")
    sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == [name.format("slide7")]
    [image] = sdata.images.values()
    assert image["c"].values.tolist() == ["DNA", "CD3"]
    np.testing.assert_array_equal(image, CLEAN[:2])
    note = nm.io.report(sdata).loc[str(tmp_path / "registration" / "slide7.ome.tif"), "note"]
    assert note == f"raw: {name.format('slide7')} was read instead, with the background subtracted"
    assert not [w for w in recwarn if w.category is UserWarning]


@pytest.mark.parametrize("remove", ["TRUE", "True", "true", "1"])
def test_mcmicro_leaves_out_channels_that_are_to_be_removed_from_raw_images_too(tmp_path, remove):
    write_subtracted(tmp_path, slides=(), remove=remove)
    sdata = nm.io.read(tmp_path)
    assert sdata["slide7"]["c"].values.tolist() == ["DNA", "CD3"]
    np.testing.assert_array_equal(sdata["slide7"], COUNTS[:2])
    assert "markers.csv removes: AF" in nm.io.report(sdata)["note"].iloc[0]


@pytest.mark.parametrize("remove", ["", "FALSE"])
def test_mcmicro_keeps_channels_that_are_not_to_be_removed(tmp_path, remove):
    write_subtracted(tmp_path, slides=(), remove=remove)
    assert nm.io.read(tmp_path)["slide7"]["c"].values.tolist() == ["DNA", "CD3", "AF"]


def test_mcmicro_raw_image_beside_one_with_the_background_subtracted(tmp_path):
    write_subtracted(tmp_path)
    metadata = {"axes": "CYX"}
    tifffile.imwrite(tmp_path / "registration" / "b.ome.tif", COUNTS, metadata=metadata, photometric="minisblack")
    with pytest.warns(UserWarning, match=r"b\.ome\.tif: background was subtracted only from other"):
        sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == ["slide7_backsub", "b"]
    assert sdata["b"]["c"].values.tolist() == ["DNA", "CD3"]


def test_mcmicro_masks_of_the_image_with_the_background_subtracted(tmp_path):
    write_subtracted(tmp_path)
    masks = tmp_path / "segmentation" / "unmicst-slide7" / "cell.ome.tif"
    masks.parent.mkdir(parents=True)
    tifffile.imwrite(masks, COUNTS[0].astype(np.int32))
    assert list(nm.io.read(tmp_path).labels) == ["masks_slide7_backsub"]


def test_mcmicro_table_that_does_not_fit_after_background_subtraction(tmp_path):
    write_subtracted(tmp_path, remove="")
    with pytest.raises(
        ValueError, match=r"slide7_backsub\.ome\.tif has 2 channels, and .*names 3, of which .* keeps 3"
    ):
        nm.io.read(tmp_path)
    write_subtracted(tmp_path / "b", remove="perhaps")
    with pytest.raises(ValueError, match="'perhaps' in the column 'remove'. Write TRUE"):
        nm.io.read(tmp_path / "b")


def test_mcmicro_cores_of_an_image_with_the_background_subtracted(tmp_path):
    write_subtracted(tmp_path)
    (tmp_path / "dearray").mkdir()
    tifffile.imwrite(tmp_path / "dearray" / "1.ome.tif", CLEAN[:2], photometric="minisblack")
    tifffile.imwrite(tmp_path / "dearray" / "2.ome.tif", COUNTS, photometric="minisblack")
    sdata = nm.io.read(tmp_path)
    assert {name: image["c"].values.tolist() for name, image in sdata.images.items()} == {
        "1": ["DNA", "CD3"],
        "2": ["DNA", "CD3"],
    }


@pytest.mark.parametrize("separator", [";", "\t"])
def test_mcmicro_markers_separated_otherwise(tmp_path, separator):
    write_mcmicro(tmp_path, masks=None)
    rows = [["cycle", "marker_name"], ["1", "DNA"], ["1", "CD3"], ["1", "CK"]]
    (tmp_path / "markers.csv").write_text("\n".join(map(separator.join, rows)))
    assert nm.io.read(tmp_path)["slide7"]["c"].values.tolist() == ["DNA", "CD3", "CK"]


def test_mcmicro_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is not an output folder of MCMICRO.*markers\.csv"):
        nm.io.read_mcmicro(tmp_path)
    write_mcmicro(tmp_path / "a", markers=["DNA", "CD3"])
    with pytest.raises(ValueError, match=r"has 3 channels, and .*markers\.csv names 2"):
        nm.io.read(tmp_path / "a")
    write_mcmicro(tmp_path / "b", markers="abc", mask=np.ones((9, 9), np.int32))
    with pytest.warns(UserWarning, match="masks left out: .*9 x 9 pixels"):
        assert not nm.io.read(tmp_path / "b").labels
    (tmp_path / "b" / "markers.csv").write_text("name\nDNA\n")
    with pytest.raises(ValueError, match=r"no column 'marker_name'; it has \['name'\]"):
        nm.io.read(tmp_path / "b")
    (tmp_path / "b" / "markers.csv").write_bytes(b"marker_name\n\xff\xfe\n")
    with pytest.raises(ValueError, match="Save it as CSV in UTF-8"):
        nm.io.read(tmp_path / "b")
