"""The encoder compiled for a CPU: the same numbers as the layers of `Encoder`, several times as fast.

The layers themselves are in `cpu_layers`. For the gradients they are computed again, since that is faster than to keep
in memory what is in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from nextmarker.nn.cpu import in_threads
from nextmarker.nn.cpu_layers import ALIGNED, UNROLLED, backpropagate, respond

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from nextmarker.nn.encoder import Encoder


def can_encode(encoder: Encoder, x: Tensor) -> bool:
    """Whether the compiled encoder applies: on a CPU, for layers that keep markers apart and fit what is unrolled."""
    markers = encoder.stem.in_channels
    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    apart = x.shape[1] == markers and all(layer.groups % markers == 0 for layer in layers)
    fitting = encoder.stem.out_channels // markers % UNROLLED == 0 and len(encoder.blocks) > 0
    return x.device.type == "cpu" and x.dtype == torch.float32 and apart and fitting


def encode(encoder: Encoder, x: Tensor) -> Tensor:
    """Map signal from 0 to 1, (cells, markers, height, width), to responses, (cells, markers * features)."""
    side = x.shape[-1] // encoder.stem.stride[0]
    weights, blocks = dict(encoder.named_parameters()), range(len(encoder.blocks))
    stem = weights["stem.weight"][None]
    spatial, expand, project = (
        torch.stack([weights[f"blocks.{block}.{layer}.weight"] for block in blocks])
        for layer in ("spatial", "expand", "project")
    )
    pooling = np.pad(encoder.weights(side, x).numpy(), ((0, 0), (0, 0), (0, 1))).reshape(encoder.features, -1)
    pooling = np.pad(pooling, ((0, 0), (0, -pooling.shape[1] % ALIGNED)))
    return _Encode.apply(x, stem, spatial, expand, project, pooling)


class _Encode(torch.autograd.Function):
    """Responses as a function of signal and weights; those of the same layer of all blocks are stacked."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *inputs: Any) -> Tensor:
        *weights, pooling = inputs
        ctx.save_for_backward(x, *weights)
        ctx.pooling = pooling
        signal, layers = np.ascontiguousarray(x.numpy()), _by_marker(weights, x.shape[1])
        responses = np.zeros((*x.shape[:2], layers[0].shape[2]), np.float32)
        in_threads(len(x), lambda first, last: respond(signal[first:last], layers, pooling, responses[first:last]))
        return torch.from_numpy(responses).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_responses: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients. A thread has markers of its own, so the order of summation is always the same."""
        x, *weights = ctx.saved_tensors
        signal, layers = np.ascontiguousarray(x.numpy()), _by_marker(weights, x.shape[1])
        turned = _turn(layers)
        given = of_responses[0].reshape(*x.shape[:2], -1).contiguous().numpy()
        of_signal, of_layers = np.zeros_like(signal), tuple(np.zeros_like(weights) for weights in layers)
        in_threads(
            x.shape[1],
            lambda first, last: backpropagate(
                first, last, signal, layers, turned, ctx.pooling, given, of_signal, of_layers
            ),
        )
        return torch.from_numpy(of_signal), *_by_layer(of_layers, weights), None


def _by_marker(weights: Iterable[Tensor], markers: int) -> tuple[np.ndarray, ...]:
    """Arrange weights of grouped convolutions, (blocks, markers * rows, ...), as (markers, blocks, rows, columns)."""
    split = (each.detach().reshape(len(each), markers, -1, each[0, 0].numel()) for each in weights)
    return tuple(each.transpose(0, 1).contiguous().numpy() for each in split)


def _by_layer(arrays: Iterable[np.ndarray], weights: Iterable[Tensor]) -> list[Tensor]:
    """Arrange arrays like weights, the inverse of `_by_marker`."""
    return [torch.from_numpy(a).transpose(0, 1).reshape(each.shape) for a, each in zip(arrays, weights, strict=True)]


def _turn(layers: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Weights of the way back: matrices transposed, convolutions turned by half a turn."""
    stem, spatial, expand, project = layers
    turned = (stem.swapaxes(2, 3), spatial[..., ::-1], expand.swapaxes(2, 3), project.swapaxes(2, 3))
    return tuple(np.ascontiguousarray(weights) for weights in turned)
