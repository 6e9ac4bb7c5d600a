"""Panels: which channels are kept, in which order, and what they are called."""

import numpy as np
import pandas as pd
import pytest
import tifffile

import nextmarker as nm
from nextmarker import _keys
from nextmarker.io._image import Image
from nextmarker.io._panel import apply_panel, clean_names, normal_metal, read_panel

LABELS = ("107Ag", "Cytoker_651((3356))Pr141", "DNA1")
METALS = ("Ag107", "Pr141", "Ir191")


def image(name="slide", channels=("Ag107", "Cytoker", "DNA1"), originals=LABELS, metals=METALS):
    pixels = np.arange(len(channels) * 6).reshape(-1, 2, 3)
    return Image(name, pixels, channels, None, originals=originals, metals=metals, source=f"{name}.mcd")


def select(panel, *images):
    chosen, skipped = apply_panel(images or [image()], read_panel(panel))
    return chosen if images else chosen[0], skipped


def csv(tmp_path, text, encoding="utf-8"):
    (tmp_path / "panel.csv").write_text(text, encoding=encoding)
    return tmp_path / "panel.csv"


def test_channels_are_chosen_ordered_and_renamed(tmp_path):
    panel = csv(tmp_path, "channel,name,keep,ilastik\nIr191,DNA,1,1\nPr141,,1,\nAg107,,0,\n")
    chosen, skipped = select(panel)
    assert chosen.channels == ("DNA", "Cytoker")
    assert chosen.originals == ("DNA1", "Cytoker_651((3356))Pr141")
    assert chosen.metals == ("Ir191", "Pr141")
    np.testing.assert_array_equal(chosen.pixels, image().pixels[[2, 1]])
    assert (chosen.notes, skipped) == ((), [])


@pytest.mark.parametrize("key", ["Pr141", "141Pr", "Pr141Di", "Cytoker_651((3356))Pr141", "Cytoker"])
def test_a_channel_is_known_by_metal_by_label_or_by_name(key):
    assert select(pd.DataFrame({"channel": [key], "name": ["CK5"]}))[0].channels == ("CK5",)


def test_a_channel_without_metal_is_known_by_the_name_of_the_panel():
    plain = image(channels=("CD3", "CK5"), originals=None, metals=None)
    [chosen], _ = select(pd.DataFrame({"Metal Tag": ["Pr141"], "Target": ["CK5"]}), plain)
    assert chosen.channels == chosen.originals == ("CK5",)


def test_the_panel_of_imcdatasets(tmp_path):
    panel = csv(
        tmp_path, "Tube Number,Metal Tag,Target,ilastik,full\n2266,Pr141,Cytokeratin 5,0,1\n,Ag107,Ag107,1,0\n1,X,x,0\n"
    )
    assert select(panel)[0].channels == ("Cytokeratin 5",)


def test_names_stay_text(tmp_path):
    panel = csv(tmp_path, "channel,name\nAg107,NA\nPr141,007\nIr191,1e3\n")
    assert select(panel)[0].channels == ("NA", "007", "1e3")


def test_numbers_of_a_data_frame():
    panel = pd.DataFrame({"channel": ["Ag107", "Pr141"], "name": ["silver", None], "keep": [1.0, float("nan")]})
    assert select(panel)[0].channels == ("silver",)


def test_categories_and_gaps_of_a_data_frame():
    panel = pd.DataFrame({"channel": ["Ag107", "Pr141"], "name": pd.Categorical(["silver", None])})
    assert select(panel)[0].channels == ("silver", "Cytoker")


def test_columns_of_one_name_are_refused():
    panel = pd.DataFrame([["Ag107", "a", "Pr141"]], columns=["channel", "name", "Channel"])
    with pytest.raises(ValueError, match=r"The panel has repeated columns: \['channel'\]"):
        read_panel(panel)


def test_an_image_that_lacks_a_channel_is_read_without_it():
    panel = pd.DataFrame({"channel": ["Ir191", "Pr141"], "name": ["", ""]})
    fewer = image("other", LABELS[1:2], LABELS[1:2], METALS[1:2])
    none = image("none", ("CD3",), None, None)
    [first, second], [lacking] = select(panel, image(), fewer, none)
    assert first.notes == ()
    assert second.channels == ("Cytoker_651((3356))Pr141",)
    assert second.notes == ("it lacks 1 of the 2 channels of the panel",)
    assert lacking.source == "none.mcd"


def test_channels_that_no_image_has_are_named():
    panel = pd.DataFrame({"channel": ["Ir191", "Er170", "../../secret.tif"], "name": ["", "CD3", ""]})
    with pytest.raises(ValueError, match=r"\['Er170', '\.\./\.\./secret\.tif'\].*DNA1.*Ir191"):
        select(panel)


def test_two_rows_for_one_channel():
    panel = pd.DataFrame({"channel": ["Pr141", "Cytoker"], "name": ["a", "b"]})
    with pytest.raises(ValueError, match="several rows for channel 'Cytoker' of image 'slide'"):
        select(panel)


BAD = {
    "names twice": ("channel,name\nAg107,CD3\nPr141,CD3\n", r"names more than once: \['CD3'\]"),
    "channels twice": ("channel,name\nAg107,a\n107Ag,b\n", r"channels more than once: \['Ag107'\]"),
    "no channel": ("channel,name\n,CD3\n", r"without a name in the file: \['CD3'\]"),
    "no column": ("metal,name\nAg107,CD3\n", r"lacks the column 'channel' or 'metal tag'.*\['metal', 'name'\]"),
    "semicolons": ("channel;name\nAg107;CD3\n", r"separated by commas"),
    "keep": ("channel,name,keep\nAg107,CD3,maybe\n", "'maybe' in the column 'keep'"),
    "nothing kept": ("channel,name,keep\nAg107,CD3,0\n", "keeps no channel"),
    "empty": ("", "not a CSV"),
    "ragged": ("channel,name\nAg107,CD3\nPr141,CD4,1,2,3\n", "not a CSV"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_panel_that_is_not_valid_is_refused(tmp_path, case):
    text, reason = BAD[case]
    with pytest.raises(ValueError, match=rf"panel\.csv.*{reason}"):
        read_panel(csv(tmp_path, text))


def test_a_name_that_is_dropped_may_repeat(tmp_path):
    assert select(csv(tmp_path, "channel,name,keep\nAg107,CD3,1\nPr141,CD3,0\n"))[0].channels == ("CD3",)


def test_a_panel_in_another_encoding_says_how_to_read_it(tmp_path):
    panel = csv(tmp_path, "channel,name\nAg107,TNFµ\n", encoding="cp1252")
    with pytest.raises(ValueError, match=r"panel\.csv is not UTF-8: byte 0xb5 .*pandas\.read_csv"):
        read_panel(panel)
    assert select(pd.read_csv(panel, encoding="cp1252"))[0].channels == ("TNFµ",)


def test_a_mark_of_excel_is_no_part_of_the_first_column(tmp_path):
    assert select(csv(tmp_path, "channel,name\nAg107,CD3\n", encoding="utf-8-sig"))[0].channels == ("CD3",)


def test_no_panel_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No panel .*panel\.csv"):
        read_panel(tmp_path / "panel.csv")
    with pytest.raises(TypeError, match="a path or a DataFrame, not list"):
        read_panel(["CD3"])


def test_a_panel_for_tiffs(tmp_path):
    header = {"axes": "CYX", "Channel": {"Name": ["DNA1", "CD3"]}}
    pixels = np.random.default_rng(0).poisson(5, (2, 30, 40)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "core.ome.tif", pixels, metadata=header)
    panel = pd.DataFrame({"channel": ["CD3", "DNA1"], "name": ["T cells", ""]})
    sdata = nm.io.read(tmp_path / "core.ome.tif", panel=panel)
    assert sdata["core"]["c"].values.tolist() == ["T cells", "DNA1"]
    np.testing.assert_array_equal(sdata["core"], pixels[::-1])
    assert sdata.attrs[_keys.CHANNELS]["core"]["original_name"] == ["CD3", "DNA1"]


@pytest.mark.parametrize(
    ("label", "metal", "name"),
    [
        ("Cytoker_651((3356))Pr141", "Pr141", "Cytoker"),
        ("H3K27Ac_1977((2242))Yb172", "Yb172", "H3K27Ac"),
        ("CD3_((12))", "Er170", "CD3"),
        ("CD3 (Er170)", "Er170", "CD3"),
        ("CD3(170Er)", "Er170", "CD3"),
        ("170Er_CD3", "Er170", "CD3"),
        ("CD3-Er170Di", "Er170", "CD3"),
        ("DNA1_Ir191", "Ir191", "DNA1"),
        ("107Ag", "Ag107", "Ag107"),
        ("80ArAr", "ArAr80", "ArAr80"),
        (" ", "Xe131", "Xe131"),
        ("CD45RO", "Er170", "CD45RO"),
        ("Ki-67", "Er168", "Ki-67"),
        ("HLA-DR/DP_12", "Er168", "HLA-DR/DP_12"),  # a number without brackets may be part of the name
        ("CD3_Pr141", "Er170", "CD3_Pr141"),  # not its own metal
        ("CD3Er170", "Er170", "CD3Er170"),  # nothing sets the metal apart
        ("IL-2(R)", "Er170", "IL-2(R)"),
    ],
)
def test_labels_are_reduced_to_markers(label, metal, name):
    assert clean_names([label], [metal]) == (name,)


def test_markers_that_repeat_get_their_metal():
    assert clean_names(["CD3_1((2))", "CD3", "CD4"], ["Er170", "Pr141", "Nd142"]) == ("CD3_Er170", "CD3_Pr141", "CD4")


@pytest.mark.parametrize("name", ["CD45", "CD3", "Ki67", "p53", "beta-Catenin", "S100A"])
def test_markers_are_no_metals(name):
    assert normal_metal(name) == name
