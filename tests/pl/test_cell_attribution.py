"""The figure of what sets a cell apart."""

import numpy as np
import pytest
import xarray as xr

import nextmarker as nm


def make_attribution():
    rng = np.random.default_rng(0)
    share = np.array([0.2, -0.3, 1.1])[:, None, None]
    dims = ("marker", "y", "x")
    variables = {
        "counts": (dims, rng.poisson(3, (3, 5, 5))),
        "contribution": (dims, np.full((3, 5, 5), 1 / 25) * share),
    }
    return xr.Dataset(variables, {"marker": ["CD3", "CD20", "DNA"]}, {"cell": "slide_4", "image": "slide"})


def test_largest_contributions_come_first():
    axes = nm.pl.cell_attribution(make_attribution())
    assert [ax.get_title() for ax in axes[0]] == ["DNA: 110 %", "CD20: -30 %", "CD3: 20 %"]
    assert "slide_4" in axes[0, 0].figure.get_suptitle()


def test_upper_row_is_counts_and_lower_row_contributions_on_one_scale():
    attribution = make_attribution()
    axes = nm.pl.cell_attribution(attribution, markers=["CD20", "DNA"])
    for column, marker in enumerate(["CD20", "DNA"]):
        for row, name in enumerate(["counts", "contribution"]):
            drawn, known = axes[row, column].images[0].get_array(), attribution[name].sel(marker=marker)
            np.testing.assert_allclose(drawn, known if name == "counts" else 100 * known)
        assert axes[0, column].get_xlabel() == f"0 to {attribution['counts'].sel(marker=marker).max().item()}"
    (limits,) = {ax.images[0].get_clim() for ax in axes[1]}
    assert limits == pytest.approx((-110 / 25, 110 / 25))


def test_small_contributions_remain_pale():
    attribution = make_attribution()
    faint = nm.pl.cell_attribution(attribution, markers=["CD3"])[1, 0].images[0]  # as beside the other markers
    assert faint.get_clim() == pytest.approx((-110 / 25, 110 / 25))
    attribution["contribution"] = attribution["contribution"] / 100  # no marker has signal
    assert nm.pl.cell_attribution(attribution)[1, 0].images[0].get_clim() == pytest.approx((-4, 4))


def test_what_cannot_be_drawn():
    with pytest.raises(KeyError, match="CD33"):
        nm.pl.cell_attribution(make_attribution(), markers=["CD33"])
    with pytest.raises(TypeError, match=r"nm\.get\.cell_attribution"):
        nm.pl.cell_attribution(make_attribution()["counts"])
