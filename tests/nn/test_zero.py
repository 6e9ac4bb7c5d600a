"""An image's own zero against places whose background, noise and signal are known."""

import numpy as np
import pytest
import torch

from nextmarker.nn.zero import NOISE, empty_response, log_thresholds, noise_of_empty, pixel_offset


def camera(offset, count=40_000):
    """Pixels of two markers, one nearly everywhere, above an offset that a camera added, with its read noise."""
    rng = np.random.default_rng(0)
    signal = rng.poisson([0.3, 30.0], (count, 2)) + rng.normal(0, 2, (count, 2))
    return np.rint(offset + signal).clip(0).astype(np.uint16)


def test_the_offset_is_that_of_the_emptiest_pixels():
    offset = pixel_offset(camera(100).reshape(200, 200, 2))
    assert offset.dtype == np.float32
    assert offset[0] == pytest.approx(100, abs=6)  # three times the read noise
    assert 100 < offset[1] < 130


def test_dead_hot_and_saturated_pixels_leave_the_offset():
    pixels = camera(100)
    broken = pixels.copy()
    broken[::250] = 0
    broken[1::250] = 65_535
    assert np.abs(pixel_offset(broken) - pixel_offset(pixels)).max() <= 2


def test_images_that_are_empty_in_places_have_no_offset():
    pixels = np.random.default_rng(0).poisson([0.01, 1.0, 3.0], (40_000, 3))
    np.testing.assert_array_equal(pixel_offset(pixels), [0, 0, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_constant_marker_and_an_image_of_ten_pixels(dtype):
    pixels = np.full((2, 5, 2), [7, 0], dtype)
    np.testing.assert_array_equal(pixel_offset(pixels), [7, 0])


def test_negative_pixels_have_an_offset_below_zero():
    pixels = np.random.default_rng(0).normal(-50, 1, (10_000, 1)).astype(np.float32)
    assert pixel_offset(pixels)[0] == pytest.approx(-50, abs=4)


BACKGROUND = torch.tensor([[0.1, 0.2], [0.01, 0.04], [0.5, 0.3]])  # (markers, features)
SPREAD = 0.1


def places(bright, count=2000):
    """Responses of places of which a share is brighter than the background of three markers."""
    generator = torch.Generator().manual_seed(0)
    response = BACKGROUND * (1 + SPREAD * torch.randn(count, 3, 2, generator=generator))
    shown = torch.rand(count, 3, 1, generator=generator) < torch.as_tensor(bright)
    return response + shown * BACKGROUND * (1 + 9 * torch.rand(count, 3, 1, generator=generator))


@pytest.mark.parametrize("bright", [0.0, 0.1, 0.3, 0.6])
def test_the_zero_is_the_background_where_a_marker_is_nowhere_or_nearly_everywhere(bright):
    zero = empty_response(places(bright))
    assert zero.shape == (3, 2)
    assert ((zero - BACKGROUND).abs() < 1.5 * SPREAD * BACKGROUND).all()


def test_each_marker_has_a_zero_of_its_own():
    together = places(torch.tensor([0.0, 0.6, 0.2])[:, None])
    apart = torch.cat([empty_response(together[:, [marker]]) for marker in range(3)])
    assert torch.equal(empty_response(together), apart)


def test_a_smear_in_a_ninth_of_an_image_leaves_its_zero():
    clean = places(0.3, 1998)
    smeared = clean.clone()
    smeared[:222] += 20 * BACKGROUND
    assert ((empty_response(smeared) - empty_response(clean)).abs() < SPREAD * BACKGROUND).all()
    assert ((noise_of_empty(smeared) / noise_of_empty(clean) - 1).abs() < 0.3).all()


def test_the_zero_of_a_constant_marker_is_its_response_without_noise():
    response = BACKGROUND.expand(50, 3, 2)
    torch.testing.assert_close(empty_response(response), BACKGROUND)
    torch.testing.assert_close(noise_of_empty(response), torch.zeros(3))


def test_noise_is_the_standard_deviation_of_the_mean_over_the_features():
    noise = torch.tensor([0.001, 0.02, 0.3])
    generator = torch.Generator().manual_seed(0)
    common = noise[:, None] * torch.randn(10_000, 3, 1, generator=generator)
    torch.testing.assert_close(noise_of_empty(5 + common.expand(-1, 3, 4)), noise, rtol=0.1, atol=0)
    apart = noise[:, None] * torch.randn(10_000, 3, 4, generator=generator)
    torch.testing.assert_close(noise_of_empty(5 + apart), noise / 2, rtol=0.1, atol=0)


def test_bright_cells_do_not_pass_for_noise():
    assert (noise_of_empty(places(0.2)) < 1.5 * noise_of_empty(places(0.0))).all()


@pytest.fixture
def signal():
    """Cells, of which half show the second marker ten times as bright as the first."""
    bright = torch.tensor([0.05, 0.5])[:, None].expand(100, 2, 4).clone()
    bright[::2] = 0
    return bright


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_faint_is_a_share_of_the_bright_signal_of_each_marker(signal, share):
    quiet = torch.zeros(2, 2)
    torch.testing.assert_close(log_thresholds(signal, quiet, share), share * torch.tensor([0.05, 0.5]))
    torch.testing.assert_close(log_thresholds(3 * signal, quiet, share), 3 * share * torch.tensor([0.05, 0.5]))


def test_faint_is_never_below_the_noise_of_the_noisiest_image(signal):
    noise = torch.tensor([[0.001, 0.001], [0.04, 0.001], [0.002, 0.001]])
    expected = torch.tensor([0.04 * NOISE, 0.2 * 0.5])
    torch.testing.assert_close(log_thresholds(signal, noise, 0.2), expected)


def test_a_marker_without_signal_and_noise_has_a_scale():
    threshold = log_thresholds(torch.zeros(20, 2, 4), torch.zeros(1, 2), 0.2)
    assert (threshold > 0).all()
    assert torch.isfinite(threshold).all()
