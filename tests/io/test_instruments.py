"""Files of MIBI and PhenoCycler instruments and of MCMICRO, imitated after their documentation."""

import json

import numpy as np
import pytest
import tifffile
from spatialdata.transformations import Scale, get_transformation

import nextmarker as nm
from nextmarker import _keys

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(3, (3, 64, 96)).astype(np.uint16)
PER_CM = 96 * 1e4 / 48  # 96 pixels are 48 micrometres


def write_mibi(
    path, counts=COUNTS, targets=("dsDNA", "CD45", None), masses=(89, 113, 115), others=("Optical", "Label")
):
    with tifffile.TiffWriter(path) as tif:
        for plane, target, mass in zip(counts, targets, masses, strict=True):
            run = {
                "mibi.run": "July",
                "mibi.fov_id": "FOV3",
                "mibi.mass_range": [1, 200],
                "mibi.dwell": 4,
                "mibi.x": None,
            }
            page = {"image.type": "SIMS", "channel.mass": mass, "channel.target": target, **run}
            tif.write(plane, metadata=page, resolution=(PER_CM, PER_CM), resolutionunit=3, **mibi_options(plane))
        for kind in others:
            photo = np.zeros((20, 30, 3), np.uint8)
            tif.write(photo, photometric="rgb", metadata={"image.type": kind}, **mibi_options(photo))


def mibi_options(plane):
    options = {"compression": "zlib", "software": "IonpathMIBIv1.0", "rowsperstrip": plane.shape[0]}
    return {**options, "datetime": "2019:07:03 10:11:12"}


def test_mibi_planes_of_counts_are_the_channels(tmp_path, recwarn):
    write_mibi(tmp_path / "fov3.tiff")
    sdata = nm.io.read(tmp_path / "fov3.tiff")
    np.testing.assert_array_equal(sdata["fov3"], COUNTS)
    assert sdata["fov3"]["c"].values.tolist() == ["dsDNA", "CD45", "mass 115"]
    assert sdata.attrs[_keys.CHANNELS]["fov3"]["metal"] == ["89", "113", "115"]
    expected = {"run": "July", "fov_id": "FOV3", "mass_range": "[1, 200]", "dwell": 4, "date": "2019-07-03T10:11:12"}
    assert sdata.attrs[_keys.ACQUISITIONS] == {"fov3": expected}
    assert sdata.attrs[_keys.PIXEL_SIZE]["fov3"] == pytest.approx(0.5)
    assert nm.io.report(sdata).loc[f"{tmp_path / 'fov3.tiff'}: Optical", "status"] == "skipped"
    assert not [w for w in recwarn if w.category is UserWarning]


def test_mibi_errors(tmp_path):
    write_mibi(tmp_path / "a.tiff", COUNTS[:0], (), (), ("SED",))
    with pytest.raises(ValueError, match=r"no page of ion counts \(SIMS\): it holds \['SED'\]"):
        nm.io.read(tmp_path / "a.tiff")
    write_mibi(tmp_path / "b.tiff", [COUNTS[0], COUNTS[1, :32]], ("a", "b"), (1, 2))
    with pytest.raises(ValueError, match=r"several sizes or types: page 0 96 x 64 .* page 1 96 x 32"):
        nm.io.read(tmp_path / "b.tiff")
    write_mibi(tmp_path / "c.tiff")
    content = (tmp_path / "c.tiff").read_bytes()
    (tmp_path / "c.tiff").write_bytes(content.replace(b'"CD45"', b'"CD45,'))
    with pytest.raises(ValueError, match="JSON in the header of page 1"):
        nm.io.read(tmp_path / "c.tiff")


@pytest.mark.parametrize("within", ["", "TIFs"])
def test_folders_of_mibi_instruments_are_fields_of_view(tmp_path, within):
    for point in ["Point1", "Point2"]:
        (tmp_path / point / within).mkdir(parents=True)
        for name, plane in zip(["dsDNA", "CD45"], COUNTS, strict=False):
            tifffile.imwrite(tmp_path / point / within / f"{name}.tif", plane)
    sdata = nm.io.read(tmp_path)
    assert list(sdata.images) == ["Point1", "Point2"]
    assert sdata["Point2"]["c"].values.tolist() == ["CD45", "dsDNA"]
    np.testing.assert_array_equal(sdata["Point2"], COUNTS[[1, 0]])


def qpi(kind, name="", biomarker="", more=""):
    marker = f"<Biomarker>{biomarker}</Biomarker>" if biomarker else ""
    text = f"<ImageType>{kind}</ImageType><Name>{name}</Name>{marker}{more}"
    root = "PerkinElmer-QPI-ImageDescription"
    return f'<?xml version="1.0" encoding="utf-16"?><{root}>{text}</{root}>'


def write_qptiff(path, counts, markers=("DAPI", "CD8", "CD4"), dyes=("DAPI", "Opal 520", "Opal 520")):
    """Full resolution, thumbnail, pyramid, macro, label: the order of the instrument."""
    resolution = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    plain = {"metadata": None, "software": "PerkinElmer-QPI", "photometric": "minisblack"}
    tiled = {"tile": (64, 64), "compression": "lzw", **plain}
    photo = np.zeros((20, 30, 3), np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for plane, marker, dye in zip(counts, markers, dyes, strict=True):
            description = qpi("FullResolution", dye, marker, "<SlideID>S7</SlideID>")
            tif.write(plane, description=description, **tiled, **resolution)
        tif.write(photo, description=qpi("Thumbnail"), **plain | {"photometric": "rgb"})
        for plane, dye in zip(counts, dyes, strict=True):
            tif.write(plane[::2, ::2], description=qpi("ReducedResolution", dye), **tiled)
        for kind in ["Overview", "Label"]:
            tif.write(photo, description=qpi(kind), **plain | {"photometric": "rgb"})


def test_qptiff_is_read_in_full_resolution_with_its_markers(tmp_path, recwarn):
    counts = RNG.integers(0, 255, (3, 150, 210), np.uint8)
    write_qptiff(tmp_path / "slide.qptiff", counts)
    for path in (tmp_path, tmp_path / "slide.qptiff"):
        sdata = nm.io.read(path)
        np.testing.assert_array_equal(sdata["slide"], counts)
        assert sdata["slide"]["c"].values.tolist() == ["DAPI", "CD8", "CD4"]
        assert sdata.attrs[_keys.CHANNELS]["slide"]["original_name"] == ["DAPI", "Opal 520", "Opal 520"]
        assert sdata.attrs[_keys.ACQUISITIONS] == {"slide": {"SlideID": "S7"}}
        assert get_transformation(sdata["slide"], "slide") == Scale([0.5, 0.5], axes=("x", "y"))
        left_out = nm.io.report(sdata).query("status == 'skipped'").index
        assert [source.rpartition(": ")[2] for source in left_out] == ["Label", "Overview", "Thumbnail"]
    assert not [w for w in recwarn if w.category is UserWarning]


def test_qptiff_with_a_channel_that_lost_its_description_is_refused(tmp_path):
    write_qptiff(tmp_path / "slide.qptiff", RNG.integers(0, 255, (3, 150, 210), np.uint8))
    content = (tmp_path / "slide.qptiff").read_bytes()
    (tmp_path / "slide.qptiff").write_bytes(content.replace(b"FullResolution", b"FullRexolution", 2))
    with pytest.raises(ValueError, match="page 0 has the size of a channel, and says that it is a 'FullRexolution'"):
        nm.io.read(tmp_path / "slide.qptiff")


def test_qptiff_without_biomarkers_is_named_by_its_dyes(tmp_path):
    write_qptiff(
        tmp_path / "slide.qptiff", RNG.integers(0, 255, (2, 64, 64), np.uint8), ("", ""), ("DAPI", "CD8 (Opal)")
    )
    sdata = nm.io.read_tiff(tmp_path / "slide.qptiff")
    assert sdata["slide"]["c"].values.tolist() == ["DAPI", "CD8 (Opal)"]


# MCMICRO


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
    with pytest.warns(UserWarning, match=r"b\.ome\.tif: its background was not subtracted"):
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
    with pytest.raises(FileNotFoundError, match=r"is no output of MCMICRO: it needs a file markers\.csv"):
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


def test_imagej_stacks_tell_the_pixel_size(tmp_path):
    metadata = {"axes": "CYX", "unit": "micron", "Labels": ["a", "b", "c"]}
    tifffile.imwrite(tmp_path / "a.tif", COUNTS, imagej=True, resolution=(4, 4), metadata=metadata)
    assert nm.io.read(tmp_path / "a.tif").attrs[_keys.PIXEL_SIZE] == {"a": 0.25}


def test_single_channel_mibi_files_of_a_folder_keep_what_they_tell(tmp_path):
    for plane, target in zip(COUNTS, "ab", strict=False):
        page = {"image.type": "SIMS", "channel.mass": 3, "channel.target": target, "mibi.run": "July"}
        options = {"resolution": (PER_CM, PER_CM), "resolutionunit": 3, **mibi_options(plane)}
        tifffile.imwrite(tmp_path / f"{target}.tiff", plane, metadata=None, description=json.dumps(page), **options)
    sdata = nm.io.read_folder(tmp_path, pixel_size=None)
    [image] = sdata.images
    assert sdata.attrs[_keys.ACQUISITIONS][image]["run"] == "July"
    assert sdata.attrs[_keys.PIXEL_SIZE][image] == pytest.approx(0.5)
