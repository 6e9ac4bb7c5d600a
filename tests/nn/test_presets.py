"""The presets against the numbers in the paper."""

import numpy as np
import pytest

from nextmarker.nn import PRESETS, Network, Settings
from nextmarker.nn.training import learning_rate


def test_default_is_what_is_used_when_nothing_is_said():
    assert PRESETS["default"] == (Settings(), Network())


@pytest.mark.parametrize("name", ["paper-synthetic", "paper-imc"])
def test_network_and_loss_of_the_paper(name):
    settings, network = PRESETS[name]
    assert (network.features, network.embedding) == (8, 256)
    assert network.axis == "linear"
    assert network.focus is None
    assert network.faint is None
    assert network.zero is False
    assert (settings.temperature, settings.penalty) == (0.5, "paper")
    assert settings.hidden_markers == 0
    assert settings.swap_surroundings is False
    assert settings.within_images is False


def test_views_of_experiment_1():
    settings, _ = PRESETS["paper-synthetic"]
    assert settings.views * len(settings.patch_scales) == 4
    assert settings.intensity_scaling == settings.size_scaling == (0.9, 1.1)
    assert settings.batch_size == 256


def test_what_is_chosen_where_the_paper_is_silent_on_experiment_1():
    settings, network = PRESETS["paper-synthetic"]
    assert (settings.steps, settings.start) == (3000, 0.25)
    assert network.blocks == 2


def test_learning_rate_of_experiment_1_is_constant():
    settings, _ = PRESETS["paper-synthetic"]
    assert {learning_rate(step, settings) for step in range(settings.steps)} == {1e-3}


def test_views_and_depth_of_experiment_2():
    settings, network = PRESETS["paper-imc"]
    assert network.blocks == 1
    assert [round(10 * scale) for scale in settings.patch_scales] == [10, 8, 6]
    assert settings.intensity_scaling == (0.5, 2.0)
    assert settings.size_scaling == (0.66, 1.5)
    assert settings.start == 0.5
    patches = settings.steps * settings.batch_size * settings.views * len(settings.patch_scales)
    assert patches == pytest.approx(7e6, rel=0.1)  # as many as the paper counts


def test_learning_rate_of_experiment_2():
    settings, _ = PRESETS["paper-imc"]
    rates = np.array([learning_rate(step, settings) for step in range(settings.steps)])
    assert len(rates) == 1200
    np.testing.assert_allclose(rates[:100], np.linspace(1e-5, 1e-3, 100))
    assert (np.diff(rates[100:1101]) < 0).all()
    np.testing.assert_allclose(rates[1100:], 1e-4)
