"""NT-Xent against another library, and against its definition written out."""

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss

from nextmarker.nn import nt_xent, random_nt_xent


def reference(projections, temperature):
    z = projections / np.linalg.norm(projections, axis=-1, keepdims=True)
    losses = []
    for cell, anchors in enumerate(z):
        negatives = np.exp(np.delete(z, cell, axis=0).reshape(-1, z.shape[-1]) @ anchors.T / temperature).sum(0)
        for a, anchor in enumerate(anchors):
            for p, positive in enumerate(anchors):
                if p != a:
                    similarity = np.exp(anchor @ positive / temperature)
                    losses.append(-np.log(similarity / (similarity + negatives[a])))
    return np.mean(losses)


@pytest.mark.parametrize("views", [2, 4, 6])
def test_against_the_definition(views):
    projections = torch.randn(9, views, 16, dtype=torch.float64)
    assert nt_xent(projections, 0.5).item() == pytest.approx(reference(projections.numpy(), 0.5), rel=1e-10)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_two_views_against_pytorch_metric_learning(temperature):
    projections = torch.randn(32, 2, 16)
    cells = torch.arange(32).repeat_interleave(2)
    expected = NTXentLoss(temperature)(projections.flatten(0, 1), cells)
    torch.testing.assert_close(nt_xent(projections, temperature), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("cells", "views", "temperature", "dimensions"),
    [(64, 2, 0.5, 128), (32, 6, 0.5, 128), (64, 2, 0.1, 128), (2, 4, 0.5, 128), (64, 2, 0.5, 3)],
)
def test_value_for_random_embeddings_against_simulation(cells, views, temperature, dimensions):
    generator = torch.Generator().manual_seed(0)
    losses = [
        nt_xent(torch.randn(cells, views, dimensions, generator=generator, dtype=torch.float64), temperature).item()
        for _ in range(400)
    ]
    error = np.std(losses) / np.sqrt(len(losses))
    expected = random_nt_xent(cells, views, temperature, dimensions)
    assert np.mean(losses) == pytest.approx(expected, abs=4 * error + 0.1 / (cells * views) ** 2)


def test_embeddings_that_are_all_alike_have_almost_the_random_value():
    alike = nt_xent(torch.ones(256, 2, 128), 0.5).item()
    assert alike == pytest.approx(np.log(511), abs=1e-5)
    assert alike < random_nt_xent(256, 2, 0.5, 128) < alike + 0.02
