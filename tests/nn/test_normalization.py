"""Eq. 1 and Eq. 2 against the formulas as printed, and their form on a logarithmic axis."""

import numpy as np
import pytest
import torch

from nextmarker.nn import Normalization
from nextmarker.nn.normalization import start_centres


def test_start_is_half_the_90th_percentile_of_nonzero_pixels():
    sample = np.array([[0, 0, 7], [0, 0, 0]] + [[count, 0, 0] for count in range(1, 11)])
    np.testing.assert_allclose(start_centres(sample), [9.1 / 2, np.nan, 3.5])


def test_slope_starts_at_two_over_the_centre():
    start = torch.tensor([0.5, 4.0, 1000.0])
    sigmoid = Normalization(start, "linear")
    torch.testing.assert_close(sigmoid.centre, start)
    torch.testing.assert_close(sigmoid.slope, 2 / start)
    counts = torch.stack([0 * start, start, 2 * start])[:, :, None, None]
    expected = torch.tensor([1 / (1 + np.exp(8)), 0.5, 1 / (1 + np.exp(-8))], dtype=torch.float32)
    torch.testing.assert_close(sigmoid(counts)[..., 0, 0], expected[:, None].expand(3, 3))


def test_eq_1_after_learning():
    sigmoid = Normalization(torch.tensor([2.0, 300.0]), "linear")
    with torch.no_grad():
        sigmoid.log_centre += torch.tensor([0.3, -0.2])
        sigmoid.log_slope += torch.tensor([-0.5, 0.1])
    centre, slope = sigmoid.centre, sigmoid.slope
    torch.testing.assert_close(centre, torch.tensor([2 * np.exp(0.3), 300 * np.exp(-0.2)], dtype=torch.float32))
    torch.testing.assert_close(slope, torch.tensor([np.exp(-0.5), 2 / 300 * np.exp(0.1)], dtype=torch.float32))
    counts = torch.rand(3, 2, 4, 4) * torch.tensor([5.0, 600.0])[:, None, None]
    expected = 1 / (1 + torch.exp(-4 * slope[:, None, None] * (counts - centre[:, None, None])))
    torch.testing.assert_close(sigmoid(counts), expected)


def test_slope_is_the_slope_at_the_centre():
    sigmoid = Normalization(torch.tensor([50.0]), "linear")
    x = torch.full((1, 1, 1, 1), 50.0, requires_grad=True)
    sigmoid(x).sum().backward()
    torch.testing.assert_close(x.grad.squeeze(), sigmoid.slope.squeeze())


def with_values(centre, slope):
    """Sigmoids whose centre and slope are set, also to values that training cannot reach."""
    values = {"centre": torch.tensor(centre), "slope": torch.tensor(slope)}
    return type("Set", (Normalization,), {name: property(lambda _, v=v: v) for name, v in values.items()})(
        torch.ones(len(centre)), "linear"
    )


@pytest.mark.parametrize(
    ("centre", "slope", "expected"),
    [
        (8.0, 0.5, 0.0),  # no term is active
        (-3.0, 1.0, 3 + (2 + 3)),  # terms 1 and 3
        (8.0, 1.5, 0.5),  # term 2
        (1.0, 0.25, 8 - 1),  # term 3
        (4.0, 0.5, 0.0),  # the corner of term 3, the start of the paper
    ],
)
def test_each_term_of_eq_2(centre, slope, expected):
    assert with_values([centre, 8.0], [slope, 0.5]).penalty("paper").item() == pytest.approx(expected)


def test_relative_penalty_knows_no_units_and_is_silent_at_the_start():
    for start in (0.5, 4.0, 1000.0):
        sigmoid = Normalization(torch.tensor([start]), "linear")
        assert sigmoid.penalty("relative").item() == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            sigmoid.log_slope -= np.log(2)
        assert sigmoid.penalty("relative").item() == pytest.approx(1, abs=1e-5)


def learned(start, axis, centre=0.0, slope=0.0):
    """Sigmoids whose centre and slope are factors of exp(...) from their start."""
    sigmoid = Normalization(torch.tensor(start), axis)
    with torch.no_grad():
        sigmoid.log_centre += torch.tensor(centre)
        sigmoid.log_slope += torch.tensor(slope)
    return sigmoid


def image(*counts):
    """Patches of one pixel and one marker."""
    return torch.tensor(counts).reshape(-1, 1, 1, 1)


def test_the_logarithmic_axis_is_the_default_and_starts_with_power_1():
    start = torch.tensor([0.5, 4.0, 1000.0])
    sigmoid = Normalization(start)
    assert sigmoid.axis == "log"
    torch.testing.assert_close(sigmoid.centre, start)
    assert sigmoid.slope.tolist() == sigmoid.slope_start.tolist() == [1 / 4] * 3
    counts = torch.rand(5, 3, 4, 4) * 3 * start[:, None, None]
    torch.testing.assert_close(sigmoid(counts), counts / (counts + start[:, None, None]))


def test_eq_1_on_the_logarithmic_axis_after_learning():
    sigmoid = learned([2.0, 300.0], "log", [0.3, -0.2], [-0.5, 1.1])
    centre = torch.tensor([2 * np.exp(0.3), 300 * np.exp(-0.2)])[:, None, None]  # float64
    power = torch.tensor([np.exp(-0.5), np.exp(1.1)])[:, None, None]  # n = 4 x'
    counts = torch.rand(50, 2, 4, 4) ** 4 * torch.tensor([50.0, 6000.0])[:, None, None]
    expected = counts.double() ** power / (counts.double() ** power + centre**power)
    torch.testing.assert_close(sigmoid(counts), expected.float())
    same_on_logarithms = 1 / (1 + torch.exp(-power * (counts.double().log() - centre.log())))
    torch.testing.assert_close(sigmoid(counts), same_on_logarithms.float())


def test_slope_on_the_logarithmic_axis_is_that_at_the_centre_over_the_logarithm():
    sigmoid = learned([50.0], "log", slope=[0.7])
    log_counts = image(np.log(50.0)).float().requires_grad_()
    sigmoid(log_counts.exp()).sum().backward()
    torch.testing.assert_close(log_counts.grad.squeeze(), sigmoid.slope.squeeze())


@pytest.mark.parametrize("slope", [-2.0, 0.0, 2.0])
def test_no_counts_and_negative_ones_are_exactly_zero_with_finite_gradients(slope):
    sigmoid = learned([3.0], "log", slope=[slope])
    counts = image(0.0, -0.0, -1e-30, -7.5, -1e6, 2.0).requires_grad_()
    value = sigmoid(counts).flatten()
    assert value[:5].tolist() == [0.0] * 5
    assert value[5] > 0
    value.sum().backward()
    assert counts.grad.flatten()[:5].tolist() == [0.0] * 5
    assert counts.grad.flatten()[5] > 0
    assert sigmoid.log_centre.grad.item() < 0
    assert np.isfinite(sigmoid.log_slope.grad.item())


def test_an_empty_marker_teaches_the_logarithmic_axis_nothing():
    sigmoid = Normalization(torch.tensor([3.0, 3.0]))
    counts = torch.zeros(4, 2, 5, 5)
    counts[:, 0] = 2
    sigmoid.signal(counts).sum().backward()
    for parameter in (sigmoid.log_centre, sigmoid.log_slope):
        assert parameter.grad[0] != 0
        assert parameter.grad[1] == 0


@pytest.mark.parametrize("axis", ["log", "linear"])
def test_signal_is_what_a_pixel_shows_above_an_empty_one(axis):
    sigmoid = learned([2.0, 300.0], axis, [0.3, -0.2], [-0.5, 0.1])
    counts = torch.rand(3, 2, 4, 4) * torch.tensor([5.0, 600.0])[:, None, None]
    counts[0] = 0
    signal = sigmoid.signal(counts)
    assert (signal[0] == 0).all()
    torch.testing.assert_close(signal, sigmoid(counts) - sigmoid(torch.zeros_like(counts)))
    if axis == "log":
        assert torch.equal(signal, sigmoid(counts))


@pytest.mark.parametrize("gain", [0.25, 0.5, 3.0])
def test_scaling_counts_is_shifting_the_centre_of_the_logarithmic_axis(gain):
    counts = torch.rand(20, 1, 4, 4) ** 3 * 40
    shifted = learned([5.0], "log", [-np.log(gain)], [0.4])
    torch.testing.assert_close(learned([5.0], "log", slope=[0.4])(gain * counts), shifted(counts))
    assert not torch.allclose(
        learned([5.0], "linear", slope=[0.4])(gain * counts),
        learned([5.0], "linear", [-np.log(gain)], [0.4])(counts),
    )


@pytest.mark.parametrize("axis", ["log", "linear"])
def test_counts_have_no_unit(axis):
    """Counts and starts a thousand times as large give the same, and the same gradients, on both axes."""
    counts = torch.rand(20, 1, 4, 4) ** 3 * 40
    values = []
    for unit in (1.0, 1000.0):
        sigmoid = learned([5.0 * unit], axis, [0.2], [0.4])
        value = sigmoid(unit * counts)
        value.pow(2).sum().backward()
        values.append((value.detach(), sigmoid.log_centre.grad, sigmoid.log_slope.grad))
    for ours, theirs in zip(*values, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [0.5, 4.0, 1000.0])
@pytest.mark.parametrize(
    ("slope", "expected"),
    [(1 / 4, 0.0), (0.01, 0.0), (0.999, 0.0), (1.0, 0.0), (1.5, 0.5), (4.0, 3.0)],
)
def test_penalty_on_the_logarithmic_axis(start, slope, expected):
    """Silent at the start and up to a slope of 1, whatever the centre."""
    sigmoid = learned([start, start], "log", [0.3, -2.0], [np.log(4 * slope), 0.0])
    assert sigmoid.penalty("relative").item() == pytest.approx(expected, abs=1e-5)


def test_the_penalty_on_the_logarithmic_axis_pulls_only_at_steep_slopes():
    sigmoid = learned([4.0, 4.0], "log", slope=[np.log(8.0), np.log(2.0)])  # x' = 2 and 1/2
    sigmoid.penalty("relative").backward()
    torch.testing.assert_close(sigmoid.log_slope.grad, torch.tensor([2.0, 0.0]))
    assert sigmoid.log_centre.grad is None or (sigmoid.log_centre.grad == 0).all()


def test_arrays_hold_what_is_learned_and_where_it_started():
    for axis, slope_start in (("log", [1 / 4, 1 / 4]), ("linear", [1.0, 0.5])):
        arrays = learned([2.0, 4.0], axis, [0.3, 0.0], [0.0, 0.2]).as_arrays()
        assert {value.dtype for value in arrays.values()} == {np.dtype("float32")}
        np.testing.assert_allclose(arrays["x_c_start"], [2, 4])
        np.testing.assert_allclose(arrays["slope_start"], slope_start)
        np.testing.assert_allclose(arrays["x_c"] / arrays["x_c_start"], [np.exp(0.3), 1], rtol=1e-6)
        np.testing.assert_allclose(arrays["slope"] / arrays["slope_start"], [1, np.exp(0.2)], rtol=1e-6)
