"""The trials: their losses against the definitions, and that each trial changes what it says."""

import math

import numpy as np
import pytest
import torch

import nextmarker as nm
from experiments import trials


def test_decoupled_loss_equals_its_definition():
    views = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = (views / views.norm(dim=-1, keepdim=True)).numpy()
    terms = []
    for cell in range(4):
        for view in range(2):
            others = [z[other, one] for other in range(4) for one in range(2) if other != cell]
            negatives = sum(math.exp(z[cell, view] @ other / 0.5) for other in others)
            terms.append(math.log(negatives) - z[cell, view] @ z[cell, 1 - view] / 0.5)
    assert trials.decoupled(views, 0.5).item() == pytest.approx(np.mean(terms))


def test_barlow_twins_are_content_with_independent_dimensions_that_views_share():
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).repeat(50, 1)
    alike = torch.stack([signs, signs], 1)
    assert trials.barlow_twins(alike, 0.5) == pytest.approx(0, abs=1e-3)
    opposite = torch.stack([signs, -signs], 1)
    assert trials.barlow_twins(opposite, 0.5) == pytest.approx(8, abs=0.1)  # (1 + 1)^2 for each of two dimensions
    redundant = signs[:, :1].repeat(1, 2)
    assert trials.barlow_twins(torch.stack([redundant, redundant], 1), 0.5) == pytest.approx(0.01, abs=1e-3)


@pytest.fixture
def small(monkeypatch):
    make = nm.datasets.synthetic_tissue
    monkeypatch.setattr(nm.datasets, "synthetic_tissue", lambda **seed: make(n_images=2, n_cells=60, **seed))


@pytest.mark.usefixtures("small")
def test_cells_of_a_tissue_have_their_true_types():
    sdata = trials.make_tissue(0)
    obs = sdata["table"].obs
    for image, cells in obs.groupby("image", observed=True):
        truth = sdata[f"truth_{image}"]["cell_type"]
        assert truth.loc[cells["source_id"]].tolist() == cells["cell_type"].tolist()


@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:Training did not work")
def test_a_trial_trains_with_what_it_changes(monkeypatch):
    used, sizes = [], []
    embed = trials.embed
    monkeypatch.setattr(trials, "embed", lambda sdata, size, trial: sizes.append(size) or embed(sdata, size, trial))

    def loss(projections, temperature):
        used.append(tuple(projections.shape[:2]))
        return trials.nt_xent(projections, temperature)

    training = nm.nn.TrainingConfig(steps=2, batch_size=16, views=3)
    trial = trials.Trial(training, nm.nn.NetworkConfig(features=4, embedding=6), patch=0.5, loss=loss)
    sdata = trials.make_tissue(0)
    scores = trials.measure(sdata, trial)
    assert set(used) == {(16, 3)}
    assert len(used) == 3 * 2  # the data and two tissues
    assert sizes == [12, 6, 6]
    assert sdata["table"].obsm["X_nextmarker"].shape == (120, 6)
    assert sdata["table"].uns["nextmarker"]["train"]["patch_size"] == 12
    assert list(scores) == ["F", "I", "kNN", "NMI", "tissue 0, ARI", "tissue 3, ARI"]
    assert all(0 <= score <= 1 for name, score in scores.items() if "ARI" not in name)


def test_unknown_trials_are_an_error(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["trials", "data", "default", "six views"])
    with pytest.raises(SystemExit):
        trials.main()
    assert "no such trials: ['six views']; choose among ['default'" in capsys.readouterr().err
