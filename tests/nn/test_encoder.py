"""Markers stay apart, bit for bit, and the response of a marker is in proportion to its signal."""

import pytest
import torch

from nextmarker.nn.encoder import Block, Encoder


@pytest.mark.parametrize(("halve", "size"), [(False, 10), (True, 24), (True, 25)])
@pytest.mark.parametrize("pool_sigmas", [(), (0.1, 0.25)])
def test_a_marker_changes_only_its_own_features(halve, size, pool_sigmas):
    encoder = Encoder(5, 8, 2, halve=halve, pool_sigmas=pool_sigmas).eval()
    patches = torch.rand(4, 5, size, size)
    changed = patches.clone()
    changed[:, 2] = torch.rand(4, size, size)
    with torch.inference_mode():
        before, after = (encoder(x).reshape(4, 5, 8) for x in (patches, changed))
    others = [0, 1, 3, 4]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_features_are_not_negative_and_zero_without_signal():
    encoder = Encoder(2, 8, 1, halve=True, pool_sigmas=(0.25,))
    patches = torch.rand(3, 2, 16, 16)
    patches[:, 1] = 0
    features = encoder(patches).reshape(3, 2, 8)
    assert (features >= 0).all()
    assert (features[:, 0].sum(1) > 0).all()
    assert (features[:, 1] == 0).all()


def test_plain_pooling_is_the_mean_and_focus_prefers_the_centre():
    plain, focused = (Encoder(1, 8, 0, halve=False, pool_sigmas=pool_sigmas) for pool_sigmas in ((), (0.2,)))
    focused.load_state_dict(plain.state_dict())
    patch = torch.rand(1, 1, 9, 9)
    torch.testing.assert_close(plain(patch), plain.stem(patch).relu().mean((2, 3)))
    centre, corner = torch.zeros(2, 1, 1, 9, 9)
    centre[..., 4, 4] = corner[..., 1, 1] = 1
    torch.testing.assert_close(plain(centre), plain(corner))
    assert focused(centre).sum() > 2 * focused(corner).sum()


def test_features_are_averaged_over_different_distances():
    """Two features of each width; a pixel far from the centre counts more, the wider the average."""
    encoder = Encoder(1, 8, 0, halve=False, pool_sigmas=(0.1, 0.15, 0.2, 0.3))
    weights = encoder.weights(9, torch.zeros(()))
    torch.testing.assert_close(weights.sum((1, 2)), torch.ones(8))
    assert torch.equal(weights[::2], weights[1::2])
    assert (weights[::2, 4, 4].diff() < 0).all()
    assert (weights[::2, 1, 1].diff() > 0).all()
    few = Encoder(1, 2, 0, halve=False, pool_sigmas=(0.1, 0.15, 0.2, 0.3)).weights(9, torch.zeros(()))
    assert torch.equal(few, weights[[2, 6]])


def test_a_block_is_made_of_grouped_convolutions():
    block = Block(3, 8)
    x = torch.randn(2, 24, 5, 6)
    together = block.project(block.expand(block.spatial(x)).relu())
    torch.testing.assert_close(block(x), x + together)


@pytest.mark.parametrize("halve", [False, True])
def test_responses_have_the_scale_of_the_signal(halve):
    """Nothing has a bias and nothing saturates: twice the signal gives twice the response."""
    encoder = Encoder(2, 8, 1, halve=halve, pool_sigmas=(0.25,))
    patches = torch.rand(3, 2, 16, 16)
    torch.testing.assert_close(encoder(2 * patches), 2 * encoder(patches))
