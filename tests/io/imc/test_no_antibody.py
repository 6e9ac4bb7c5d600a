"""Channels that carry no marker: named for what they are, and told of."""

import numpy as np
import pytest
import tifffile

import nextmarker as nm

# label and metal, as instruments export them, and the name they get
CHANNELS = [
    ("", "ArAr80", "ArAr80"),
    ("131Xe", "Xe131", "Xe131"),
    ("127I", "I127", "I127"),
    ("138Ba", "Ba138", "Ba138"),
    ("190BCKG", "BCKG190", "BCKG190"),
    ("208Pb", "Pb208", "Pb208"),
    ("191Ir_DNA1", "Ir191", "DNA1"),
    ("CD3_12((34))Er170", "Er170", "CD3"),
    ("169Tm", "Tm169", "Tm169"),
]
WITHOUT = "ArAr80 (argon), Xe131 (xenon), I127 (iodine), Ba138 (barium), BCKG190 (background), Pb208 (lead);"


def write(imc, path, channels=CHANNELS):
    pixels = np.random.default_rng(0).poisson(20, (len(channels), 5, 7)).astype(np.float32)
    imc.write_txt(path, pixels, labels=[c[0] for c in channels], metals=[c[1] for c in channels])
    return pixels


def test_channels_without_an_antibody_are_kept_and_named_in_a_warning(tmp_path, imc):
    pixels = write(imc, tmp_path / "slide_1.txt")
    for reader in (nm.io.read, nm.io.read_imc_txt):
        with pytest.warns(UserWarning, match="channels without an antibody: ") as record:
            sdata = reader(tmp_path / "slide_1.txt")
        assert WITHOUT in str(record[0].message)
        assert "panel=" in nm.io.report(sdata)["note"].iloc[0]
        assert sdata["slide_1"]["c"].values.tolist() == [name for *_, name in CHANNELS]
        np.testing.assert_array_equal(sdata["slide_1"], pixels)


def test_a_panel_leaves_them_out_without_a_warning(tmp_path, imc, recwarn):
    write(imc, tmp_path / "slide_1.txt")
    (tmp_path / "panel.csv").write_text("channel,name\nIr191,DNA1\nEr170,CD3\nXe131,plasma\n")
    sdata = nm.io.read(tmp_path / "slide_1.txt", panel=tmp_path / "panel.csv")
    assert sdata["slide_1"]["c"].values.tolist() == ["DNA1", "CD3", "plasma"]
    assert not [w for w in recwarn if w.category is UserWarning]


def test_iodine_with_a_label_is_a_marker(tmp_path, imc, recwarn):
    write(imc, tmp_path / "slide_1.txt", [("IdU", "I127", "IdU"), ("DNA1", "Ir191", "DNA1"), ("", "Ag107", "Ag107")])
    assert nm.io.read(tmp_path / "slide_1.txt")["slide_1"]["c"].values.tolist() == ["IdU", "DNA1", "Ag107"]
    assert not [w for w in recwarn if w.category is UserWarning]


def test_one_warning_for_all_images(tmp_path, imc):
    for number in (1, 2, 3):
        write(imc, tmp_path / f"slide_{number}.txt")
    with pytest.warns(UserWarning, match=r"slide_1\.txt and 2 more: channels without an antibody") as record:
        sdata = nm.io.read(tmp_path)
    assert str(record[0].message).count("without an antibody") == 1
    assert nm.io.report(sdata)["note"].str.contains("without an antibody").all()


def test_names_of_an_ome_header(tmp_path):
    names = ["131Xe", "80ArAr", "CD3", "Background"]
    header = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.ones((4, 30, 40), np.uint16), metadata=header, photometric="minisblack")
    for reader in (nm.io.read, nm.io.read_tiff):
        with pytest.warns(UserWarning, match=r"antibody: 131Xe \(xenon\), 80ArAr \(argon\), Background"):
            assert reader(tmp_path / "a.ome.tif")["a"]["c"].values.tolist() == names


def test_elements_of_mibi_are_named(tmp_path, recwarn):
    def read(*channels):
        recwarn.clear()
        pixels, header = (
            np.ones((len(channels), 30, 40), np.uint16),
            {"axes": "CYX", "Channel": {"Name": list(channels)}},
        )
        tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=header, photometric="minisblack")
        nm.io.read(tmp_path / "a.ome.tif")
        return " ".join(str(told.message) for told in recwarn if told.category is UserWarning)

    told = "C (carbon), Na (sodium), P (phosphorus), Au (gold), Background (background), totalIon (all ions);"
    assert told in read("C", "CD3", "Na", "P", "PCNA", "Au", "Background", "totalIon", "HH3", "dsDNA")
    assert not read("A", "B", "C")
    assert not read("HH3", "CD3", "Nuc")
