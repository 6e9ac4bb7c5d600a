"""Signatures of cell types from text, tables and files of other programs."""

import pandas as pd
import pytest

from nextmarker.tl.cell_types.signatures import CellType, Condition, parse, read_signatures


def signs(types):
    """Conditions as text, by type."""
    return {each.name: [condition.text for condition in each.conditions] for each in types}


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("CD45+ CD3+ CD20-", ["CD45+", "CD3+", "CD20-"]),
        ("CD45+, CD3+; CD20-", ["CD45+", "CD3+", "CD20-"]),
        ("CD3+ CD4+ or CD8+", ["CD3+", "CD4+ or CD8+"]),
        ("(CD4+ or CD8- or CD3+) CD20-", ["CD4+ or CD8- or CD3+", "CD20-"]),
        ("CD3+ [CD57+ CD56-]", ["CD3+", "[CD57+]", "[CD56-]"]),
        ("HLA-DR+ E-cadherin- HLA-DR/DP+", ["HLA-DR+", "E-cadherin-", "HLA-DR/DP+"]),
        ("Cytokeratin 5+ beta-2 microglobulin-", ["Cytokeratin 5+", "beta-2 microglobulin-"]),
        ("orexin+ CD3 +", ["orexin+", "CD3+"]),
    ],
)
def test_markers_may_have_signs_and_spaces_in_their_names(text, conditions):
    assert [condition.text for condition in parse("a type", text)] == conditions


@pytest.mark.parametrize("text", ["CD3", "CD3+ CD20", "+", "CD3++ CD4"])
def test_a_marker_without_a_sign_is_named(text):
    with pytest.raises(ValueError, match=r"'T cell' cannot be read.*CD3\+ CD20-"):
        read_signatures({"T cell": text})


def test_parents_are_given_or_follow_from_the_markers():
    types = read_signatures(
        {
            "T cell": "CD3+ CD20-",
            "CD8 T": {"parent": "T cell", "markers": "CD8+"},
            "tumour": "PanCK+",
            "growing": "PanCK+ Ki67+",
            "growing and EMT": "VIM+ Ki67+ PanCK+",
        }
    )
    parents = {each.name: each.parent for each in types}
    assert parents == {
        "T cell": None,
        "CD8 T": "T cell",
        "tumour": None,
        "growing": "tumour",
        "growing and EMT": "growing",
    }


@pytest.mark.parametrize(
    ("signatures", "problem"),
    [
        ({}, "signatures is empty"),
        ({"a": ""}, "'a' has no marker"),
        ({"a": {"parent": "b", "markers": "CD3+"}, "b": {"parent": "a", "markers": "CD4+"}}, "'a', 'b' are subtypes"),
        ({"a": {"parent": "a", "markers": "CD3+"}}, "'a' are subtypes"),
        ({"a": {"parent": "T", "markers": "CD3+"}, "T cell": "CD3+"}, "parent of 'a'.*'T cell'"),
        ({"a": {"parents": "b", "markers": "CD3+"}}, "'parents'.*'parent', 'markers'"),
        ({"a": 3}, "must be one text"),
        (pd.DataFrame({"CD3": [1, 2]}, index=["a", "b"]), "'CD3' of 'b' is '2'"),
        (pd.DataFrame({"CD3": [1, 1]}, index=["a", "a"]), "'a' has several"),
    ],
)
def test_what_cannot_be_a_signature(signatures, problem):
    with pytest.raises(ValueError, match=problem):
        read_signatures(signatures)


def test_another_type_or_a_missing_file():
    with pytest.raises(TypeError, match="dict"):
        read_signatures(["CD3+"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_signatures("nowhere.csv")


def test_a_matrix_of_signs(tmp_path):
    table = pd.DataFrame({"CD3": [1, -1], "CD20": [-1, 1], "CD45": [0, None]}, index=["T cell", "B cell"])
    expected = {"T cell": ["CD3+", "CD20-"], "B cell": ["CD3-", "CD20+"]}
    assert signs(read_signatures(table)) == expected
    table.to_csv(tmp_path / "signs.csv")
    table.to_csv(tmp_path / "signs.tsv", sep="\t", na_rep="NA")
    assert signs(read_signatures(tmp_path / "signs.csv")) == expected
    assert signs(read_signatures(str(tmp_path / "signs.tsv"))) == expected


def test_rows_longer_than_the_header(tmp_path):
    path = tmp_path / "signs.csv"
    path.write_text("type,CD3,CD20\nT cell,1,-1,\nB cell,-1,1,\n")  # as spreadsheets end lines
    assert signs(read_signatures(path)) == {"T cell": ["CD3+", "CD20-"], "B cell": ["CD3-", "CD20+"]}
    path.write_text("type,CD3,CD20\nT cell,1,-1,1\nB cell,-1,1,-1\n")
    with pytest.raises(ValueError, match=r"signs\.csv' has more values than the header has names"):
        read_signatures(path)


def test_phenotypes_of_scimap(tmp_path):
    path = tmp_path / "phenotypes.csv"
    path.write_text(
        ",,CD45,CD3,CD4,CD8,ECAD\n"
        "all,immune,anypos,anypos,,,\n"
        "all,tumour,allneg,,,,pos\n"
        "immune,T cell,,pos,anypos,anypos,neg\n"
    )
    types = read_signatures(path)
    assert signs(types) == {
        "immune": ["CD45+ or CD3+"],
        "tumour": ["CD45-", "ECAD+"],
        "T cell": ["CD3+", "CD4+ or CD8+", "ECAD-"],
    }
    assert [each.parent for each in types] == [None, None, "immune"]


def test_markers_of_astir(tmp_path):
    path = tmp_path / "markers.yaml"
    path.write_text(
        "cell_types:\n  T cell: [CD45, CD3]\n  B cell: [CD45, CD20]\nhierarchy:\n  immune: [T cell, B cell]\n"
    )
    types = read_signatures(path)
    assert types[0] == CellType("immune", ())
    assert types[1] == CellType("T cell", (Condition((("CD45", "+"),)), Condition((("CD3", "+"),))), "immune")
    path.write_text("cell_states: {}")
    with pytest.raises(ValueError, match="cell_types"):
        read_signatures(path)
