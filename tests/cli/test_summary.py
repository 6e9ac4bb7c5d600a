"""What the commands print."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import nextmarker as nm
from nextmarker.cli import summary


@pytest.mark.parametrize(("images", "shown"), [(["a", "b"], ["100 % a", "75 % b"]), (["a", "a"], [])])
def test_the_list_of_clusters_shows_where_they_come_from(
    images: list[str], shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    centres = np.repeat([0.0, 9.0], [60, 40])
    adata = AnnData(obsm={"X_nextmarker": np.random.default_rng(0).normal(centres[:, None], size=(100, 5))})
    adata.obs["image"] = np.repeat([images[0], images[1]], [70, 30])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        nm.tl.cluster(adata, n_neighbors=15, resolution=0.2)
    top = pd.DataFrame({"cluster": ["0", "1"], "marker": ["CD3", "CD8"]})
    monkeypatch.setattr(nm.get, "top_markers", lambda _: top)
    summary.print_clusters(adata)
    header, *rows = capsys.readouterr().out.splitlines()[-4:]
    assert re.findall(r"\d+ % \w", "".join(rows)) == shown
    assert ("largest image" in "".join([header, *rows])) == bool(shown)
    assert re.search(r"1 +40 .*CD8$", rows[-1])


def test_a_cluster_without_markers_of_its_own_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adata = AnnData(obs=pd.DataFrame({"nextmarker": pd.Categorical(["0", "0", "1"]), "image": "a"}, list("xyz")))
    top = pd.DataFrame({"cluster": pd.Categorical(["1"], ["0", "1"]), "marker": ["CD3"]})
    monkeypatch.setattr(nm.get, "top_markers", lambda _: top)
    summary.print_clusters(adata)
    printed = capsys.readouterr().out
    assert "none stands out" in printed
    assert "NaN" not in printed


@pytest.mark.parametrize(
    ("final", "told"), [(5.0, "good, 1.2 below"), (5.9, "weak, 0.3 below"), (6.2, "failed"), (6.4, "no better than")]
)
def test_training_is_judged_in_words(final: float, told: str) -> None:
    record = {"final_loss": final, "random_loss": 6.24, "temperature": 0.5}
    assert told in summary.training_in_words(record)
    assert ("--steps" in summary.training_in_words(record)) == (not told.startswith("good"))


@pytest.mark.parametrize(
    ("types", "told"),
    [
        (["T", "T", "B", "unknown", "unsure", "unsure"], "3 cells of 2 types, 2 unsure, 1 unknown"),
        (["T", "T or B"], "2 cells of 2 types"),
        (["T", None], "1 cell of 1 type"),
        (["unknown"], "0 cells of 0 types, 1 unknown"),
    ],
)
def test_cells_of_unknown_type_are_not_of_a_type(types: list[str], told: str) -> None:
    assert (
        summary.types_in_words(pd.Series(pd.Categorical(types, ["empty", *dict.fromkeys(filter(None, types))]))) == told
    )


def test_clusters_whose_names_have_commas_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    obs = pd.DataFrame({"nextmarker": pd.Categorical(["2,3", "3"])}, index=list("xy"))
    adata = AnnData(obs=obs, var=pd.DataFrame(index=["CD3"]), layers={"interpretability": np.ones((2, 1))})
    nm.tl.annotate(adata, {"T": "CD3+"}, thresholds={"CD3": 0.1})
    summary.print_types(adata)
    assert capsys.readouterr().out.splitlines()[-1].endswith(' "2,3", 3')
