"""The weights of the activation, against amounts that are known."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from nextmarker.nn import ModelConfig, NetworkConfig, NeXtMarker
from nextmarker.nn.activation import CENTRE, activation_weights, set_activation
from nextmarker.nn.patches import CellTile
from nextmarker.nn.zero import empty_response, respond_at, set_scale


def test_weights_that_predict_the_amounts_are_found():
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(100, 2, 3, generator=generator)
    expected = torch.tensor([[0.5, 0.0, 2.0], [0.0, 0.1, 0.0]])
    torch.testing.assert_close(activation_weights(features, (features * expected).sum(2)), expected)


def test_a_feature_that_falls_with_the_amount_has_no_weight():
    amounts = torch.linspace(0, 1, 50)[:, None]
    weights = activation_weights(torch.stack([2 * amounts, 1 - amounts], -1), amounts)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0]]))


@pytest.mark.parametrize("features", [torch.zeros(9, 1, 4), torch.ones(9, 1, 4)])
def test_a_marker_without_signal_has_equal_weights(features):
    assert (activation_weights(features, torch.zeros(9, 1)) == 1 / 4).all()


def make_tile():
    """32 cells, brighter from one to the next, every other one only around it, and their true weighted counts."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:100, :680] + 0.5
    cell = np.clip(x // 20 - 1, 0, 31)
    distance = np.hypot(x - 30 - 20 * cell, y - 30)
    place = np.where(cell % 2 == 0, distance < 4, (distance > 5) & (distance < 8))
    rate = place * (5 + cell)
    near = np.exp(-((distance / 15 / CENTRE) ** 2) / 2) * (y < 60)
    amounts = np.bincount(cell.astype(int).ravel(), (rate * near).ravel())
    centres = np.stack([30.0 + 20 * np.arange(32), np.full(32, 30.0)], 1)
    places = rng.uniform([10, 50], [670, 90], (100, 2))
    pixels = torch.from_numpy(rng.poisson(np.stack([10 + rate, 0 * x], -1)).astype(np.uint16))
    return CellTile(pixels, torch.from_numpy(centres), 1.0, places=torch.from_numpy(places)), amounts


def make_model(network):
    torch.manual_seed(0)
    return NeXtMarker(ModelConfig(("marker", "nothing"), 15, network=network), start=[20.0, 1.0])


@torch.no_grad()
def test_the_activation_follows_the_amount_in_the_cell():
    tile, amounts = make_tile()
    model = make_model(NetworkConfig())
    set_scale(model, lambda: [tile])
    features = model.interpret(respond_at(model, tile), empty_response(respond_at(model, tile.at_places()))).numpy()
    np.testing.assert_allclose(model.activation(features), features.mean(2), rtol=1e-6)
    set_activation(model, lambda: [tile])
    activation = model.activation(features)
    assert spearmanr(activation[:, 0], amounts).statistic > 0.95
    assert activation[amounts.argsort()[-3:], 0].mean() == pytest.approx(1, abs=0.1)  # bright cells
    assert (activation[:, 1] == 0).all()


def test_a_linear_scale_without_a_zero_has_weights_too():
    tile, _ = make_tile()
    model = make_model(NetworkConfig(axis="linear", pool_sigmas=(), log_threshold=None, zero=False))
    set_activation(model, lambda: [tile])
    assert (model.activation_weights >= 0).all()
    assert model.activation_weights[0].any()
    assert (model.activation_weights[1] == 1 / 8).all()
