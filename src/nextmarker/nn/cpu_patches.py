"""The interpolation of patches compiled for a CPU: the same numbers as in `patches`, several times as fast."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nextmarker.nn.cpu import compiled, in_threads

_ONE = np.float32(1)


def can_interpolate(flat: Tensor) -> bool:
    """Whether the compiled interpolation applies: on a CPU, for all numbers but those that numba lacks."""
    return flat.device.type == "cpu" and flat.dtype != torch.float16


def interpolate_on_cpu(flat: Tensor, width: int, index: Tensor, right: Tensor, below: Tensor) -> Tensor:
    """Do the same as `patches.interpolate`."""
    if len(index) and not 0 <= index.min() <= index.max() < len(flat) - width - 1:
        msg = "A patch extends beyond the pixels of its tile."
        raise IndexError(msg)
    patches = np.empty((len(index), flat.shape[1], index.shape[1]), np.float32)
    pixels, *at = (each.contiguous().numpy() for each in (flat, index, right, below))
    in_threads(
        len(index),
        lambda first, last: _interpolate(pixels, width, *(each[first:last] for each in at), patches[first:last]),
    )
    return torch.from_numpy(patches)


@compiled
def _interpolate(pixels, width, index, right, below, patches):  # type: ignore[no-untyped-def]
    """Fill `patches`; all markers of a position are computed at once, since they are neighbours in memory."""
    cells, markers, positions = patches.shape
    patch = np.empty((positions, markers), np.float32)
    for cell in range(cells):
        for position in range(positions):
            first, x, y = index[cell, position], right[cell, position], below[cell, position]
            left, top = _ONE - x, _ONE - y
            a, b, c, d = pixels[first], pixels[first + 1], pixels[first + width], pixels[first + width + 1]
            of_a, of_b, of_c, of_d = left * top, x * top, left * y, x * y
            for marker in range(markers):
                total = a[marker] * of_a
                total += b[marker] * of_b
                total += c[marker] * of_c
                patch[position, marker] = total + d[marker] * of_d
        for marker in range(markers):
            for position in range(positions):
                patches[cell, marker, position] = patch[position, marker]
