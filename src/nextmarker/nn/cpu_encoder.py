"""The encoder compiled for a CPU: the same numbers as `Encoder`, several times as fast, without gradients.

All layers are computed for one marker of one patch before the next, so that everything in between stays in the cache of
the processor. The pixels of a patch are one row, with a border of zeros, so a convolution is a sum of shifted rows.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nextmarker.nn.encoder import Encoder

FEATURES = 8
"""Features of a marker for which the encoder is compiled; the loops over them are unrolled."""

_ZERO = np.float32(0)


def can_encode(encoder: Encoder, x: torch.Tensor) -> bool:
    """Whether the compiled encoder applies: on a CPU, without gradients, and with the default number of features."""
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()
    return on_cpu and encoder.stem.out_channels == FEATURES * x.shape[1] and len(encoder.blocks) > 0


def encode(encoder: Encoder, x: torch.Tensor) -> torch.Tensor:
    """Map signal from 0 to 1, (cells, markers, height, width), to responses, (cells, markers * features)."""
    cells, markers, side, _ = x.shape
    halve = encoder.stem.stride[0] == 2
    inner = side // 2 if halve else side
    blocks = range(len(encoder.blocks))
    weights = {name: weight.detach() for name, weight in encoder.named_parameters()}
    layers = (
        _by_marker([weights["stem.weight"]], markers)[0],
        _by_marker([weights[f"blocks.{block}.spatial.weight"] for block in blocks], markers),
        _by_marker([weights[f"blocks.{block}.expand.weight"] for block in blocks], markers)[..., 0],
        _by_marker([weights[f"blocks.{block}.project.weight"] for block in blocks], markers)[..., 0],
        np.pad(encoder.weight(inner, x).numpy(), 1).ravel(),
    )
    signal, responses = np.ascontiguousarray(x.numpy()), np.empty((cells, markers, FEATURES), np.float32)
    threads = max(min(torch.get_num_threads(), cells), 1)
    parts = zip(np.array_split(signal, threads), np.array_split(responses, threads), strict=True)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: _encode(part[0], *layers, halve, part[1]), parts))
    return torch.from_numpy(responses.reshape(cells, markers * FEATURES))


def _by_marker(weights: Sequence[torch.Tensor], markers: int) -> np.ndarray:
    """Stack the weights of grouped convolutions, (layers, markers, output, input, positions)."""
    return np.stack([each.numpy().reshape(markers, -1, *each.shape[1:2], each[0, 0].numel()) for each in weights])


def _compile(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, and keep the result for other processes where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written to
        return numba.njit(function, **options)


@_compile
def _encode(signal, stem, spatial, expand, project, pooling, halve, responses):  # type: ignore[no-untyped-def]
    """Fill `responses`, (cells, markers, features)."""
    cells, markers, side, _ = signal.shape
    width = (side // 2 if halve else side) + 2
    n = width * width
    planes = np.zeros((4 if halve else 1, n), np.float32)
    features = np.zeros((FEATURES, n), np.float32)
    filtered = np.zeros((FEATURES, n), np.float32)
    hidden = np.zeros((2 * FEATURES, n), np.float32)
    for cell in range(cells):
        for marker in range(markers):
            if halve:
                _split(signal[cell, marker], planes, width)
                for feature in range(FEATURES):
                    _convolve_split(planes, stem[marker, feature, 0], features[feature], width)
            else:
                _embed(signal[cell, marker], planes[0], width)
                for feature in range(FEATURES):
                    _convolve(planes[0], stem[marker, feature, 0], features[feature], width)
            _rectify(features, width)
            for block in range(len(spatial)):
                for feature in range(FEATURES):
                    _convolve(features[feature], spatial[block, marker, feature, 0], filtered[feature], width)
                _expand(filtered, expand[block, marker], hidden)
                _project(hidden, project[block, marker], features)
                _clear_border(features, width)
            for feature in range(FEATURES):
                total = _ZERO
                for pixel in range(n):
                    total += pooling[pixel] * max(features[feature, pixel], _ZERO)
                responses[cell, marker, feature] = total


@_compile
def _embed(patch, row, width):  # type: ignore[no-untyped-def]
    """Write the pixels of a patch into a row with a border."""
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            row[(y + 1) * width + x + 1] = patch[y, x]


@_compile
def _split(patch, planes, width):  # type: ignore[no-untyped-def]
    """Write the pixels of a patch, with a border, into four rows: even and odd rows and columns."""
    side = patch.shape[0]
    planes[:] = 0
    for y in range(side):
        for x in range(side):
            plane = 2 * ((y + 1) % 2) + (x + 1) % 2
            planes[plane, (y + 1) // 2 * width + (x + 1) // 2] = patch[y, x]


@_compile
def _convolve(source, w, target, width):  # type: ignore[no-untyped-def]
    """Convolve with 3 x 3 weights."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    above, same, below = source, source[width:], source[2 * width :]
    middle = target[width + 1 :]
    for i in range(len(source) - 2 * width - 2):
        middle[i] = (
            (w0 * above[i] + w1 * above[i + 1] + w2 * above[i + 2])
            + (w3 * same[i] + w4 * same[i + 1] + w5 * same[i + 2])
            + (w6 * below[i] + w7 * below[i + 1] + w8 * below[i + 2])
        )


@_compile
def _convolve_split(planes, w, target, width):  # type: ignore[no-untyped-def]
    """Convolve with 4 x 4 weights at every second pixel."""
    a, b, c, d = planes[0], planes[1], planes[2], planes[3]
    w0, w1, w2, w3, w4, w5, w6, w7 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    v0, v1, v2, v3, v4, v5, v6, v7 = w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15]
    middle = target[width + 1 :]
    for i in range(len(target) - 2 * width - 2):
        j = i + width
        middle[i] = (
            (w0 * a[i] + w1 * b[i] + w2 * a[i + 1] + w3 * b[i + 1])
            + (w4 * c[i] + w5 * d[i] + w6 * c[i + 1] + w7 * d[i + 1])
            + (v0 * a[j] + v1 * b[j] + v2 * a[j + 1] + v3 * b[j + 1])
            + (v4 * c[j] + v5 * d[j] + v6 * c[j + 1] + v7 * d[j + 1])
        )


@_compile
def _expand(source, weights, target):  # type: ignore[no-untyped-def]
    """Combine the features to twice as many, and set negative ones to zero."""
    for row in range(2 * FEATURES):
        for pixel in range(source.shape[1]):
            total = _ZERO
            for feature in range(FEATURES):
                total += weights[row, feature] * source[feature, pixel]
            target[row, pixel] = max(total, _ZERO)


@_compile
def _project(source, weights, target):  # type: ignore[no-untyped-def]
    """Combine twice as many features to the features, and add them."""
    for row in range(FEATURES):
        for pixel in range(source.shape[1]):
            total = target[row, pixel]
            for feature in range(2 * FEATURES):
                total += weights[row, feature] * source[feature, pixel]
            target[row, pixel] = total


@_compile
def _rectify(rows, width):  # type: ignore[no-untyped-def]
    """Set negative values and the border to zero."""
    for feature in range(FEATURES):
        for pixel in range(rows.shape[1]):
            rows[feature, pixel] = max(rows[feature, pixel], _ZERO)
    _clear_border(rows, width)


@_compile
def _clear_border(rows, width):  # type: ignore[no-untyped-def]
    """Set the first and last column to zero, so that they do not spread; the first and last row stay zero."""
    for feature in range(FEATURES):
        for y in range(width):
            rows[feature, y * width] = 0
            rows[feature, y * width + width - 1] = 0
