"""Contrastive training: configuration, learning rate schedule and training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from nextmarker._progress import progress_bar
from nextmarker.nn.device import patches_at_once, reproducible
from nextmarker.nn.loss import nt_xent
from nextmarker.nn.model import MIN_PATCH_SIZE, NeXtMarker, check_fields, is_integer
from nextmarker.nn.normalization import Penalty
from nextmarker.nn.patches import CellTile, cut_patches, random_gains, random_transforms, swap_surroundings
from nextmarker.nn.training_state import Kept, TrainingState
from nextmarker.nn.zero import empty_response

Draw = Callable[[int], Sequence[CellTile]]
"""Draws a number of cells at random, grouped by tile."""

PROJECTION = 128
"""Length of the projections that the loss compares, as in SimCLR."""


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
    """Views of each cell at each patch size."""
    patch_scales: tuple[float, ...] = (1.0,)
    """Sizes of the views, as fractions of the patch size (paper: 10, 8 and 6 px, that is 1.0, 0.8 and 0.6)."""
    intensity_scaling: tuple[float, float] = (0.5, 2.0)
    """Range of the random factor for the raw counts of each marker."""
    size_scaling: tuple[float, float] = (0.66, 1.5)
    """Range of the random factor for the size of a cell."""
    marker_dropout: float = 0.3
    """Fraction of markers hidden in a view, so that the model learns which markers go together (paper: 0)."""
    swap_surroundings: bool = True
    """Replace the surroundings of each cell by those of another cell of its image. Otherwise cells of one type could be
    distinguished by their neighbours (paper: False)."""
    whiten_features: bool = True
    """After training, give a small weight in F to features that vary between views of the same cell (paper: False)."""
    batch_by_image: bool = True
    """Fill a batch with cells of one window of an image, then of the next, so that the staining of an image cannot be
    used to distinguish cells. Every window is used equally often, so an image counts by its area, not by its number of
    cells (paper: False, cells of all images are mixed)."""
    temperature: float = 0.5
    """Temperature of NT-Xent."""
    learning_rate: float = 1e-3
    """Maximum learning rate of Adam."""
    final_learning_rate: float = 1e-4
    """Learning rate at the end."""
    warmup: float = 1 / 12
    """Fraction of the steps in which the learning rate rises to its maximum (paper: 100 of 1,200 steps)."""
    cooldown: float = 1 / 12
    """Fraction of the steps at the final learning rate (paper: 100 of 1,200 steps)."""
    penalty: Penalty = "relative"
    """Penalty on implausible sigmoids, see `Normalization.penalty` (paper: `"paper"`, Eq. 2 as printed)."""
    sigmoid_start: float = 0.5
    """Initial centre of a sigmoid, as a fraction of the 90th percentile of the nonzero pixels (paper: 0.5)."""

    def __post_init__(self) -> None:
        at_least_two_views = is_integer(self.views, 1) and self.views * len(self.patch_scales) >= 2
        check_fields(
            self,
            steps=(is_integer(self.steps, 1), "an integer, at least 1"),
            batch_size=(
                is_integer(self.batch_size, 2),
                "an integer, at least 2: each cell is compared with the others of its batch",
            ),
            patch_scales=(
                bool(self.patch_scales) and all(0 < scale <= 1 for scale in self.patch_scales),
                "one or more fractions, above 0 and at most 1",
            ),
            views=(at_least_two_views, "an integer, at least 2, or 1 with several patch_scales"),
            intensity_scaling=(_is_range(self.intensity_scaling), "a range (low, high) of positive factors"),
            size_scaling=(_is_range(self.size_scaling), "a range (low, high) of positive factors"),
            marker_dropout=(0 <= self.marker_dropout < 1, "a fraction, at least 0 and below 1"),
            temperature=(self.temperature > 0, "positive"),
            learning_rate=(self.learning_rate > 0, "positive"),
            final_learning_rate=(self.final_learning_rate >= 0, "0 or more"),
            warmup=(0 <= self.warmup <= 1, "a fraction of the steps, from 0 to 1"),
            cooldown=(
                0 <= self.cooldown <= 1 - self.warmup,
                "a fraction of the steps, and warmup + cooldown at most 1",
            ),
            penalty=(self.penalty in get_args(Penalty), f"one of {list(get_args(Penalty))}"),
            sigmoid_start=(self.sigmoid_start > 0, "positive"),
        )


def _is_range(bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return 0 < low <= high < math.inf


def learning_rate(step: int, training: TrainingConfig) -> float:
    """Learning rate of a step, counted from 0: it rises linearly, falls as a cosine, and stays at its final value."""
    warmup, cooldown = round(training.warmup * training.steps), round(training.cooldown * training.steps)
    peak, final = training.learning_rate, training.final_learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = min((step - warmup) / max(training.steps - warmup - cooldown, 1), 1.0)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


def projection_head(embedding: int) -> nn.Sequential:
    """Make the head that is used in training only, as in SimCLR."""
    return nn.Sequential(
        nn.Linear(embedding, embedding), nn.BatchNorm1d(embedding), nn.ReLU(), nn.Linear(embedding, PROJECTION)
    )


def view_sizes(patch_size: int, training: TrainingConfig) -> list[int]:
    """Widths of the views in pixels, one for each patch scale."""
    return [max(round(patch_size * scale), MIN_PATCH_SIZE) for scale in training.patch_scales]


def random_views(
    tiles: Sequence[CellTile], size: int, training: TrainingConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw one view of every cell: resample it, swap its surroundings, then scale or hide its markers.

    Returns
    -------
    Counts, (cells, markers, size, size), and the factors they were multiplied by, (cells, markers, 1, 1).
    """
    view = torch.cat([resample(tile, size, training, generator) for tile in tiles])
    if training.swap_surroundings:  # within each tile, since the background of images differs
        view = torch.cat([swap_surroundings(part, generator) for part in view.split(_sizes(tiles))])
    cells, markers = len(view), view.shape[1]
    gains = random_gains(cells, markers, training.intensity_scaling, training.marker_dropout, generator)
    gains = gains.to(view.device)
    return view * gains, gains


def resample(tile: CellTile, size: int, training: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Cut a patch around each cell of a tile, rotated, scaled and flipped at random, (cells, markers, size, size)."""
    transforms = random_transforms(len(tile.centres), training.size_scaling, generator)
    return cut_patches(tile, size, transforms.to(tile.pixels.device))


def _sizes(tiles: Sequence[CellTile]) -> list[int]:
    """Number of cells of each tile."""
    return [len(tile.centres) for tile in tiles]


@torch.no_grad()
def zeros_of_views(
    model: NeXtMarker,
    tiles: Sequence[CellTile],
    size: int,
    gains: Tensor,
    training: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Estimate the response to empty places whose counts are multiplied by the same factors as the views.

    The response is computed for the lowest, the highest and the middle factor, and interpolated between them on the
    logarithm of the factor. For a hidden marker it is zero.

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
    for tile, gain in zip(tiles, gains.split(_sizes(tiles)), strict=True):
        places = resample(tile.at_places(), size, training, generator)
        known = torch.stack([empty_response(model.respond(places * factor)) for factor in factors])
        position = (2 * (gain.log() - low) / max(high - low, 1e-6)).clamp(0, 2)  # among the factors; 0 if hidden
        below = position.long().clamp(max=1)
        marker = torch.arange(gain.shape[-1], device=gain.device).expand_as(gain)
        zero = torch.lerp(known[below, marker], known[below + 1, marker], (position - below)[..., None])
        zeros.append(zero * (gain > 0)[..., None])
    return torch.cat(zeros)


def interpret_views(
    model: NeXtMarker,
    tiles: Sequence[CellTile],
    views: Sequence[Tensor],
    gains: Tensor,
    size: int,
    training: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Compute I of views of the same cells, each relative to its own zero.

    Parameters
    ----------
    views
        Counts of each view, (cells, markers, size, size).
    gains
        Factors they were multiplied by, (cells, views, markers).

    Returns
    -------
    (views * cells, markers, features), all cells of the first view first.
    """
    parts = torch.cat([*views]).split(patches_at_once(gains.device))
    response = torch.cat([model.respond(part) for part in parts])
    if not model.config.network.zero:
        return model.interpret(response)
    zero = zeros_of_views(model, tiles, size, gains, training, generator)
    return model.interpret(response, zero.transpose(0, 1).flatten(0, 1))


def fit(
    model: NeXtMarker,
    draw: Draw,
    training: TrainingConfig,
    *,
    generator: torch.Generator,
    progress: bool,
    kept: Kept | None = None,
) -> np.ndarray:
    """Train a model in place.

    Parameters
    ----------
    kept
        Keeps the state between steps; a state that it has is continued.

    Returns
    -------
    NT-Xent loss of every step, float64 (steps,), without the penalty on the sigmoids.

    Raises
    ------
    ValueError
        If the loss becomes infinite or NaN.
    """
    device = model.crosstalk.weight.device
    head = projection_head(model.config.network.embedding).to(device)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], training.learning_rate)
    model.train()
    state = TrainingState(model, head, optimizer, generator, [])
    if kept is not None:
        kept.restore(state)
    with progress_bar(training.steps, "training", "step", shown=progress) as bar:
        bar.update(len(state.losses))
        for step in range(len(state.losses), training.steps):
            state.losses.append(_step(state, draw, step, training))
            if kept is not None:
                kept.after_step(state)
            bar.set_postfix(loss=f"{state.losses[-1]:.3f}", refresh=False)
            bar.update()
    model.eval()
    return np.array(state.losses)


def _step(state: TrainingState, draw: Draw, step: int, training: TrainingConfig) -> float:
    """Do a step of the training, and return its NT-Xent loss."""
    model, optimizer = state.model, state.optimizer
    tiles = draw(training.batch_size)
    projections: list[Tensor] = []
    for size in view_sizes(model.config.patch_size, training):
        views = [random_views(tiles, size, training, state.generator) for _ in range(training.views)]
        gains = torch.stack([gains.flatten(1) for _, gains in views], 1)
        counts = [counts for counts, _ in views]
        interpretability = interpret_views(model, tiles, counts, gains, size, training, state.generator)
        embedding = model.crosstalk(interpretability.flatten(1))
        projections += state.head(embedding).chunk(training.views)
    contrast = nt_xent(torch.stack(projections, 1), training.temperature)
    loss = contrast + model.normalization.penalty(training.penalty)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, training)
    optimizer.zero_grad()
    with reproducible():
        loss.backward()
    optimizer.step()
    _check_finite(loss.item(), step, training)
    return contrast.item()


def _check_finite(loss: float, step: int, training: TrainingConfig) -> None:
    if not math.isfinite(loss):
        rate = training.learning_rate
        msg = (
            f"Training failed: the loss of step {step + 1} is {loss}. Lower the learning rate: "
            f"nm.nn.TrainingConfig(learning_rate={rate / 10:g})."
        )
        raise ValueError(msg)
