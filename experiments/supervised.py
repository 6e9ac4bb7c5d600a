"""A control for embeddings: the same encoder on the same patches, trained on the cell types."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from nextmarker.nn import NeXtMarker, TrainingConfig
from nextmarker.nn.device import pick_device
from nextmarker.nn.patches import CellTile, cut_patches, fixed_rotations, patch_margin
from nextmarker.nn.training import learning_rate, random_views

if TYPE_CHECKING:
    from nextmarker.nn import ModelConfig

ROTATIONS = 4  # over which a cell is averaged, as in `nm.tl.embed`


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
    """Train a model with an additional linear layer on the types of some cells, and classify all cells.

    Parameters
    ----------
    pixels
        Raw counts, (markers, y, x).
    centres
        (x, y) of the cells in pixels, (cells, 2).
    types
        Type of each cell, int (cells,) from 0.
    learn
        Numbers of the training cells.
    config
        Configuration of the model.
    start
        Initial centres of the sigmoids, (markers,).
    training
        Steps, batch size, learning rates and augmentations; one view per cell.
    random_state
        Seed.

    Returns
    -------
    The predicted type of each cell, int (cells,).
    """
    torch.manual_seed(random_state)
    generator = torch.Generator().manual_seed(random_state)
    device = pick_device()
    tile = _pad(pixels, centres, patch_margin(config.patch_size, 1.0, training.size_scaling), device)
    known, cells = torch.tensor(types).long().to(device), torch.as_tensor(learn)
    model = NeXtMarker(config, start).to(device)
    classifier = nn.Linear(config.network.embedding, int(known.max()) + 1).to(device)
    optimizer = torch.optim.Adam([*model.parameters(), *classifier.parameters()], training.learning_rate)
    for step in range(training.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, training)
        batch = cells[torch.randperm(len(cells), generator=generator)[: training.batch_size]]
        counts, _ = random_views([_choose(tile, batch)], config.patch_size, training, generator)
        loss = F.cross_entropy(classifier(model(counts)[1]), known[batch])
        optimizer.zero_grad()
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):  # as in `nn.training.fit`
            (loss + model.normalization.penalty(training.penalty)).backward()
        optimizer.step()
    return _predict(model, classifier, tile)


@torch.no_grad()
def _predict(model: NeXtMarker, classifier: nn.Linear, tile: CellTile) -> np.ndarray:
    predicted = []
    for cells in torch.arange(len(tile.centres)).split(256):
        chosen = _choose(tile, cells)
        turns = (turn.expand(len(cells), 2, 2).to(tile.pixels.device) for turn in fixed_rotations(ROTATIONS))
        embedding = sum(model(cut_patches(chosen, model.config.patch_size, turn))[1] for turn in turns)
        predicted.append(classifier(embedding / ROTATIONS).argmax(1))
    return torch.cat(predicted).cpu().numpy()


def _pad(pixels: np.ndarray, centres: np.ndarray, margin: int, device: torch.device) -> CellTile:
    """Reflect the image at its edges, and convert centres to indices of pixels."""
    padded = np.pad(pixels, [(0, 0), (margin, margin), (margin, margin)], mode="symmetric").transpose(1, 2, 0)
    middle = torch.from_numpy(centres - 0.5 + margin)
    return CellTile(torch.from_numpy(np.ascontiguousarray(padded)), middle, 1.0).to(device)


def _choose(tile: CellTile, cells: torch.Tensor) -> CellTile:
    return replace(tile, centres=tile.centres[cells])
