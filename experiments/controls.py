"""Controls for the embedding: networks that lack one of its features, trained in the same loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from nextmarker._regions import read_regions
from nextmarker.nn import ModelConfig, NeXtMarker, TrainingConfig
from nextmarker.nn.device import pick_device
from nextmarker.nn.encoder import Block, Encoder
from nextmarker.nn.model import HALVE_ABOVE
from nextmarker.nn.normalization import start_centres
from nextmarker.nn.zero import set_scale
from nextmarker.tl._features import embed_regions
from nextmarker.tl._sampler import CellSampler
from nextmarker.tl._train import fit_and_scale

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialdata import SpatialData

# as in nm.tl.embed
ROTATIONS = 4
TILE_SIZE = 1024


class SharedEncoder(nn.Module):
    """One encoder for the images of all markers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        network = config.network
        halve = config.patch_size > HALVE_ABOVE
        self.encoder = Encoder(1, network.features, network.blocks, halve=halve, pool_sigmas=network.pool_sigmas)

    def forward(self, x: Tensor) -> Tensor:
        """Encode (cells, markers, height, width) to (cells, markers * features)."""
        return self.encoder(x.flatten(0, 1)[:, None]).reshape(len(x), -1)


class FixedArcsinh(nn.Module):
    """arcsinh of the counts instead of the learned sigmoid."""

    def signal(self, counts: Tensor) -> Tensor:
        """Transform raw counts of any shape."""
        return torch.asinh(counts)

    def penalty(self, _: str) -> Tensor:
        """Return zero, since nothing is learned."""
        return torch.zeros(())


def leave_as_is(_: NeXtMarker) -> None:
    """Do not change the model."""


def share_encoder(model: NeXtMarker) -> None:
    """Use the same filters for all markers."""
    model.encoder = SharedEncoder(model.config)


def fuse_early(model: NeXtMarker) -> None:
    """Mix all markers from the first convolution on, as an ordinary network of the same width does."""
    stem, network = model.encoder.stem, model.config.network
    markers, width = len(model.config.markers), stem.out_channels
    model.encoder.stem = nn.Conv2d(markers, width, stem.kernel_size, stem.stride, padding=1, bias=False)
    model.encoder.blocks = nn.Sequential(*(Block(1, width) for _ in range(network.blocks)))


def fix_arcsinh(model: NeXtMarker) -> None:
    """Transform counts with a fixed function."""
    model.normalization = FixedArcsinh()


def embed_control(
    change: Callable[[NeXtMarker], None],
    patch_size: int,
    training: TrainingConfig | None,
    sdata: SpatialData,
    random_state: int,
) -> tuple[NeXtMarker, np.ndarray, np.ndarray]:
    """Train a changed model and embed with it, as `nm.tl.train` and `nm.tl.embed` do.

    Parameters
    ----------
    change
        Changes the new model in place.
    patch_size
        Pixels.
    training
        None leaves the model untrained.
    sdata
        Images and cells.
    random_state
        Seed.

    Returns
    -------
    The model; I, float32 (cells, markers, features); F, float32 (cells, embedding).
    """
    regions, adata, device = read_regions(sdata), sdata["table"], pick_device()
    generator = torch.Generator().manual_seed(random_state)
    sampler = CellSampler(regions, adata.var_names, patch_size, None, training or TrainingConfig(), generator, device)
    start = start_centres(sampler.sample_pixels(), sampler.training.sigmoid_start)
    torch.manual_seed(random_state)
    model = NeXtMarker(ModelConfig(tuple(adata.var_names), patch_size), start)
    change(model)
    model.to(device)
    if training is None:
        set_scale(model, sampler.sample_cells)
    else:
        fit_and_scale(model, sampler, training, generator=generator, progress=True)
    results = embed_regions(model, regions, {}, adata.n_obs, ROTATIONS, TILE_SIZE, device, progress=False)
    return model, *results[:2]
