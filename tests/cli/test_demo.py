"""The demo knows the truth."""

from __future__ import annotations

import re

import pytest

import nextmarker as nm
from nextmarker.cli import demo


def test_the_demo_knows_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=60)
    nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], progress=False)
    obs = sdata["table"].obs
    obs["nextmarker"] = "0"
    true_type = demo._compare_with_truth(sdata)
    assert "adjusted Rand index 0.000" in capsys.readouterr().out

    obs["nextmarker"] = true_type.fillna("none")
    demo._compare_with_truth(sdata)
    printed = capsys.readouterr().out
    assert "adjusted Rand index 1.000" in printed
    found, true = (int(number) for number in re.search(r"(\d+) of (\d+) true cells", printed).groups())
    assert true == 120
    assert 100 <= found <= min(true, len(obs))

    sizes = true_type.value_counts()
    truth = sum((sdata[f"truth_{image}"]["cell_type"].value_counts() for image in sdata.images), start=0)
    assert sizes.idxmax() == truth.idxmax() == "tumour"
