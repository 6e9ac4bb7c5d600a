"""The encoder compiled for a CPU: the same numbers as the layers of `Encoder`, several times as fast.

All layers are computed for one marker of one patch before the next, so that everything in between stays in the cache of
the processor. The pixels of a patch are one row, with a border of zeros, so a convolution is a sum of shifted rows. For
the gradients, the layers are computed again, which is faster than keeping what is in between in memory.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

    from nextmarker.nn.encoder import Encoder

UNROLLED = 8
"""Rows that are combined at once; the number of features of a marker must be a multiple of it."""

ALIGNED = 8
"""A row is a multiple of so many pixels, since a processor reads that many at once, from aligned addresses."""

_ZERO = np.float32(0)


def can_encode(encoder: Encoder, x: Tensor) -> bool:
    """Whether the compiled encoder applies: on a CPU, for the default number of features or a multiple of it."""
    features = encoder.stem.out_channels // encoder.stem.in_channels
    return x.device.type == "cpu" and x.dtype == torch.float32 and features % UNROLLED == 0 and len(encoder.blocks) > 0


def encode(encoder: Encoder, x: Tensor) -> Tensor:
    """Map signal from 0 to 1, (cells, markers, height, width), to responses, (cells, markers * features)."""
    side = x.shape[-1] // encoder.stem.stride[0]
    blocks = [(block.spatial.weight, block.expand.weight, block.project.weight) for block in encoder.blocks]
    stem, spatial, expand, project = map(torch.stack, ([encoder.stem.weight], *zip(*blocks, strict=True)))
    pooling = np.pad(encoder.weight(side, x).numpy(), ((0, 0), (0, 1))).ravel()
    pooling = np.pad(pooling, (0, -len(pooling) % ALIGNED))
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
        _in_threads(len(x), lambda first, last: _encode(signal[first:last], layers, pooling, responses[first:last]))
        return torch.from_numpy(responses).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *of_responses: Tensor) -> tuple[Tensor | None, ...]:
        """Compute the gradients. A thread has markers of its own, so the order of summation is always the same."""
        x, *weights = ctx.saved_tensors
        signal, layers = np.ascontiguousarray(x.numpy()), _by_marker(weights, x.shape[1])
        turned = _turn(layers)
        of_responses = of_responses[0].reshape(*x.shape[:2], -1).contiguous().numpy()
        of_signal, of_layers = np.zeros_like(signal), tuple(np.zeros_like(weights) for weights in layers)
        _in_threads(
            x.shape[1],
            lambda first, last: _backpropagate(
                first, last, signal, layers, turned, ctx.pooling, of_responses, of_signal, of_layers
            ),
        )
        return torch.from_numpy(of_signal), *_by_layer(of_layers, weights), None


def _in_threads(count: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` for equal parts of `range(count)`, each in a thread."""
    threads = max(min(torch.get_num_threads(), count), 1)
    edges = [count * number // threads for number in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


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


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the result for other processes where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written to
        return numba.njit(function, **options)


@_compile
def _encode(signal, layers, pooling, responses):  # type: ignore[no-untyped-def]
    """Fill `responses`, (cells, markers, features)."""
    rows = _make_rows(layers, len(pooling), _width(signal, layers))
    for cell in range(signal.shape[0]):
        for marker in range(signal.shape[1]):
            if signal[cell, marker].any():
                features = _forward(signal[cell, marker], marker, layers, rows)
                for feature in range(len(features)):
                    total = _ZERO
                    for pixel in range(len(pooling)):
                        total += pooling[pixel] * max(features[feature, pixel], _ZERO)
                    responses[cell, marker, feature] = total


@_compile
def _backpropagate(first, last, signal, layers, turned, pooling, of_responses, of_signal, of_layers):  # type: ignore[no-untyped-def]
    """Add the gradients of signal and layers, for the markers from `first` to before `last`."""
    rows, of_rows = _make_rows(layers, len(pooling), _width(signal, layers)), _make_rows(layers, len(pooling), _width(signal, layers))
    for cell in range(signal.shape[0]):
        for marker in range(first, last):
            if signal[cell, marker].any():  # otherwise all features are zero, where the rectifiers have no gradient
                _forward(signal[cell, marker], marker, layers, rows)
                for feature in range(of_responses.shape[2]):
                    of_rows[2][-1, feature] = of_responses[cell, marker, feature] * pooling
                _backward(of_signal[cell, marker], marker, turned, rows, of_rows, of_layers)


@_compile
def _make_rows(layers, n, width):  # type: ignore[no-untyped-def]
    """Make rows of zeros for all that is computed of one marker of one patch; `n` is their length without a border.

    These are the even and odd rows and columns of the patch, or the patch itself if its resolution is not halved; the
    pixels that each weight of the stem is multiplied by; of each block the features, filtered and expanded; and a row
    to be convolved.
    """
    (_, _, _, positions), (_, blocks, features, _) = layers[0].shape, layers[1].shape
    with_border = n + 2 * width + 2
    planes = np.zeros((4 if positions == 16 else 1, with_border), np.float32)
    features_of = np.zeros((blocks + 1, features, n), np.float32)
    hidden = np.zeros((blocks, 2 * features, n), np.float32)
    row = np.zeros(with_border, np.float32)
    return planes, np.zeros((positions, n), np.float32), features_of, np.zeros_like(features_of), hidden, row


@_compile
def _forward(patch, marker, layers, rows):  # type: ignore[no-untyped-def]
    """Compute the rows of a patch, and return the last features, before the rectifier."""
    stem, spatial, expand, project = layers
    planes, taps, features, filtered, hidden, row = rows
    width = _width(patch, layers)
    _split(patch, planes, width)
    _shift(planes, taps, width)
    features[0] = 0
    _combine(stem[marker, 0], taps, features[0])
    _rectify(features[0])
    _clear_border(features[0], width)
    for block in range(len(hidden)):
        filtered[block] = 0
        for feature in range(features.shape[1]):
            _copy(features[block, feature], row[width + 1 :])
            _convolve(row, spatial[marker, block, feature], filtered[block, feature], width)
        hidden[block] = 0
        _combine(expand[marker, block], filtered[block], hidden[block])
        _rectify(hidden[block])
        features[block + 1] = features[block]
        _combine(project[marker, block], hidden[block], features[block + 1])
        _clear_border(features[block + 1], width)
    return features[-1]


@_compile
def _backward(of_patch, marker, turned, rows, of_rows, of_layers):  # type: ignore[no-untyped-def]
    """Go back through `_forward`, from the gradient of the last features, after the rectifier, to that of the patch."""
    stem, spatial, expand, project = turned
    of_stem, of_spatial, of_expand, of_project = of_layers
    _, taps, features, filtered, hidden, row = rows
    of_planes, of_taps, of_features, of_filtered, of_hidden, of_row = of_rows
    width = _width(of_patch, of_layers)
    _rectify_back(of_features[-1], features[-1])
    for block in range(len(hidden) - 1, -1, -1):
        _correlate(of_features[block + 1], hidden[block], of_project[marker, block])
        of_hidden[block] = 0
        _combine(project[marker, block], of_features[block + 1], of_hidden[block])
        _rectify_back(of_hidden[block], hidden[block])
        _correlate(of_hidden[block], filtered[block], of_expand[marker, block])
        of_filtered[block] = 0
        _combine(expand[marker, block], of_hidden[block], of_filtered[block])
        of_features[block] = of_features[block + 1]
        for feature in range(features.shape[1]):
            _copy(features[block, feature], row[width + 1 :])
            _correlate_shifted(of_filtered[block, feature], row, of_spatial[marker, block, feature], width)
            _copy(of_filtered[block, feature], of_row[width + 1 :])
            _convolve(of_row, spatial[marker, block, feature], of_features[block, feature], width)
        _clear_border(of_features[block], width)
    _rectify_back(of_features[0], features[0])
    _correlate(of_features[0], taps, of_stem[marker, 0])
    of_taps[:] = 0
    _combine(stem[marker, 0], of_features[0], of_taps)
    of_planes[:] = 0
    _shift_back(of_taps, of_planes, width)
    _merge(of_planes, of_patch, width)


@_compile
def _width(patch, layers):  # type: ignore[no-untyped-def]
    """Width of the features of a patch, with one column of zeros between their rows."""
    return patch.shape[-1] // (2 if layers[0].shape[3] == 16 else 1) + 1


@_compile
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Write a row over the beginning of another."""
    for i in range(len(source)):
        target[i] = source[i]


@_compile
def _split(patch, planes, width):  # type: ignore[no-untyped-def]
    """Write the pixels of a patch into one row with a border, or into four: even and odd rows and columns."""
    if len(planes) == 1:
        for y in range(len(patch)):
            _copy(patch[y], planes[0, (y + 1) * width + 1 :])
        return
    for y in range(len(patch)):
        (even, odd), row = _halves(planes, y, width), patch[y]
        for x in range((len(row) + 1) // 2):
            even[x] = row[2 * x]
        for x in range(len(row) // 2):
            odd[x] = row[2 * x + 1]


@_compile
def _merge(planes, patch, width):  # type: ignore[no-untyped-def]
    """Write rows into the pixels of a patch, the inverse of `_split`."""
    if len(planes) == 1:
        for y in range(len(patch)):
            _copy(planes[0, (y + 1) * width + 1 : (y + 2) * width], patch[y])
        return
    for y in range(len(patch)):
        (even, odd), row = _halves(planes, y, width), patch[y]
        for x in range((len(row) + 1) // 2):
            row[2 * x] = even[x]
        for x in range(len(row) // 2):
            row[2 * x + 1] = odd[x]


@_compile
def _halves(planes, y, width):  # type: ignore[no-untyped-def]
    """Even and odd columns of row `y` of a patch; with the border, they are odd and even ones."""
    plane, first = 2 * ((y + 1) % 2), (y + 1) // 2 * width
    return planes[plane + 1, first:], planes[plane, first + 1 :]


@_compile
def _tap(number, planes, width):  # type: ignore[no-untyped-def]
    """Pixels that a weight of the stem is multiplied by."""
    if len(planes) == 1:
        return planes[0, number // 3 * width + number % 3 :]
    down, along = number // 4, number % 4
    return planes[2 * (down % 2) + along % 2, down // 2 * width + along // 2 :]


@_compile
def _shift(planes, taps, width):  # type: ignore[no-untyped-def]
    """Write the pixels that each weight of the stem is multiplied by into a row."""
    for number in range(len(taps)):
        source = _tap(number, planes, width)
        for i in range(taps.shape[1]):
            taps[number, i] = source[i]


@_compile
def _shift_back(taps, planes, width):  # type: ignore[no-untyped-def]
    """Add rows to the pixels they come from, the adjoint of `_shift`."""
    for number in range(len(taps)):
        target = _tap(number, planes, width)
        for i in range(taps.shape[1]):
            target[i] += taps[number, i]


@_compile
def _combine(weights, source, target):  # type: ignore[no-untyped-def]
    """Add weighted sums of rows: target += weights @ source."""
    columns = weights.shape[1]
    unrolled = columns - columns % UNROLLED
    for row in range(len(weights)):
        for first in range(0, unrolled, UNROLLED):
            for pixel in range(source.shape[1]):
                total = target[row, pixel]
                for column in range(UNROLLED):
                    total += weights[row, first + column] * source[first + column, pixel]
                target[row, pixel] = total
        for column in range(unrolled, columns):
            for pixel in range(source.shape[1]):
                target[row, pixel] += weights[row, column] * source[column, pixel]


@_compile
def _correlate(left, right, total):  # type: ignore[no-untyped-def]
    """Add the products of all pairs of rows: total += left @ right.T."""
    for row in range(len(left)):
        for column in range(len(right)):
            product = _ZERO
            for pixel in range(left.shape[1]):
                product += left[row, pixel] * right[column, pixel]
            total[row, column] += product


@_compile
def _convolve(source, w, target, width):  # type: ignore[no-untyped-def]
    """Add a row with a border, convolved with 3 x 3 weights, to a row without one."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    above, same, below = source, source[width:], source[2 * width :]
    for i in range(len(target)):
        target[i] += (
            (w0 * above[i] + w1 * above[i + 1] + w2 * above[i + 2])
            + (w3 * same[i] + w4 * same[i + 1] + w5 * same[i + 2])
            + (w6 * below[i] + w7 * below[i + 1] + w8 * below[i + 2])
        )


@_compile
def _correlate_shifted(left, right, total, width):  # type: ignore[no-untyped-def]
    """Add the products of a row and a shifted row with a border: the gradient of the weights of `_convolve`."""
    for number in range(9):
        shifted = right[number // 3 * width + number % 3 :]
        product = _ZERO
        for i in range(len(left)):
            product += left[i] * shifted[i]
        total[number] += product


@_compile
def _rectify(rows):  # type: ignore[no-untyped-def]
    """Set negative values to zero."""
    for row in range(len(rows)):
        for pixel in range(rows.shape[1]):
            rows[row, pixel] = max(rows[row, pixel], _ZERO)


@_compile
def _rectify_back(rows, rectified):  # type: ignore[no-untyped-def]
    """Set the gradient to zero where values were set to zero."""
    for row in range(len(rows)):
        for pixel in range(rows.shape[1]):
            rows[row, pixel] = rows[row, pixel] if rectified[row, pixel] > 0 else _ZERO


@_compile
def _clear_border(rows, width):  # type: ignore[no-untyped-def]
    """Set the column between the rows of a patch to zero, so that it does not spread."""
    for row in range(len(rows)):
        for y in range(1, width):
            rows[row, y * width - 1] = 0
        rows[row, (width - 1) * width :] = 0
