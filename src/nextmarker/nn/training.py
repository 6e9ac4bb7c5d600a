"""Training by contrast: the training, the schedule and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nextmarker.nn.encoder import CACHED
from nextmarker.nn.loss import nt_xent
from nextmarker.nn.model import MIN_PATCH_SIZE, NeXtMarker, check_fields, is_whole
from nextmarker.nn.normalization import Penalty
from nextmarker.nn.views import Crops, cut_patches, random_gains, random_transforms, swap_surroundings
from nextmarker.nn.zero import empty_response

Draw = Callable[[int], Sequence[Crops]]
"""Draws that many cells at random, grouped by the tile they lie in."""

PROJECTION = 128
"""Length of the projections that are contrasted, as in SimCLR."""


@dataclass(frozen=True)
class TrainingConfig:
    """How a model is trained.

    Examples
    --------
    >>> TrainingConfig(steps=500).steps
    500
    """

    steps: int = 200
    """Number of steps."""
    batch_size: int = 256
    """Cells per step (paper: 1,024)."""
    views: int = 2
    """Views per cell and patch size."""
    patch_scales: tuple[float, ...] = (1.0,)
    """Patch sizes of the views, as shares of the patch size (paper: 10, 8 and 6 px, so 1.0, 0.8 and 0.6)."""
    intensity_scaling: tuple[float, float] = (0.5, 2.0)
    """Range of the factor on the raw counts of each marker."""
    size_scaling: tuple[float, float] = (0.66, 1.5)
    """Range of the factor on the size of a cell."""
    marker_dropout: float = 0.3
    """Share of the markers that a view hides, so that what markers have in common counts (paper: none)."""
    swap_surroundings: bool = True
    """Show each cell in the surroundings of another cell of its image, so that cells of one type are not told apart by
    their neighbours (paper: in its own)."""
    whiten_features: bool = True
    """After training, give little weight in F to what changes between views of one cell (paper: no)."""
    batch_by_image: bool = True
    """Fill a step from one field of an image, then the next, so that staining tells no cells apart. Fields lead equally
    often, whatever their number of cells, so that large images count no more than small ones (paper: all mixed)."""
    temperature: float = 0.5
    """Temperature of NT-Xent."""
    learning_rate: float = 1e-3
    """Highest learning rate of Adam."""
    final_learning_rate: float = 1e-4
    """Learning rate of the last steps."""
    warmup: float = 1 / 12
    """Share of the steps in which the learning rate rises (paper: 100 of 1,200)."""
    cooldown: float = 1 / 12
    """Share of the steps at the final learning rate (paper: 100 of 1,200)."""
    penalty: Penalty = "relative"
    """Penalty on the sigmoids: `"paper"` for Eq. 2 as printed."""
    sigmoid_start: float = 0.5
    """Where the sigmoids start, as a share of the 90th percentile of a marker's nonzero pixels (paper: 0.5)."""

    def __post_init__(self) -> None:
        at_least_two_views = is_whole(self.views, 1) and self.views * len(self.patch_scales) >= 2
        check_fields(
            self,
            steps=(is_whole(self.steps, 1), "a whole number, at least 1"),
            batch_size=(
                is_whole(self.batch_size, 2),
                "a whole number, at least 2: a cell is told from the others of its batch",
            ),
            patch_scales=(
                bool(self.patch_scales) and all(0 < scale <= 1 for scale in self.patch_scales),
                "one share or more, above 0 and up to 1",
            ),
            views=(at_least_two_views, "a whole number, at least 2, or 1 with several patch_scales"),
            intensity_scaling=(_is_range(self.intensity_scaling), "a range (low, high) of positive factors"),
            size_scaling=(_is_range(self.size_scaling), "a range (low, high) of positive factors"),
            marker_dropout=(0 <= self.marker_dropout < 1, "a share of the markers, from 0 to less than 1"),
            temperature=(self.temperature > 0, "positive"),
            learning_rate=(self.learning_rate > 0, "positive"),
            final_learning_rate=(self.final_learning_rate >= 0, "0 or more"),
            warmup=(0 <= self.warmup <= 1, "a share of the steps, from 0 to 1"),
            cooldown=(
                0 <= self.cooldown <= 1 - self.warmup,
                "a share of the steps, from 0 to 1, with warmup at most 1",
            ),
            penalty=(self.penalty in get_args(Penalty), f"one of {list(get_args(Penalty))}"),
            sigmoid_start=(self.sigmoid_start > 0, "positive"),
        )


def _is_range(bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return 0 < low <= high < math.inf


def learning_rate(step: int, training: TrainingConfig) -> float:
    """Learning rate of one step, counted from 0: a linear warmup, a cosine, a constant cooldown."""
    warmup, cooldown = round(training.warmup * training.steps), round(training.cooldown * training.steps)
    peak, final = training.learning_rate, training.final_learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(training.steps - warmup - cooldown, 1), 1.0)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


def projection_head(embedding: int) -> nn.Sequential:
    """The head that only training uses, as in SimCLR."""
    return nn.Sequential(
        nn.Linear(embedding, embedding), nn.BatchNorm1d(embedding), nn.ReLU(), nn.Linear(embedding, PROJECTION)
    )


def view_sizes(patch_size: int, training: TrainingConfig) -> list[int]:
    """Sides of the views in pixels, one for each patch scale."""
    return [max(round(patch_size * scale), MIN_PATCH_SIZE) for scale in training.patch_scales]


def random_views(
    crops: Sequence[Crops], size: int, training: TrainingConfig, seed: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One view of every cell: resampled, set into other surroundings, then its raw counts scaled or hidden.

    Returns
    -------
    Counts, (cells, markers, size, size), and the factors that are in them, (cells, markers, 1, 1).
    """
    view = torch.cat([_resample(crop, size, training, seed) for crop in crops])
    if training.swap_surroundings:  # tile by tile, since the background of images differs
        tiles = view.split([len(crop.centres) for crop in crops])
        view = torch.cat([swap_surroundings(tile, seed) for tile in tiles])
    cells, markers = len(view), view.shape[1]
    gains = random_gains(cells, markers, training.intensity_scaling, training.marker_dropout, seed).to(view.device)
    return view * gains, gains


def _resample(crop: Crops, size: int, training: TrainingConfig, seed: torch.Generator) -> Tensor:
    transforms = random_transforms(len(crop.centres), training.size_scaling, seed)
    return cut_patches(crop, size, transforms.to(crop.pixels.device))


@torch.no_grad()
def zeros_of_views(
    model: NeXtMarker, crops: Sequence[Crops], size: int, gains: Tensor, training: TrainingConfig, seed: torch.Generator
) -> Tensor:
    """What empty places would respond in the views of cells, had their counts been scaled by the same factors.

    They are seen through the lowest and the highest factor and the one in the middle. Between these the zero is
    interpolated on the logarithm of the factor; of a hidden marker it is zero.

    Parameters
    ----------
    gains
        Factors of any number of views, (cells, views, markers).

    Returns
    -------
    (cells, views, markers, features).
    """
    low, high = (math.log(bound) for bound in training.intensity_scaling)
    factors = [math.exp(low), math.exp((low + high) / 2), math.exp(high)]
    zeros = []
    for crop, gain in zip(crops, gains.split([len(crop.centres) for crop in crops]), strict=True):
        places = _resample(crop.at_places(), size, training, seed)
        known = torch.stack([empty_response(model.respond(places * factor)) for factor in factors])
        position = (2 * (gain.log() - low) / max(high - low, 1e-6)).clamp(0, 2)  # among the factors; 0 if hidden
        below = position.long().clamp(max=1)
        marker = torch.arange(gain.shape[-1], device=gain.device).expand_as(gain)
        zero = torch.lerp(known[below, marker], known[below + 1, marker], (position - below)[..., None])
        zeros.append(zero * (gain > 0)[..., None])
    return torch.cat(zeros)


def interpret_views(
    model: NeXtMarker,
    crops: Sequence[Crops],
    views: Sequence[Tensor],
    gains: Tensor,
    size: int,
    training: TrainingConfig,
    seed: torch.Generator,
) -> Tensor:
    """I of views of the same cells, each above its own zero.

    Parameters
    ----------
    views
        Counts of each view, (cells, markers, size, size).
    gains
        Factors that are in them, (cells, views, markers).

    Returns
    -------
    (views * cells, markers, features), one view after the other.
    """
    chunk = CACHED if gains.device.type == "cpu" else len(views) * len(gains)
    response = torch.cat([model.respond(part) for part in torch.cat([*views]).split(chunk)])
    if not model.config.network.zero:
        return model.interpret(response)
    zero = zeros_of_views(model, crops, size, gains, training, seed)
    return model.interpret(response, zero.transpose(0, 1).flatten(0, 1))


def fit(
    model: NeXtMarker, draw: Draw, training: TrainingConfig, *, seed: torch.Generator, progress: bool
) -> np.ndarray:
    """Train a model in place.

    Returns
    -------
    NT-Xent of every step, float64 (steps,), without the penalty that training adds to it.

    Raises
    ------
    ValueError
        If the loss of a step is not finite.
    """
    device = model.crosstalk.weight.device
    head = projection_head(model.config.network.embedding).to(device)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], training.learning_rate)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    losses = []
    bar = tqdm(range(training.steps), desc="training", unit="step", disable=not progress)
    for step in bar:
        crops = draw(training.batch_size)
        projections: list[Tensor] = []
        for size in view_sizes(model.config.patch_size, training):
            views = [random_views(crops, size, training, seed) for _ in range(training.views)]
            gains = torch.stack([gains.flatten(1) for _, gains in views], 1)
            counts = [counts for counts, _ in views]
            interpretability = interpret_views(model, crops, counts, gains, size, training, seed)
            embedding = model.crosstalk(interpretability.flatten(1))
            projections += head(embedding).chunk(training.views)
        contrast = nt_xent(torch.stack(projections, 1), training.temperature)
        loss = contrast + model.normalization.penalty(training.penalty)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):  # a GPU too gives the same model again
            loss.backward()
        optimizer.step()
        _check_finite(loss.item(), step, training)
        losses.append(contrast.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return np.array(losses)


def _check_finite(loss: float, step: int, training: TrainingConfig) -> None:
    if not math.isfinite(loss):
        rate = training.learning_rate
        msg = (
            f"Training failed: the loss of step {step + 1} is {loss}. Lower the learning rate, which is {rate:g}, for "
            f"example nm.nn.TrainingConfig(learning_rate={rate / 10:g})."
        )
        raise ValueError(msg)
