"""The activation of a marker: the weights by which one number is read from its features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from nextmarker.nn.encoder import gaussian
from nextmarker.nn.model import log_scale
from nextmarker.nn.zero import cut_turned, empty_response, log_thresholds, noise_of_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nextmarker.nn.model import NeXtMarker
    from nextmarker.nn.patches import CellTile

CENTRE = 0.2
"""Standard deviation of the Gaussian weights of the pixels that count as the cell, as a fraction of the patch width."""


@torch.no_grad()
def set_activation(model: NeXtMarker, sample: Callable[[], Sequence[CellTile]]) -> None:
    """Set the weights of the activation of a trained model from a sample of the cells of all images, in place.

    Some features follow the amount of a marker in a cell, others where it lies or what surrounds the cell, so their
    mean says little about the amount. The weights are those with which the features predict it best. The amount is the
    mean signal of the pixels (Eq. 1), weighted to the centre of the patch, above that of empty places of the image, on
    the scale of I.
    """
    zero = model.config.network.zero
    features, amounts, noise = [], [], []
    for tile in sample():
        (response, amount), (empty, none) = (_respond(model, each) for each in (tile, tile.at_places()))
        features.append(model.interpret(response, empty_response(empty) if zero else None))
        amounts.append(F.relu(amount - empty_response(none)) if zero else amount)
        noise.append(noise_of_empty(none))
    on_scale = _on_scale(torch.cat(amounts), torch.stack(noise), model.config.network.log_threshold)
    model.activation_weights.copy_(activation_weights(torch.cat(features), on_scale))


def _respond(model: NeXtMarker, tile: CellTile) -> tuple[Tensor, Tensor]:
    """Compute the response to the cells of a tile, and the mean signal of their pixels, (cells, markers, 1)."""
    responses, signals = [], []
    for patches in cut_turned(tile, model.config.patch_size):
        responses.append(model.respond(patches))
        signal = model.normalization.signal(patches)  # (cells, markers, height, width)
        signals.append((signal * gaussian(signal.shape[-1], signal.new_tensor([CENTRE]))).sum((2, 3))[..., None])
    return torch.cat(responses), torch.cat(signals)


def _on_scale(amounts: Tensor, noise: Tensor, log_threshold: float | None) -> Tensor:
    """Put amounts, (cells, markers, 1), on the scale of I, (cells, markers)."""
    if log_threshold is None:
        return amounts[..., 0]
    return log_scale(amounts, log_thresholds(amounts, noise, log_threshold), log_threshold)[..., 0]


def activation_weights(features: Tensor, amounts: Tensor) -> Tensor:
    """Fit the amount of each marker by its features, by nonnegative least squares.

    Parameters
    ----------
    features
        I, (cells, markers, features).
    amounts
        (cells, markers).

    Returns
    -------
    (markers, features), never negative. A marker without signal has equal weights, with sum 1.

    Examples
    --------
    >>> import torch
    >>> features = torch.tensor([[[0.0, 2.0]], [[0.5, 1.0]], [[1.0, 3.0]]])  # the first follows the amount
    >>> activation_weights(features, torch.tensor([[0.0], [1.0], [2.0]]))
    tensor([[2., 0.]])
    """
    markers, width = features.shape[1:]
    weights = np.stack(
        [nnls(features[:, marker].double().cpu(), amounts[:, marker].double().cpu())[0] for marker in range(markers)]
    )
    weights[weights.sum(1) == 0] = 1 / width
    return torch.from_numpy(weights).to(features)
