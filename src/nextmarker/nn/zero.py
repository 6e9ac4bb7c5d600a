"""The zero of an image, the response of a model to empty places, and the scale of the signal above it."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nextmarker.nn.device import patches_at_once
from nextmarker.nn.patches import CellTile, cut_patches, fixed_rotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nextmarker.nn.model import NeXtMarker

SAMPLE = 2**17
"""Approximate number of pixels of an image from which its offset is estimated."""
LOWEST = 1.0
"""Percentile of the pixels of an image that is taken as the offset of the camera; dead pixels lie below."""
EMPTY = 0.35
"""Quantile of the responses of places in an image that is taken as the response to empty places."""
LOW = 0.1
"""The noise of empty places is estimated from the responses between this quantile and `EMPTY`."""
BRIGHT = 0.95
"""Quantile of the signal of cells that counts as bright."""
NOISIEST = 0.9
"""Quantile over images of their noise that is used for all images."""
NOISE = 2.0
"""Lowest threshold, in standard deviations of empty places."""


def pixel_offset(pixels: np.ndarray) -> np.ndarray:
    """Estimate the counts that the camera added to every pixel of an image.

    Parameters
    ----------
    pixels
        Raw counts, (..., markers).

    Returns
    -------
    float32 (markers,); 0 if at least 1 % of the pixels are zero, as in imaging mass cytometry.

    Examples
    --------
    >>> import numpy as np
    >>> pixel_offset(np.array([[0, 100], [0, 101], [4, 130]]))
    array([  0., 100.], dtype=float32)
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    flat = flat[:: max(len(flat) // SAMPLE, 1)]  # sorting all pixels would take longer than reading them
    return np.percentile(flat, LOWEST, axis=0, method="lower").astype(np.float32)


def empty_response(response: Tensor) -> Tensor:
    """Estimate the response to empty places of an image from random places, some of which are empty.

    Parameters
    ----------
    response
        Response to random places, (places, markers, features). A marker may be bright in up to about two thirds.

    Returns
    -------
    (markers, features).

    Examples
    --------
    >>> import torch
    >>> empty_response(torch.tensor([0.1, 0.1, 0.9, 0.1, 0.8]).reshape(5, 1, 1))
    tensor([[0.1000]])
    """
    return response.quantile(EMPTY, dim=0)


def noise_of_empty(response: Tensor) -> Tensor:
    """Estimate the standard deviation of the mean response to empty places from the places below the zero.

    Parameters
    ----------
    response
        As of `empty_response`.

    Returns
    -------
    (markers,).
    """
    low, high = response.mean(2).quantile(torch.tensor([LOW, EMPTY], device=response.device), dim=0)
    return (high - low) / (NormalDist().inv_cdf(EMPTY) - NormalDist().inv_cdf(LOW))


def log_thresholds(signal: Tensor, noise: Tensor, fraction: float) -> Tensor:
    """Choose the signal of each marker above which I is log-compressed: a fraction of its bright signal, above noise.

    Parameters
    ----------
    signal
        Response minus zero, of cells of all images, (cells, markers, features).
    noise
        `noise_of_empty` of every image, (images, markers). The noisiest images decide, since the scale is common.
    fraction
        `NetworkConfig.log_threshold`.

    Returns
    -------
    (markers,), positive.
    """
    bright = signal.mean(2).quantile(BRIGHT, dim=0)
    noisiest = noise.quantile(NOISIEST, dim=0, interpolation="higher")
    return torch.maximum(fraction * bright, NOISE * noisiest).clamp(min=1e-4)


@torch.no_grad()
def set_scale(model: NeXtMarker, sample: Callable[[], Sequence[CellTile]]) -> None:
    """Set the thresholds of a model from a sample of the cells of all images, in place."""
    network = model.config.network
    if network.log_threshold is None:
        return
    cells, noise = [], []
    for tile in sample():
        response, places = respond_at(model, tile), respond_at(model, tile.at_places())
        cells.append(torch.relu(response - empty_response(places)) if network.zero else response)
        noise.append(noise_of_empty(places))
    model.threshold.copy_(log_thresholds(torch.cat(cells), torch.stack(noise), network.log_threshold))


def respond_at(model: NeXtMarker, tile: CellTile) -> Tensor:
    """Compute the response to the cells of a tile, each in one rotation, (cells, markers, features)."""
    return torch.cat([model.respond(patches) for patches in cut_turned(tile, model.config.patch_size)])


def cut_turned(tile: CellTile, size: int) -> Iterator[Tensor]:
    """Cut the patches of a tile, each in one of four rotations, (cells, markers, size, size), some at a time."""
    turns = fixed_rotations(4).to(tile.pixels.device)
    for numbers in torch.arange(len(tile.centres), device=tile.centres.device).split(
        patches_at_once(tile.pixels.device)
    ):
        yield cut_patches(replace(tile, centres=tile.centres[numbers]), size, turns[numbers % 4])
