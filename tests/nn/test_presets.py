"""The presets against the numbers in the paper."""

import numpy as np
import pytest

from nextmarker.nn import PRESETS, NetworkConfig, TrainingConfig
from nextmarker.nn.training import learning_rate


def test_default_is_what_is_used_when_nothing_is_said():
    assert PRESETS["default"] == (TrainingConfig(), NetworkConfig())


@pytest.mark.parametrize("name", ["paper-synthetic", "paper-imc"])
def test_network_and_loss_of_the_paper(name):
    training, network = PRESETS[name]
    assert (network.features, network.embedding) == (8, 256)
    assert network.axis == "linear"
    assert network.pool_sigmas == ()
    assert network.log_threshold is None
    assert network.zero is False
    assert (training.temperature, training.penalty) == (0.5, "paper")
    assert training.marker_dropout == 0
    assert training.swap_surroundings is False
    assert training.batch_by_image is False


def test_views_of_experiment_1():
    training, _ = PRESETS["paper-synthetic"]
    assert training.views * len(training.patch_scales) == 4
    assert training.intensity_scaling == training.size_scaling == (0.9, 1.1)
    assert training.batch_size == 256


def test_what_is_chosen_where_the_paper_is_silent_on_experiment_1():
    training, network = PRESETS["paper-synthetic"]
    assert (training.steps, training.sigmoid_start) == (3000, 0.25)
    assert network.blocks == 2


def test_learning_rate_of_experiment_1_is_constant():
    training, _ = PRESETS["paper-synthetic"]
    assert {learning_rate(step, training) for step in range(training.steps)} == {1e-3}


def test_views_and_depth_of_experiment_2():
    training, network = PRESETS["paper-imc"]
    assert network.blocks == 1
    assert [round(10 * scale) for scale in training.patch_scales] == [10, 8, 6]
    assert training.intensity_scaling == (0.5, 2.0)
    assert training.size_scaling == (0.66, 1.5)
    assert training.sigmoid_start == 0.5
    patches = training.steps * training.batch_size * training.views * len(training.patch_scales)
    assert patches == pytest.approx(7e6, rel=0.1)  # as many as the paper counts


def test_learning_rate_of_experiment_2():
    training, _ = PRESETS["paper-imc"]
    rates = np.array([learning_rate(step, training) for step in range(training.steps)])
    assert len(rates) == 1200
    np.testing.assert_allclose(rates[:100], np.linspace(1e-5, 1e-3, 100))
    assert (np.diff(rates[100:1101]) < 0).all()
    np.testing.assert_allclose(rates[1100:], 1e-4)
