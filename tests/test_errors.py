"""The wording of errors: long lists are cut short, and the name that was meant is found."""

import pytest

from nextmarker._errors import check_each_once, check_option, check_value, listed, no_path, no_such


def test_what_is_missing_is_named_with_what_is_there_and_what_fixes_it():
    message = no_such("channel", ["DAPI", "dna1"], "image 'a'", ["CD3", "DNA1"], "Name others: markers=[...].")
    for told in ("channels 'DAPI', 'dna1'", "image 'a'", "'CD3', 'DNA1'", "mean 'DNA1'?", "markers="):
        assert told in message


@pytest.mark.parametrize(("wanted", "meant"), [("cd45ro", "CD45RO"), ("Ki67", "Ki-67"), ("CD8", None), ("x", None)])
def test_names_are_guessed_whatever_their_case_but_not_among_other_markers(wanted, meant):
    message = no_such("marker", wanted, "the table", ["CD3", "CD4", "CD45RO", "Ki-67"], "")
    assert (f"mean {meant!r}?" in message) if meant else ("mean" not in message)


def test_names_that_are_taken_are_not_suggested():
    message = no_such("marker", "CD3e", "the table", ["CD3", "CD3-e"], "", taken=["CD3", "CD20"])
    assert "Did you mean 'CD3-e'? " in message
    assert "mean" not in no_such("marker", "CD3e", "the table", ["CD3"], "", taken=["CD3"])


def test_long_lists_are_cut_short():
    assert listed(f"m{n}" for n in range(40)).endswith("'m7' and 32 more")
    assert listed(["a", "b", "c", "d"], 3) == "'a', 'b', 'c' and 1 more"
    assert len(no_such("marker", "m", "the table", [f"m{n}" for n in range(10_000)], "")) < 200


def test_values_are_refused_with_what_is_allowed():
    check_option("unit", "pixel", ("pixel", "micrometre"))
    with pytest.raises(ValueError, match="unit='Pixels'.*'pixel', 'micrometre'.*mean 'pixel'"):
        check_option("unit", "Pixels", ("pixel", "micrometre"))
    with pytest.raises(ValueError, match="C=-1 .*positive"):
        check_value("C", -1, holds=False, rule="positive")
    for names in ([], ["CD3", "CD3"]):
        with pytest.raises(ValueError, match="markers=.* each once"):
            check_each_once("markers", names)


def test_the_first_part_of_a_path_that_is_missing_is_named_with_what_is_there(tmp_path):
    (tmp_path / "slides").mkdir()
    message = str(no_path(tmp_path / "slide" / "a" / "b.tif", "file or folder"))
    place = repr(str(tmp_path))
    assert (
        message == f"No file or folder 'slide' in {place}; there is 'slides'. Did you mean 'slides'? Correct the path."
    )
