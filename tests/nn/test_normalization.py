"""Eq. 1 and Eq. 2 against the formulas as printed."""

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
    sigmoid = Normalization(start)
    torch.testing.assert_close(sigmoid.centre, start)
    torch.testing.assert_close(sigmoid.slope, 2 / start)
    counts = torch.stack([0 * start, start, 2 * start])[:, :, None, None]
    expected = torch.tensor([1 / (1 + np.exp(8)), 0.5, 1 / (1 + np.exp(-8))], dtype=torch.float32)
    torch.testing.assert_close(sigmoid(counts)[..., 0, 0], expected[:, None].expand(3, 3))


def test_eq_1_after_learning():
    sigmoid = Normalization(torch.tensor([2.0, 300.0]))
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
    sigmoid = Normalization(torch.tensor([50.0]))
    x = torch.full((1, 1, 1, 1), 50.0, requires_grad=True)
    sigmoid(x).sum().backward()
    torch.testing.assert_close(x.grad.squeeze(), sigmoid.slope.squeeze())


def with_values(centre, slope):
    """Sigmoids whose centre and slope are set, also to values that training cannot reach."""
    sigmoid = Normalization(torch.ones(len(centre)))
    values = {"centre": torch.tensor(centre), "slope": torch.tensor(slope)}
    return type("Set", (Normalization,), {name: property(lambda _, v=v: v) for name, v in values.items()})(
        sigmoid.start
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
        sigmoid = Normalization(torch.tensor([start]))
        assert sigmoid.penalty("relative").item() == pytest.approx(0, abs=1e-6)
        with torch.no_grad():
            sigmoid.log_slope -= np.log(2)
        assert sigmoid.penalty("relative").item() == pytest.approx(1, abs=1e-5)
