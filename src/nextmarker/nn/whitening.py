"""Whitening: features that vary between augmented views of the same cell get a small weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nextmarker.nn.training import interpret_views, random_views, resample
from nextmarker.nn.zero import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker.nn.model import NeXtMarker
    from nextmarker.nn.patches import CellTile
    from nextmarker.nn.training import TrainingConfig

VIEWS = 6
"""Views of each cell from which the weights are computed."""
BACKGROUND = 2.0
"""Counts as in empty places of the image are added to a view, for each marker up to so many times as many."""
RIDGE = 0.3
"""Fraction of the mean variance that is added to every direction, so that none without variance gets all the weight."""


@torch.no_grad()
def whiten_features(
    model: NeXtMarker, tiles: Sequence[CellTile], training: TrainingConfig, *, generator: torch.Generator
) -> None:
    """Fold the whitening of each marker's features into the crosstalk of a trained model, in place.

    Views of a cell differ in size, rotation, surroundings and background; unlike in training, all have the same
    brightness, and no marker is hidden. Directions of I in which they differ get a small weight in F, directions in
    which they agree a large one (relevant component analysis, Bar-Hillel et al., 2005). Only features of the same
    marker are weighted against each other; the weight of one marker relative to another does not change. F stays linear
    in I.

    Parameters
    ----------
    tiles
        Some cells of all images, with places.
    """
    size, shown = model.config.patch_size, replace(training, intensity_scaling=(1.0, 1.0), marker_dropout=0.0)
    views, gains = map(list, zip(*(random_views(tiles, size, shown, generator) for _ in range(VIEWS)), strict=True))
    if model.config.network.zero:
        rate = background_rate(tiles, size, shown, generator)
        views = [add_background(view, rate, generator) for view in views]
    gain = torch.stack([each[..., 0, 0] for each in gains], 1)  # (cells, views, markers)
    features = interpret_views(model, tiles, views, gain, size, shown, generator).unflatten(0, (VIEWS, -1))
    weights = whitening(features).to(features.dtype)  # (markers, features, features)
    crosstalk = model.crosstalk_by_marker() @ weights  # (markers, embedding, features)
    model.crosstalk.weight.copy_(crosstalk.transpose(0, 1).flatten(1))


def background_rate(
    tiles: Sequence[CellTile], size: int, training: TrainingConfig, generator: torch.Generator
) -> Tensor:
    """Estimate the counts per pixel in empty places of the image of each cell, (cells, markers)."""
    rates = []
    for tile in tiles:
        places = resample(tile.at_places(), size, training, generator).mean((2, 3))  # (places, markers)
        rates.append(places.quantile(EMPTY, dim=0).expand(len(tile.centres), -1))
    return torch.cat(rates)


def add_background(view: Tensor, rate: Tensor, generator: torch.Generator) -> Tensor:
    """Add random counts to a view, (cells, markers, height, width), at 0 to `BACKGROUND` times the rate."""
    factor = BACKGROUND * torch.rand(rate.shape, generator=generator)
    mean = (factor * rate.cpu())[..., None, None].expand(view.shape)
    return view + torch.poisson(mean.contiguous(), generator).to(view.device)


def whitening(views: Tensor) -> Tensor:
    """Compute the matrix that whitens the features of each marker.

    Parameters
    ----------
    views
        I of the views, (views, cells, markers, features).

    Returns
    -------
    Symmetric, float64 (markers, features, features). It whitens the differences between views of a cell and keeps the
    variance between cells, summed over the features of a marker. The identity for a marker without signal.
    """
    views = views.double()
    cells = views.mean(0)  # (cells, markers, features)
    within, between = _covariance(views - cells), _covariance(cells - cells.mean(0))
    variance, directions = torch.linalg.eigh(within)
    ridge = RIDGE * variance.mean(-1, keepdim=True).clamp(min=1e-12)
    weights = (directions / (variance.clamp(min=0) + ridge).sqrt()[:, None]) @ directions.mT
    before, after = (matrix.diagonal(dim1=1, dim2=2).sum(1) for matrix in (between, weights @ between @ weights))
    scale = torch.where(after > 0, (before / after).sqrt(), 0.0)[:, None, None]
    identity = torch.eye(views.shape[-1], dtype=views.dtype, device=views.device)
    return torch.where(scale > 0, scale * weights, identity)


def _covariance(deviations: Tensor) -> Tensor:
    """Covariance of the features of each marker, from deviations (..., markers, features)."""
    flat = deviations.flatten(0, -3)
    return torch.einsum("nmf,nmg->mfg", flat, flat) / len(flat)
