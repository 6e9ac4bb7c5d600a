"""nm.pp.add_samples: patient, group and covariates of each image, from a sheet or from the image files."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import TableModel

import nextmarker as nm

SHEET = pd.DataFrame(
    {
        "image": ["a.tiff", "b.ome.tiff", "folder/c.tif"],
        "patient": [1, 1, 2],
        "group": ["control", "control", "case"],
        "Age (years)": [61.5, 61.5, 40],
    }
)


@pytest.fixture
def adata():
    """Two cells in each of three images."""
    obs = pd.DataFrame({"image": pd.Categorical(["a", "a", "b", "b", "c", "c"])}, index=list("uvwxyz"))
    return AnnData(obs=obs)


def test_columns_are_joined_by_the_name_of_the_image(adata):
    nm.pp.add_samples(adata, SHEET)
    assert adata.obs["patient"].tolist() == ["1", "1", "1", "1", "2", "2"]
    assert adata.obs["group"].cat.categories.tolist() == ["case", "control"]
    assert adata.obs["Age_years"].tolist() == [61.5] * 4 + [40] * 2
    assert adata.obs.index.tolist() == list("uvwxyz")
    record = adata.uns["nextmarker"]["add_samples"]
    assert list(record["added"]) == ["patient", "group", "Age_years"]
    assert not len(record["unused"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_files(adata, tmp_path, separator):
    rows = [["Image", "patient", "group", "size", ""], ["a", "007", "None", "1.5", ""], ["b", "8", "case", "NA", ""]]
    text = "\n".join(separator.join(row) for row in [*rows, ["c", "9", "", "2", ""], [""] * 5])
    (tmp_path / "sheet.csv").write_text(text, encoding="utf-8")
    nm.pp.add_samples(adata, tmp_path / "sheet.csv")
    assert adata.obs["patient"].unique().tolist() == ["007", "8", "9"]
    assert adata.obs["group"].cat.categories.tolist() == ["None", "case"]
    assert adata.obs["group"].isna().sum() == 2
    np.testing.assert_array_equal(adata.obs["size"], [1.5, 1.5, np.nan, np.nan, 2, 2])
    assert list(adata.obs) == ["image", "patient", "group", "size"]


def test_a_file_that_is_no_table(adata, tmp_path):
    (tmp_path / "sheet.xlsx").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(ValueError, match="sheet.xlsx.*cannot be read as a table"):
        nm.pp.add_samples(adata, tmp_path / "sheet.xlsx")


def test_a_file_that_does_not_exist(adata, tmp_path):
    (tmp_path / "sheets.csv").touch()
    with pytest.raises(
        FileNotFoundError, match="No file 'sheet.csv' in .* Did you mean 'sheets.csv'. Correct the path"
    ):
        nm.pp.add_samples(adata, tmp_path / "sheet.csv")


def test_what_does_not_match_is_named(adata):
    sheet = SHEET.assign(image=["a", "b", "elsewhere"])
    with pytest.warns(UserWarning, match="Rows of the sheet without cells: 'elsewhere'; cells without a row.*'c'"):
        nm.pp.add_samples(adata, sheet)
    assert adata.obs["patient"].isna().tolist() == [False] * 4 + [True] * 2
    assert np.isnan(adata.obs["Age_years"].iloc[-1])
    assert adata.uns["nextmarker"]["add_samples"]["without_row"].tolist() == ["c"]
    with pytest.raises(ValueError, match=r"No images 'x', 'y', 'z' in .obs\['image'\]; there is 'a', 'b', 'c'"):
        nm.pp.add_samples(adata, SHEET.assign(image=["x", "y", "z"]))


def test_names_in_the_table_may_have_the_extension(adata):
    adata.obs["image"] = adata.obs["image"].cat.rename_categories({"a": "a.tiff"})
    nm.pp.add_samples(adata, SHEET.assign(image=["a", "b", "c"]))
    assert adata.obs["patient"].notna().all()


def test_samples_and_patients(adata):
    adata.obs["sample"] = ["S1", "S1", "S1", "S2", "S2", "S2"]
    by_sample = pd.DataFrame({"patient": ["P1", "P2"]}, pd.Index(["S1", "S2"], name="sample"))
    nm.pp.add_samples(adata, by_sample, on="sample")
    nm.pp.add_samples(adata, pd.DataFrame({"patient": ["P1", "P2"], "sex": ["f", "m"]}), on="patient")
    assert adata.obs["patient"].tolist() == ["P1"] * 3 + ["P2"] * 3
    assert adata.obs["sex"].tolist() == ["f"] * 3 + ["m"] * 3


def test_order_of_groups_and_numbers_as_groups(adata):
    ordered = pd.Categorical(["late", "late", "early"], ["late", "early", "never"])
    nm.pp.add_samples(adata, SHEET.assign(stage=ordered, group=[0, 0, 1], alive=[True, True, False]))
    assert adata.obs["stage"].cat.categories.tolist() == ["late", "early"]
    assert adata.obs["group"].cat.categories.tolist() == ["0", "1"]
    assert adata.obs["alive"].tolist() == ["True"] * 4 + ["False"] * 2


def test_a_patient_in_two_groups_is_refused_unless_a_time_tells_them_apart(adata):
    sheet = SHEET.assign(group=["before", "after", "before"], visit=[1, 2, 1])
    with pytest.raises(ValueError, match="Several groups for patients '1'.*time_key"):
        nm.pp.add_samples(adata, sheet)
    assert list(adata.obs) == ["image"]
    nm.pp.add_samples(adata, sheet, time_key="visit")
    assert adata.obs["visit"].cat.categories.tolist() == ["1", "2"]
    with pytest.raises(ValueError, match="give each time one group"):
        nm.pp.add_samples(adata, sheet.assign(visit=1), time_key="visit")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image": ["a", "a", "c"], "group": ["x", "y", "x"]}, "several rows for image 'a'"),
        ({"image": ["a", "a.tiff", "c"]}, "several names for the same image"),
        ({"image": ["a", None, "c"]}, "1 rows of the sheet have nothing in column 'image'"),
        ({"Group": ["x", "y", "z"]}, "'group', 'Group'.*differ only in case"),
        ({"instance_id": [1, 2, 3]}, "did not write 'instance_id'.*columns="),
    ],
)
def test_contradictions(adata, change, match):
    adata.obs["instance_id"] = 0
    before = adata.copy()
    with pytest.raises(ValueError, match=match):
        nm.pp.add_samples(adata, SHEET.assign(**change))
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert not adata.uns


def test_missing_columns(adata):
    with pytest.raises(KeyError, match="No column 'image' in the sheet; there is 'patient'.*on="):
        nm.pp.add_samples(adata, SHEET[["patient"]])
    with pytest.raises(KeyError, match=r"No column 'sample' in .obs.*on="):
        nm.pp.add_samples(adata, SHEET, on="sample")
    with pytest.raises(KeyError, match=r"No column 'grade' in the sheet.*columns="):
        nm.pp.add_samples(adata, SHEET, columns=["grade"])
    with pytest.raises(ValueError, match="sheet=None must be"):
        nm.pp.add_samples(adata)


def test_again_replaces_what_was_added_but_nothing_else(adata):
    nm.pp.add_samples(adata, SHEET)
    nm.pp.add_samples(adata, SHEET.assign(group=["x", "x", "y"]), columns=["group"])
    assert adata.obs["group"].unique().tolist() == ["x", "y"]
    assert adata.obs["patient"].notna().all()
    del adata.uns["nextmarker"]  # as after anndata.concat
    with pytest.raises(ValueError, match="did not write 'patient'"):
        nm.pp.add_samples(adata, SHEET)


@pytest.mark.parametrize("file_format", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_files_keep_the_columns(adata, tmp_path, file_format):
    nm.pp.add_samples(adata, SHEET)
    path = tmp_path / f"table.{file_format}"
    getattr(adata, f"write_{file_format}")(path)
    again = getattr(ad, f"read_{file_format}")(path)
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    nm.pp.add_samples(again, SHEET)


def test_what_the_files_tell_of_the_acquisition():
    obs = pd.DataFrame({"region": "cells", "instance_id": [0, 1, 2], "image": ["a", "b", "b"]}, index=list("xyz"))
    table = TableModel.parse(
        AnnData(obs=obs.astype({"region": "category"})),
        region="cells",
        region_key="region",
        instance_key="instance_id",
    )
    told = {"a": {"sample": "S", "start_time": "9:00", "slide_x": 5.5}, "b": {"start_time": "10:00"}}
    sdata = SpatialData(tables={"table": table}, attrs={"nextmarker_acquisitions": told})
    nm.pp.add_samples(sdata, acquisitions=["start_time", "slide_x"])
    assert table.obs["start_time"].tolist() == ["9:00", "10:00", "10:00"]
    np.testing.assert_array_equal(table.obs["slide_x"], [5.5, np.nan, np.nan])
    with pytest.raises(KeyError, match="No entry 'date' in .*; there is 'sample', 'start_time', 'slide_x'"):
        nm.pp.add_samples(sdata, acquisitions=["date"])


@pytest.mark.parametrize("dtype", [object, "category"])
def test_spaces_do_not_make_another_group(adata, dtype):
    sheet = pd.DataFrame({"image": ["a", "b", "c"], "patient": ["P1 ", "P1", "P2"], "group": ["R", "R ", "N"]})
    nm.pp.add_samples(adata, sheet.astype({"patient": dtype, "group": dtype}))
    assert adata.obs["group"].tolist() == ["R"] * 4 + ["N"] * 2
    assert adata.obs["patient"].cat.categories.tolist() == ["P1", "P2"]
    contradictory = sheet.assign(group=["R", "N", "N"])
    with pytest.raises(ValueError, match="Several groups for patients 'P1'"):
        nm.pp.add_samples(adata, contradictory)
