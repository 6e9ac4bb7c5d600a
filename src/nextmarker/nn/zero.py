"""An image's own zero: what a model responds where nothing but background is, and what rises above it."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

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
        `Network.faint`.

    Returns
    -------
    (markers,), positive.
    """
    bright = signal.mean(2).quantile(BRIGHT, dim=0)
    return torch.maximum(share * bright, NOISE * noise.quantile(NOISIEST, dim=0, interpolation="higher")).clamp(
        min=1e-4
    )
