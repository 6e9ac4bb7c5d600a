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
    pool_sigmas
        Standard deviations of the Gaussian weights in the average, as fractions of the patch width. The features of a
        marker are divided among them. None at all gives a plain average.
    """

    def __init__(
        self, markers: int, features: int, blocks: int, *, halve: bool, pool_sigmas: tuple[float, ...]
    ) -> None:
        super().__init__()
        width = markers * features
        kernel, stride = (4, 2) if halve else (3, 1)
        self.stem = nn.Conv2d(markers, width, kernel, stride, padding=1, groups=markers, bias=False)
        self.blocks = nn.Sequential(*(Block(markers, features) for _ in range(blocks)))
        self.features, self.pool_sigmas = features, pool_sigmas

    def forward(self, x: Tensor) -> Tensor:
        """Map signal from 0 to 1, (cells, markers, height, width), to responses, (cells, markers * features)."""
        if can_encode(self, x):
            return encode(self, x)
        x = self._features(x).unflatten(1, (-1, self.features))
        return torch.einsum("nmfhw,fhw->nmf", x, self.weights(x.shape[-1], x)).flatten(1)

    def locate(self, x: Tensor) -> Tensor:
        """Map signal to the parts of the responses by position, (cells, markers * features, height, width)."""
        x = self._features(x).unflatten(1, (-1, self.features))
        return (x * self.weights(x.shape[-1], x)).flatten(1, 2)

    def _features(self, x: Tensor) -> Tensor:
        return F.relu(self.blocks(F.relu(self.stem(x))))  # (cells, markers * features, height, width)

    def weights(self, side: int, like: Tensor) -> Tensor:
        """Weights of the positions in the average of each feature, (features, side, side), each with sum 1."""
        if not self.pool_sigmas:
            return like.new_full((self.features, side, side), 1 / side**2)
        share = (torch.arange(self.features) + 0.5) / self.features  # the sigmas are divided evenly among the features
        return gaussian(side, like.new_tensor(self.pool_sigmas)[(share * len(self.pool_sigmas)).long()])


def gaussian(side: int, sigmas: Tensor) -> Tensor:
    """Compute weights of the positions of a patch, (sigmas, side, side), each with sum 1; sigmas in patch widths."""
    offset = torch.arange(side, device=sigmas.device, dtype=sigmas.dtype) - (side - 1) / 2
    profile = torch.softmax(-0.5 * (offset / (side * sigmas[:, None])) ** 2, dim=1)  # (sigmas, side)
    return profile[:, :, None] * profile[:, None]
