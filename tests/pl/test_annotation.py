"""Figures of an annotation: scores of clusters, and thresholds of markers."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

import nextmarker as nm
from tests.tl.test_annotate import SIGNATURES, make_table


def annotated(**arguments):
    adata = make_table(("CD4 T", "B cell", "tumour"))
    nm.tl.annotate(adata, SIGNATURES, **arguments)
    return adata


def test_scores_are_drawn_and_the_chosen_types_boxed():
    adata = annotated(overrule={"1": "plasma cell"})
    ax = nm.pl.annotation(adata)
    scores = adata.uns["cell_type_scores"].pivot(index="cluster", columns="cell_type", values="score")
    np.testing.assert_allclose(ax.images[0].get_array(), scores[list(SIGNATURES)])
    assert [label.get_text() for label in ax.get_xticklabels()] == list(SIGNATURES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0 (30)", "1 (30)", "2 (30)"]
    boxes = {(box.get_x() + 0.5, box.get_y() + 0.5) for box in ax.patches if isinstance(box, Rectangle)}
    assert boxes == {(1, 0), (3, 1), (4, 2)}  # CD4 T, B cell, tumour
    texts = " ".join(text.get_text() for text in ax.texts)
    assert "plasma cell (B cell): margin" in texts


def test_thresholds_are_drawn_over_the_values_of_their_marker():
    adata = annotated(thresholds={"CD4": 0.4, "B cell": {"CD20": 0.3}})
    axes = nm.pl.thresholds(adata, ["CD4", "CD20"])
    assert [ax.get_title() for ax in axes] == ["CD4: 33 % positive", "CD20: 33 % positive"]
    lines = [{round(line.get_xdata()[0], 2) for line in ax.lines} for ax in axes]
    assert lines[0] == {0.4}
    assert len(lines[1]) == 2
    assert 0.3 in lines[1]
    assert sum(bar.get_height() for bar in axes[0].patches) == adata.n_obs
    assert axes[0].figure.get_supxlabel() == "activation"


def test_what_is_missing_is_named():
    with pytest.raises(KeyError, match="cell_type_annotation.*annotate"):
        nm.pl.annotation(make_table())
    with pytest.raises(KeyError, match="No annotation.*annotate"):
        nm.pl.thresholds(make_table())
    with pytest.raises(KeyError, match="CD33.*markers="):
        nm.pl.thresholds(annotated(), ["CD33"])
