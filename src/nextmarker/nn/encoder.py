"""The encoder: normalized patches to responses, each marker by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nextmarker.nn.cpu_encoder import can_encode, encode


class Block(nn.Module):
    """ConvNeXt-style residual block: a depthwise convolution, then two 1x1 convolutions within each marker."""

    def __init__(self, markers: int, features: int) -> None:
        super().__init__()
        width = markers * features
        self.spatial = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.expand = nn.Conv2d(width, 2 * width, 1, groups=markers, bias=False)
        self.project = nn.Conv2d(2 * width, width, 1, groups=markers, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform features (cells, markers * features, height, width), keeping their shape."""
        return x + _combine(self.project, F.relu(_combine(self.expand, self.spatial(x))))


def _combine(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Apply a 1x1 convolution as a product of matrices, which is several times as fast as a grouped convolution."""
    weight = layer.weight.reshape(layer.groups, -1, layer.in_channels // layer.groups)  # (markers, outputs, inputs)
    pixels = x.unflatten(1, (layer.groups, -1)).flatten(3)  # (cells, markers, inputs, height * width)
    return (weight @ pixels).flatten(1, 2).unflatten(2, x.shape[2:])


class Encoder(nn.Module):
    """Convolutions grouped by marker, and an average over the patch.

    No layer has a bias and the output is never negative, so a marker without signal has a response of zero.

    Parameters
    ----------
    markers
        Number of markers.
    features
        Features per marker.
    blocks
        Number of residual blocks.
    halve
        Halve the resolution in the stem, by one 4x4 convolution of stride 2 in place of a 3x3 convolution.
    pool_sigma
        Standard deviation of the Gaussian weights in the average, as a fraction of the patch width. None gives a plain
        average.
    """

    def __init__(self, markers: int, features: int, blocks: int, *, halve: bool, pool_sigma: float | None) -> None:
        super().__init__()
        width = markers * features
        kernel, stride = (4, 2) if halve else (3, 1)
        self.stem = nn.Conv2d(markers, width, kernel, stride, padding=1, groups=markers, bias=False)
        self.blocks = nn.Sequential(*(Block(markers, features) for _ in range(blocks)))
        self.pool_sigma = pool_sigma

    def forward(self, x: Tensor) -> Tensor:
        """Map signal from 0 to 1, (cells, markers, height, width), to responses, (cells, markers * features)."""
        if can_encode(self, x):
            return encode(self, x)
        x = self._features(x)
        return torch.einsum("nchw,hw->nc", x, self.weight(x.shape[-1], x))

    def locate(self, x: Tensor) -> Tensor:
        """Map signal to the parts of the responses by position, (cells, markers * features, height, width)."""
        x = self._features(x)
        return x * self.weight(x.shape[-1], x)

    def _features(self, x: Tensor) -> Tensor:
        return F.relu(self.blocks(F.relu(self.stem(x))))  # (cells, markers * features, height, width)

    def weight(self, side: int, like: Tensor) -> Tensor:
        """Weights of the positions in the average, (side, side), with sum 1."""
        if self.pool_sigma is None:
            return like.new_full((side, side), 1 / side**2)
        offset = torch.arange(side, device=like.device, dtype=like.dtype) - (side - 1) / 2
        profile = torch.softmax(-0.5 * (offset / (self.pool_sigma * side)) ** 2, dim=0)
        return torch.outer(profile, profile)
