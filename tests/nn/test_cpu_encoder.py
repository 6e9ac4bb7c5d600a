"""The compiled encoder, against the layers of torch."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from nextmarker.nn import cpu_encoder
from nextmarker.nn.encoder import Block, Encoder


def make(markers=3, side=10, blocks=1, *, features=8, halve=False, pool_sigmas=(0.25,), cells=5):
    torch.manual_seed(0)
    encoder = Encoder(markers, features, blocks, halve=halve, pool_sigmas=pool_sigmas)
    return encoder, torch.rand(cells, markers, side, side)


def by_torch(encoder, x):
    return encoder.locate(x).sum((-2, -1)).detach()


def gradients(encoder, x, of_responses):
    """Gradients of the signal and of all weights."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(encoder(x), [x, *encoder.parameters()], of_responses.to(x.dtype))


@pytest.mark.parametrize(
    ("side", "blocks", "halve"), [(10, 1, False), (7, 2, False), (24, 1, True), (25, 3, True), (6, 1, False)]
)
@pytest.mark.parametrize("pool_sigmas", [(0.1, 0.25), ()])
def test_responses_are_those_of_torch(side, blocks, halve, pool_sigmas):
    encoder, x = make(side=side, blocks=blocks, halve=halve, pool_sigmas=pool_sigmas)
    with torch.inference_mode():
        assert cpu_encoder.can_encode(encoder, x)
        torch.testing.assert_close(encoder(x), by_torch(encoder, x), rtol=1e-5, atol=1e-6)
        in_last = encoder.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(in_last, encoder(x), rtol=0, atol=0)


def test_no_signal_no_response():
    encoder, x = make()
    with torch.no_grad():
        assert not encoder(torch.zeros_like(x)).any()


def test_neither_other_cells_nor_threads_matter():
    encoder, x = make(cells=9)
    before = torch.get_num_threads()
    with torch.no_grad():
        together = encoder(x)
        torch.testing.assert_close(torch.cat([encoder(cell[None]) for cell in x]), together, rtol=0, atol=0)
        assert encoder(x[:0]).shape == (0, 24)
        try:
            torch.set_num_threads(3)
            torch.testing.assert_close(encoder(x), together, rtol=0, atol=0)
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("side", "blocks", "halve", "features"), [(10, 1, False, 8), (7, 2, False, 16), (24, 1, True, 8), (25, 3, True, 8)]
)
def test_gradients_are_those_of_torch(side, blocks, halve, features):
    encoder, x = make(side=side, blocks=blocks, halve=halve, features=features)
    x[1:3, 1] = 0  # skipped
    of_responses = torch.randn(len(x), encoder.stem.out_channels)
    assert cpu_encoder.can_encode(encoder, x)
    by_layers = gradients(deepcopy(encoder).double(), x.double(), of_responses)
    for one, other in zip(gradients(encoder, x, of_responses), by_layers, strict=True):
        assert other.any()
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5 * other.abs().max().item())
    in_last = gradients(encoder, x.to(memory_format=torch.channels_last), of_responses)
    for one, other in zip(in_last, gradients(encoder, x, of_responses), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_gradients_do_not_depend_on_threads():
    encoder, x = make(markers=5, cells=9)
    of_responses = torch.randn(len(x), encoder.stem.out_channels)
    before, alone = torch.get_num_threads(), gradients(encoder, x, of_responses)
    try:
        torch.set_num_threads(3)
        for one, other in zip(gradients(encoder, x, of_responses), alone, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


def test_without_blocks_and_with_other_numbers_of_features_torch_computes():
    for encoder, x in (make(features=4), make(blocks=0)):
        assert not cpu_encoder.can_encode(encoder, x)
        assert not cpu_encoder.can_encode(encoder.double(), x.double())
        assert encoder(x.double()).shape == (5, encoder.stem.out_channels)


def test_layers_that_mix_markers_are_left_to_torch():
    encoder = Encoder(3, 8, 1, halve=True, pool_sigmas=(0.15,))
    x = torch.rand(2, 3, 12, 12)
    assert cpu_encoder.can_encode(encoder, x)
    encoder.stem = nn.Conv2d(3, 24, 4, 2, padding=1, bias=False)
    assert not cpu_encoder.can_encode(encoder, x)
    encoder = Encoder(3, 8, 1, halve=True, pool_sigmas=(0.15,))
    encoder.blocks = nn.Sequential(Block(1, 24))
    assert not cpu_encoder.can_encode(encoder, x)
    assert encoder(x).shape == (2, 24)
