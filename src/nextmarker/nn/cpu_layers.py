"""The layers of the encoder, and their gradients, compiled for a CPU.

All layers are computed for one marker of one patch before the next, so that everything in between stays in the cache of
the processor. A patch is one row of pixels, with a zero after each line, so a convolution is a sum of shifted rows.
Rows are copied by loops, since numba takes seconds to compile an assignment between arrays.
"""

from __future__ import annotations

import numpy as np

from nextmarker.nn.cpu import compiled

UNROLLED = 8
"""Rows that are combined at once; the number of features of a marker must be a multiple of it."""
ALIGNED = 8
"""The length of a row is a multiple of it: a processor reads so many pixels at once, fastest from aligned addresses."""

_ZERO = np.float32(0)


@compiled
def respond(signal, layers, pooling, responses):  # type: ignore[no-untyped-def]
    """Fill `responses`, zeros of (cells, markers, features).

    Parameters
    ----------
    signal
        (cells, markers, height, width).
    layers
        Weights of stem, spatial, expand and project, (markers, blocks, rows, columns) each; the stem is one block.
    pooling
        Weights of the pixels in the average, as a row for each feature.
    """
    rows = _make_rows(signal, layers, pooling.shape[1])
    for cell in range(signal.shape[0]):
        for marker in range(signal.shape[1]):
            if _has_signal(signal[cell, marker]):
                _pool(_forward(signal[cell, marker], marker, layers, rows), pooling, responses[cell, marker])


@compiled
def backpropagate(first, last, signal, layers, turned, pooling, of_responses, of_signal, of_layers):  # type: ignore[no-untyped-def]
    """Add the gradients of signal and layers, for the markers from `first` to before `last`.

    Parameters
    ----------
    turned
        `layers` as used on the way back, see `_backward`.
    of_responses
        Gradient of the responses.
    of_signal, of_layers
        Zeros, with the shapes of `signal` and `layers`.
    """
    rows, of_rows = _make_rows(signal, layers, pooling.shape[1]), _make_rows(signal, layers, pooling.shape[1])
    for cell in range(signal.shape[0]):
        for marker in range(first, last):
            if _has_signal(signal[cell, marker]):  # rectified features of zero have no gradient
                _forward(signal[cell, marker], marker, layers, rows)
                _pool_back(of_responses[cell, marker], pooling, of_rows[2][-1])
                _backward(of_signal[cell, marker], marker, turned, rows, of_rows, of_layers)


@compiled
def _make_rows(signal, layers, n):  # type: ignore[no-untyped-def]
    """Make rows of `n` zeros, or longer ones if they have a border, for all that is computed of a patch.

    - planes, with a border: the patch, or its even and odd rows and columns if its resolution is halved;
    - taps: for each weight of the stem, the pixels that it is multiplied by;
    - features, before each block and after the last, and those of a block filtered, and expanded (hidden);
    - one row with a border, to be convolved.
    """
    (_, _, _, positions), (_, blocks, features, _) = layers[0].shape, layers[1].shape
    with_border = n + 2 * _width(signal, layers) + 2
    planes = np.zeros((4 if positions == 16 else 1, with_border), np.float32)
    features_of = np.zeros((blocks + 1, features, n), np.float32)
    hidden = np.zeros((blocks, 2 * features, n), np.float32)
    row = np.zeros(with_border, np.float32)
    return planes, np.zeros((positions, n), np.float32), features_of, np.zeros_like(features_of), hidden, row


@compiled
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
            _copy(features[block, feature], features[block + 1, feature])
            _copy(features[block, feature], row[width + 1 :])
            _convolve(row, spatial[marker, block, feature], filtered[block, feature], width)
        hidden[block] = 0
        _combine(expand[marker, block], filtered[block], hidden[block])
        _rectify(hidden[block])
        _combine(project[marker, block], hidden[block], features[block + 1])
        _clear_border(features[block + 1], width)
    return features[-1]


@compiled
def _backward(of_patch, marker, turned, rows, of_rows, of_layers):  # type: ignore[no-untyped-def]
    """Go back through `_forward`, from the gradient of the last features, after the rectifier, to that of the patch.

    The gradient of a product with a matrix is one with the transposed matrix, that of a convolution one with weights in
    reverse order: `turned`. All that begins with `of_` is a gradient.
    """
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
        for feature in range(features.shape[1]):
            _copy(features[block, feature], row[width + 1 :])
            _correlate_shifted(of_filtered[block, feature], row, of_spatial[marker, block, feature], width)
            _copy(of_features[block + 1, feature], of_features[block, feature])
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


@compiled
def _has_signal(patch):  # type: ignore[no-untyped-def]
    """Whether a patch has a value other than zero; many have not, in sparse images or because a view hides a marker."""
    total = _ZERO
    for y in range(patch.shape[0]):
        for x in range(patch.shape[1]):
            total += abs(patch[y, x])
    return total != 0


@compiled
def _pool(features, pooling, responses):  # type: ignore[no-untyped-def]
    """Average the positive part of the features."""
    for feature in range(len(features)):
        total = _ZERO
        for pixel in range(pooling.shape[1]):
            total += pooling[feature, pixel] * max(features[feature, pixel], _ZERO)
        responses[feature] = total


@compiled
def _pool_back(of_responses, pooling, of_features):  # type: ignore[no-untyped-def]
    """Distribute the gradient of an average over the pixels."""
    for feature in range(len(of_features)):
        for pixel in range(pooling.shape[1]):
            of_features[feature, pixel] = of_responses[feature] * pooling[feature, pixel]


@compiled
def _width(patch, layers):  # type: ignore[no-untyped-def]
    """Width of the features of a patch, with the zero after each line."""
    return patch.shape[-1] // (2 if layers[0].shape[3] == 16 else 1) + 1


@compiled
def _copy(source, target):  # type: ignore[no-untyped-def]
    """Write a row over the beginning of another."""
    for i in range(len(source)):
        target[i] = source[i]


@compiled
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


@compiled
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


@compiled
def _halves(planes, y, width):  # type: ignore[no-untyped-def]
    """Even and odd columns of row `y` of a patch; with the border, they are odd and even ones."""
    plane, first = 2 * ((y + 1) % 2), (y + 1) // 2 * width
    return planes[plane + 1, first:], planes[plane, first + 1 :]


@compiled
def _tap(number, planes, width):  # type: ignore[no-untyped-def]
    """Pixels that a weight of the stem is multiplied by."""
    if len(planes) == 1:
        return planes[0, number // 3 * width + number % 3 :]
    down, along = number // 4, number % 4
    return planes[2 * (down % 2) + along % 2, down // 2 * width + along // 2 :]


@compiled
def _shift(planes, taps, width):  # type: ignore[no-untyped-def]
    """Write the pixels that each weight of the stem is multiplied by into a row."""
    for number in range(len(taps)):
        source = _tap(number, planes, width)
        for i in range(taps.shape[1]):
            taps[number, i] = source[i]


@compiled
def _shift_back(taps, planes, width):  # type: ignore[no-untyped-def]
    """Add rows to the pixels they come from, the adjoint of `_shift`."""
    for number in range(len(taps)):
        target = _tap(number, planes, width)
        for i in range(taps.shape[1]):
            target[i] += taps[number, i]


@compiled
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


@compiled
def _correlate(left, right, total):  # type: ignore[no-untyped-def]
    """Add the products of all pairs of rows: total += left @ right.T."""
    for row in range(len(left)):
        for column in range(len(right)):
            product = _ZERO
            for pixel in range(left.shape[1]):
                product += left[row, pixel] * right[column, pixel]
            total[row, column] += product


@compiled
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


@compiled
def _correlate_shifted(left, right, total, width):  # type: ignore[no-untyped-def]
    """Add the products of a row and a shifted row with a border: the gradient of the weights of `_convolve`."""
    for number in range(9):
        shifted = right[number // 3 * width + number % 3 :]
        product = _ZERO
        for i in range(len(left)):
            product += left[i] * shifted[i]
        total[number] += product


@compiled
def _rectify(rows):  # type: ignore[no-untyped-def]
    """Set negative values to zero."""
    for row in range(len(rows)):
        for pixel in range(rows.shape[1]):
            rows[row, pixel] = max(rows[row, pixel], _ZERO)


@compiled
def _rectify_back(rows, rectified):  # type: ignore[no-untyped-def]
    """Set the gradient to zero where values were set to zero."""
    for row in range(len(rows)):
        for pixel in range(rows.shape[1]):
            rows[row, pixel] = rows[row, pixel] if rectified[row, pixel] > 0 else _ZERO


@compiled
def _clear_border(rows, width):  # type: ignore[no-untyped-def]
    """Set what is after each line and after the last to zero, so that it does not spread."""
    for row in range(len(rows)):
        for y in range(1, width):
            rows[row, y * width - 1] = 0
        rows[row, (width - 1) * width :] = 0
