"""A control for embeddings: the same encoder on the same patches, trained on the types themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nextmarker.nn import NeXtMarker, TrainingConfig
from nextmarker.nn.device import pick_device, to_device
from nextmarker.nn.training import learning_rate, random_views
from nextmarker.nn.views import Crops, cut_patches, fixed_rotations, reach

if TYPE_CHECKING:
    from nextmarker.nn import ModelConfig

ROTATIONS = 4  # over which a cell is averaged, as `nm.tl.embed` does


def classify_supervised(
    pixels: np.ndarray,
    centres: np.ndarray,
    types: np.ndarray,
    learn: np.ndarray,
    config: ModelConfig,
    start: torch.Tensor,
    training: TrainingConfig,
    *,
    random_state: int = 0,
) -> np.ndarray:
    """Train a model with one more linear layer on the types of some cells, and classify all.

    Parameters
    ----------
    pixels
        Raw counts, (markers, y, x).
    centres
        (x, y) of the cells in pixels, (cells, 2).
    types
        Type of each cell, int (cells,) from 0.
    learn
        Numbers of the cells to learn from.
    config
        Of the network.
    start
        Where the sigmoids start, (markers,).
    training
        Steps, batch size, learning rates and augmentations; one view for each cell of a batch.
    random_state
        Seed.

    Returns
    -------
    The predicted type of each cell, int (cells,).
    """
    torch.manual_seed(random_state)
    seed = torch.Generator().manual_seed(random_state)
    device = pick_device()
    crops = _pad(pixels, centres, reach(config.patch_size, 1.0, training.size_scaling), device)
    known, cells = torch.tensor(types).long().to(device), torch.as_tensor(learn)
    model = NeXtMarker(config, start).to(device).to(memory_format=torch.channels_last)
    classifier = nn.Linear(config.network.embedding, int(known.max()) + 1).to(device)
    optimizer = torch.optim.Adam([*model.parameters(), *classifier.parameters()], training.learning_rate)
    for step in range(training.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, training)
        batch = cells[torch.randperm(len(cells), generator=seed)[: training.batch_size]]
        counts, _ = random_views([_choose(crops, batch)], config.patch_size, training, seed)
        loss = F.cross_entropy(classifier(model(counts)[1]), known[batch])
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):  # as in fit
            (loss + model.normalization.penalty(training.penalty)).backward()
        optimizer.step()
    return _predict(model, classifier, crops)


@torch.no_grad()
def _predict(model: NeXtMarker, classifier: nn.Linear, crops: Crops) -> np.ndarray:
    predicted = []
    for cells in torch.arange(len(crops.centres)).split(256):
        chosen = _choose(crops, cells)
        turns = (turn.expand(len(cells), 2, 2).to(crops.pixels.device) for turn in fixed_rotations(ROTATIONS))
        embedding = sum(model(cut_patches(chosen, model.config.patch_size, turn))[1] for turn in turns)
        predicted.append(classifier(embedding / ROTATIONS).argmax(1))
    return torch.cat(predicted).cpu().numpy()


def _pad(pixels: np.ndarray, centres: np.ndarray, halo: int, device: torch.device) -> Crops:
    """Reflect the image at its edges, and count pixels from the middle of the first."""
    padded = np.pad(pixels, [(0, 0), (halo, halo), (halo, halo)], mode="symmetric").transpose(1, 2, 0)
    middle = torch.from_numpy(centres - 0.5 + halo).to(device)
    return Crops(to_device(np.ascontiguousarray(padded), device), middle, 1.0)


def _choose(crops: Crops, cells: torch.Tensor) -> Crops:
    return replace(crops, centres=crops.centres[cells])
