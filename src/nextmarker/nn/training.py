"""Training by contrast: the settings, the schedule and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from nextmarker.nn.loss import nt_xent
from nextmarker.nn.model import MIN_PATCH_SIZE, NeXtMarker, check_fields, is_whole
from nextmarker.nn.normalization import Penalty
from nextmarker.nn.views import Crops, cut_patches, random_gains, random_transforms

Draw = Callable[[int], Sequence[Crops]]
"""Draws that many cells at random, grouped by the tile they lie in."""


CACHED = 64
"""Patches that go through the encoder together on a CPU: few enough for its caches, or a step takes twice as long."""
PROJECTION = 128
"""Length of the projections that are contrasted, as in SimCLR."""


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Examples
    --------
    >>> Settings(steps=500).steps
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
    hidden_markers: float = 0.3
    """Share of the markers that a view hides, so that what markers have in common counts (paper: none)."""
    within_images: bool = True
    """Fill a step from one field of an image, then the next, so that staining tells no cells apart. Fields lead equally
    often, whatever their number of cells, so that large images count no more than small ones (paper: all mixed)."""
    temperature: float = 0.5
    """Temperature of NT-Xent."""
    learning_rate: float = 1e-3
    """Highest learning rate of Adam."""
    final_learning_rate: float = 1e-4
    """Learning rate of the last steps."""
    ramp: float = 1 / 12
    """Share of the steps in which the learning rate rises (paper: 100 of 1,200)."""
    tail: float = 1 / 12
    """Share of the steps at the final learning rate (paper: 100 of 1,200)."""
    penalty: Penalty = "relative"
    """Penalty on the sigmoids: `"paper"` for Eq. 2 as printed."""
    start: float = 0.125
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
            hidden_markers=(0 <= self.hidden_markers < 1, "a share of the markers, from 0 to less than 1"),
            temperature=(self.temperature > 0, "positive"),
            learning_rate=(self.learning_rate > 0, "positive"),
            final_learning_rate=(self.final_learning_rate >= 0, "0 or more"),
            ramp=(0 <= self.ramp <= 1, "a share of the steps, from 0 to 1"),
            tail=(0 <= self.tail <= 1 - self.ramp, "a share of the steps, from 0 to 1, with ramp at most 1"),
            penalty=(self.penalty in get_args(Penalty), f"one of {list(get_args(Penalty))}"),
            start=(self.start > 0, "positive"),
        )


def _is_range(bounds: tuple[float, float]) -> bool:
    low, high = bounds
    return 0 < low <= high < math.inf


def learning_rate(step: int, settings: Settings) -> float:
    """Learning rate of one step, counted from 0: a linear ramp, a cosine, a constant tail."""
    ramp, tail = round(settings.ramp * settings.steps), round(settings.tail * settings.steps)
    peak, final = settings.learning_rate, settings.final_learning_rate
    if step < ramp:
        return peak * (step + 1) / ramp
    progress = min((step - ramp) / max(settings.steps - ramp - tail, 1), 1.0)
    return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2


def projection_head(embedding: int) -> nn.Sequential:
    """The head that only training uses, as in SimCLR."""
    return nn.Sequential(
        nn.Linear(embedding, embedding), nn.BatchNorm1d(embedding), nn.ReLU(), nn.Linear(embedding, PROJECTION)
    )


def view_sizes(patch_size: int, settings: Settings) -> list[int]:
    """Sides of the views in pixels, one for each patch scale."""
    return [max(round(patch_size * scale), MIN_PATCH_SIZE) for scale in settings.patch_scales]


def random_views(crops: Sequence[Crops], size: int, settings: Settings, seed: torch.Generator) -> Tensor:
    """One view of every cell: resampled, then its raw counts scaled or hidden, (cells, markers, size, size)."""
    patches = []
    for crop in crops:
        transforms = random_transforms(len(crop.centres), settings.size_scaling, seed)
        patches.append(cut_patches(crop, size, transforms.to(crop.pixels.device)))
    view = torch.cat(patches)
    cells, markers = len(view), view.shape[1]
    gains = random_gains(cells, markers, settings.intensity_scaling, settings.hidden_markers, seed)
    return view * gains.to(view.device)


def fit(model: NeXtMarker, draw: Draw, settings: Settings, *, seed: torch.Generator, progress: bool) -> np.ndarray:
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
    head = projection_head(model.architecture.network.embedding).to(device)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], settings.learning_rate)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    chunk = CACHED if device.type == "cpu" else settings.views * settings.batch_size
    losses = []
    bar = tqdm(range(settings.steps), desc="training", unit="step", disable=not progress)
    for step in bar:
        crops = draw(settings.batch_size)
        projections: list[Tensor] = []
        for size in view_sizes(model.architecture.patch_size, settings):
            views = [random_views(crops, size, settings, seed) for _ in range(settings.views)]
            patches = torch.cat(views).split(chunk)
            embedding = torch.cat([model(part)[1] for part in patches])  # (views * cells, embedding)
            projections += head(embedding).chunk(settings.views)
        contrast = nt_xent(torch.stack(projections, 1), settings.temperature)
        loss = contrast + model.normalization.penalty(settings.penalty)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, settings)
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):  # a GPU too gives the same model again
            loss.backward()
        optimizer.step()
        _check_finite(loss.item(), step, settings)
        losses.append(contrast.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}")
    model.eval()
    return np.array(losses)


def _check_finite(loss: float, step: int, settings: Settings) -> None:
    if not math.isfinite(loss):
        msg = (
            f"Training failed: the loss of step {step + 1} is {loss}. Lower the learning rate, which is "
            f"{settings.learning_rate:g}, for example nm.nn.Settings(learning_rate={settings.learning_rate / 10:g})."
        )
        raise ValueError(msg)
