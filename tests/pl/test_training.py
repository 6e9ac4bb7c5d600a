import numpy as np
import pytest

from nextmarker.pl import training


def test_draws_every_step(sdata):
    ax = training(sdata)
    per_step, running_mean, _ = ax.get_lines()
    record = sdata["table"].uns["nextmarker"]["train"]
    np.testing.assert_array_equal(per_step.get_xdata(), np.arange(1, 61))
    np.testing.assert_allclose(per_step.get_ydata(), record["loss"])
    assert running_mean.get_ydata()[30] == pytest.approx(record["loss"][30], abs=0.05)
    (rates,) = (other for other in ax.figure.axes if other is not ax)
    np.testing.assert_allclose(rates.get_lines()[0].get_ydata(), record["learning_rates"])
    assert (ax.get_xlabel(), ax.get_ylabel(), rates.get_ylabel()) == ("step", "loss", "learning rate")


def test_running_mean_is_smoother(sdata):
    noise = np.random.default_rng(0).normal(size=60)
    sdata["table"].uns["nextmarker"]["train"]["loss"] = noise
    _, running_mean, _ = training(sdata["table"]).get_lines()
    np.testing.assert_allclose(running_mean.get_ydata()[10], noise[9:12].mean())


def test_shows_the_loss_of_random_embeddings(sdata):
    ax = training(sdata)
    *_, random = ax.get_lines()
    assert random.get_label() == "random embeddings"
    assert set(random.get_ydata()) == {6.2}
    assert ax.get_ylim()[1] > 6.2
    assert "random embeddings" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_not_trained(sdata):
    del sdata["table"].uns["nextmarker"]["train"]
    with pytest.raises(KeyError, match="nm.tl.train"):
        training(sdata)
    del sdata["table"].uns["nextmarker"]
    with pytest.raises(KeyError, match="nm.tl.train"):
        training(sdata)
