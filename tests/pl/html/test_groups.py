import numpy as np
import pytest

import nextmarker as nm
from nextmarker.pl.html.blocks import Picture, Table, Words
from nextmarker.pl.html.groups import groups


def words(blocks, kind=None):
    return " ".join(block.text for block in blocks if isinstance(block, Words) and kind in (None, block.kind))


def test_a_table_without_results_has_no_such_section(source):
    assert groups(source) == []


def test_differences_between_groups_are_named(source):
    nm.tl.compare_groups(source.adata, reference="control")
    blocks = groups(source)
    obs = source.adata.obs
    case, control = (
        100 * (own["cell_type"] == "tumour").groupby(own["patient"]).mean().mean()
        for own in (obs[obs["group"] == "case"], obs[obs["group"] == "control"])
    )
    said = words(blocks)
    assert "Compared between control (3 patients) and case (3 patients): share of cells, 3 variables." in said
    assert f"tumour ({case:.1f} % in case, {control:.1f} % in control, q = " in said
    assert len([block for block in blocks if isinstance(block, Picture)]) == 1
    (table,) = (block for block in blocks if isinstance(block, Table))
    assert len(table.rows) == 3
    assert not words(blocks, "check")


def test_groups_that_do_not_differ(source):
    obs = source.adata.obs
    obs["cell_type"] = np.random.default_rng(0).permutation(obs["cell_type"])
    nm.tl.compare_groups(source.adata, reference="control")
    said = words(groups(source))
    assert "Nothing differs clearly: no q is below 0.05." in said


def test_what_could_not_be_compared_or_was_left_out_is_remarked_on(source):
    obs = source.adata.obs
    obs["patient"] = obs["patient"].where(obs["image"] != "P6")
    obs["group"] = np.where(obs["image"] == "P1", "case", "control")
    with pytest.warns(UserWarning, match="Nothing could be"), pytest.warns(UserWarning, match="Left out"):
        nm.tl.compare_groups(source.adata, reference="control")
    said = words(groups(source), "check")
    assert "Nothing could be compared, mostly since: one patient in 'case'" in said
    assert "Left out of the comparison: 'P6' (no patient)." in said


def test_comparisons_that_were_not_possible_are_counted(source):
    nm.tl.compare_groups(source.adata, reference="control")
    table = source.adata.uns["group_comparison"]
    table.loc[0, ["p", "q"]] = np.nan
    assert "1 of 3 comparisons were not possible; the column `note` says why." in words(groups(source))


def test_only_the_clearest_of_many_comparisons_are_listed(source, monkeypatch):
    monkeypatch.setattr("nextmarker.pl.html.groups.MOST_ROWS", 2)
    nm.tl.compare_groups(source.adata, reference="control")
    (table,) = (block for block in groups(source) if isinstance(block, Table))
    assert table.caption == "3 comparisons, the 2 with the smallest p"
    smallest = source.adata.uns["group_comparison"].sort_values("p")["variable"].head(2)
    assert [row[0] for row in table.rows] == list(smallest)
