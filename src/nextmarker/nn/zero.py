"""An image's own zero: what a model responds where nothing but background is, and what rises above it."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nextmarker.nn.encoder import CACHED
from nextmarker.nn.views import Crops, cut_patches, fixed_rotations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nextmarker.nn.model import NeXtMarker

SAMPLE = 2**17
"""Pixels of an image, about, from which its offset is read."""
LOWEST = 1.0
"""Percentile of the pixels of an image that a camera adds to all of them; dead pixels lie below."""
EMPTY = 0.35
"""Quantile of the responses of places all over an image that counts as empty."""
LOW = 0.1
"""Quantile from which up to `EMPTY` the responses tell how noisy empty places are."""
BRIGHT = 0.95
"""Quantile of the signal of cells that counts as bright."""
NOISIEST = 0.9
"""Quantile of the noise of the images that counts for all."""
NOISE = 2.0
"""Standard deviations of empty places below which signal is faint in any case."""


def pixel_offset(pixels: np.ndarray) -> np.ndarray:
    """Estimate the counts that a camera added to every pixel of an image.

    Parameters
    ----------
    pixels
        Raw counts, (..., markers).

    Returns
    -------
    float32 (markers,); 0 where at least one pixel of a hundred is empty, as in images of mass cytometry.

    Examples
    --------
    >>> import numpy as np
    >>> pixel_offset(np.array([[0, 100], [0, 101], [4, 130]]))
    array([  0., 100.], dtype=float32)
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    flat = flat[:: max(len(flat) // SAMPLE, 1)]  # sorting all of them would take longer than reading them
    return np.percentile(flat, LOWEST, axis=0, method="lower").astype(np.float32)


def empty_response(response: Tensor) -> Tensor:
    """Estimate what empty places of an image respond, from places of which some are empty.

    Parameters
    ----------
    response
        Of places all over the image, (places, markers, features). A marker may be bright in up to about two thirds.

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
    """Estimate the standard deviation of the mean response of empty places, from the places below the zero.

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


def faint_signal(signal: Tensor, noise: Tensor, share: float) -> Tensor:
    """Choose below which signal of each marker is faint: a share of its bright signal, but not below the noise.

    Parameters
    ----------
    signal
        Response above the zero, of cells of all images, (cells, markers, features).
    noise
        `noise_of_empty` of every image, (images, markers). The noisiest images decide, so that the scale is common.
    share
        `NetworkConfig.log_threshold`.

    Returns
    -------
    (markers,), positive.
    """
    bright = signal.mean(2).quantile(BRIGHT, dim=0)
    return torch.maximum(share * bright, NOISE * noise.quantile(NOISIEST, dim=0, interpolation="higher")).clamp(
        min=1e-4
    )


@torch.no_grad()
def set_scale(model: NeXtMarker, sample: Callable[[], Sequence[Crops]]) -> None:
    """Set the scale of a model: which signal of each marker is faint, in a sample of the cells of all images."""
    network = model.config.network
    if network.log_threshold is None:
        return
    cells, noise = [], []
    for crop in sample():
        response, places = respond_at(model, crop), respond_at(model, crop.at_places())
        cells.append(torch.relu(response - empty_response(places)) if network.zero else response)
        noise.append(noise_of_empty(places))
    model.threshold.copy_(faint_signal(torch.cat(cells), torch.stack(noise), network.log_threshold))


def respond_at(model: NeXtMarker, crops: Crops) -> Tensor:
    """Response at the centres of a tile, each in one rotation, (cells, markers, features)."""
    return torch.cat([model.respond(patches) for patches in cut_turned(crops, model.config.patch_size)])


def cut_turned(crops: Crops, size: int) -> Iterator[Tensor]:
    """Cut the patches of a tile, each in one of four rotations, (up to `CACHED`, markers, size, size) at a time."""
    turns = fixed_rotations(4).to(crops.pixels.device)
    for numbers in torch.arange(len(crops.centres), device=crops.centres.device).split(CACHED):
        yield cut_patches(replace(crops, centres=crops.centres[numbers]), size, turns[numbers % 4])
