"""Files and folders of MIBI instruments, imitated after their documentation."""

import json

import numpy as np
import pytest
import tifffile

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
    with pytest.raises(ValueError, match=r"no page of ion counts \(SIMS\): it has \['SED'\]"):
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


def test_single_channel_mibi_files_of_a_folder_keep_what_they_tell(tmp_path):
    for plane, target in zip(COUNTS, "ab", strict=False):
        page = {"image.type": "SIMS", "channel.mass": 3, "channel.target": target, "mibi.run": "July"}
        options = {"resolution": (PER_CM, PER_CM), "resolutionunit": 3, **mibi_options(plane)}
        tifffile.imwrite(tmp_path / f"{target}.tiff", plane, metadata=None, description=json.dumps(page), **options)
    sdata = nm.io.read_folder(tmp_path, pixel_size=None)
    [image] = sdata.images
    assert sdata.attrs[_keys.ACQUISITIONS][image]["run"] == "July"
    assert sdata.attrs[_keys.PIXEL_SIZE][image] == pytest.approx(0.5)
