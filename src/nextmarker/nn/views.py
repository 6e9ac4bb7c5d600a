"""Patches cut out of a tile: shifted, rotated, scaled and flipped in one resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BORDER = (0.3, 0.45)
"""Where a cell ends and its surroundings begin, as a share of the patch: half the distance between centres is 0.375."""
SOFTNESS = 0.06
"""Over which share of the patch a cell passes into the surroundings of another, so that no edge shows."""


@dataclass(frozen=True)
class Crops:
    """Cells to cut from one tile."""

    pixels: Tensor
    """Raw counts, (height, width, markers)."""
    centres: Tensor
    """Centres (x, y) as indices into `pixels`, float64 (cells, 2)."""
    step: float
    """Pixels of the tile per pixel of a patch."""
    offset: Tensor | None = None
    """Counts of every pixel that a camera added, (markers,), taken off each patch; None for nothing."""
    places: Tensor | None = None
    """Places (x, y) all over the image, some of them empty, as indices into `pixels`, float64 (places, 2)."""

    def at_places(self) -> Crops:
        """The same tile with its places instead of its cells.

        Raises
        ------
        ValueError
            If no places are known.
        """
        if self.places is None:
            msg = "What empty places respond is learned from places all over the image: give Crops(..., places=...)."
            raise ValueError(msg)
        return replace(self, centres=self.places)


def cut_patches(crops: Crops, size: int, transforms: Tensor) -> Tensor:
    """Cut square patches around cell centres by bilinear interpolation.

    Positions are computed relative to the pixel of the centre, so a cell gives the same patch whichever tile it is
    cut from. The tile must reach `reach(...)` pixels beyond every centre.

    Parameters
    ----------
    size
        Side of a patch.
    transforms
        Maps an offset from the centre of a patch to an offset from the centre of the cell, both (x, y),
        float32 (cells, 2, 2).

    Returns
    -------
    Raw counts above the offset, float32 (cells, markers, size, size), channels last in memory.
    """
    _, width, markers = crops.pixels.shape
    anchor = crops.centres.floor()
    offset = torch.arange(size, device=crops.pixels.device, dtype=torch.float32) - (size - 1) / 2
    grid = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), -1).reshape(-1, 2)  # (size * size, 2), (x, y)
    position = (crops.centres - anchor).float()[:, None] + crops.step * grid @ transforms.mT  # (cells, size * size, 2)
    corner = position.floor()
    right, below = (position - corner).unbind(-1)
    column, row = (corner.long() + anchor.long()[:, None]).unbind(-1)
    index = (row * width + column).flatten()  # (cells * size * size,)

    flat = crops.pixels.reshape(-1, markers)
    patches = torch.zeros(len(index), markers, device=flat.device)
    for down, weight_y in ((0, 1 - below), (width, below)):
        for along, weight_x in ((0, 1 - right), (1, right)):
            corner_counts = flat.index_select(0, index + (down + along)).float()
            patches.addcmul_(corner_counts, (weight_x * weight_y).reshape(-1, 1))
    if crops.offset is not None:
        patches = patches.sub_(crops.offset).clamp_(min=0)
    return patches.reshape(-1, size, size, markers).permute(0, 3, 1, 2)


def random_transforms(count: int, size_scaling: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw rotations by any angle, flips with probability 1/2 and scalings uniform in the logarithm.

    Returns
    -------
    float32 (count, 2, 2). A cell scaled by s is drawn s times as large.
    """
    angle, flip, scale = torch.rand(3, count, generator=generator)
    low, high = (math.log(bound) for bound in size_scaling)
    shrink = torch.exp(-(low + (high - low) * scale))
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    return (
        _rotations(2 * math.pi * angle) * shrink[:, None, None] * torch.stack([mirror, torch.ones(count)], -1)[:, None]
    )


def fixed_rotations(count: int) -> Tensor:
    """Rotations evenly spread over the circle, none along the pixel grid, (count, 2, 2).

    A rotated patch is smoothed by interpolation as the views of training are; one along the grid would not be.
    """
    return _rotations(2 * math.pi * (torch.arange(count) + 0.25) / count)


def random_gains(
    count: int, markers: int, intensity_scaling: tuple[float, float], hidden: float, generator: torch.Generator
) -> Tensor:
    """Draw a factor for the raw counts of every cell and marker.

    Returns
    -------
    Uniform in the logarithm, or zero with the probability `hidden`, float32 (count, markers, 1, 1). One marker of a
    cell is shown in any case, which matters in small panels: without any, all cells look alike.
    """
    low, high = (math.log(bound) for bound in intensity_scaling)
    scaling, lot = torch.rand(2, count, markers, 1, 1, generator=generator)
    shown = (lot >= hidden) | (lot == lot.amax(1, keepdim=True))
    return torch.exp(low + (high - low) * scaling) * shown


def swap_surroundings(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Give every cell the surroundings of another cell of the batch.

    Parameters
    ----------
    patches
        (cells, markers, size, size).

    Returns
    -------
    Inside a circle that is drawn for each cell the cell itself, outside of it the other cell, which is nobody's own. A
    single cell keeps its surroundings.
    """
    cells, size = len(patches), patches.shape[-1]
    if cells < 2:
        return patches
    low, high = BORDER
    border = low + (high - low) * torch.rand(cells, 1, 1, generator=generator)
    shift = int(torch.randint(1, cells, (), generator=generator))
    offset = (torch.arange(size) - (size - 1) / 2) / size
    distance = torch.hypot(offset[:, None], offset)  # (size, size)
    own = torch.sigmoid((border - distance) / SOFTNESS)[:, None].to(patches.device)  # (cells, 1, size, size)
    return torch.lerp(patches.roll(shift, 0), patches, own)


def reach(patch_size: int, step: float, size_scaling: tuple[float, float] = (1.0, 1.0)) -> int:
    """Pixels around a centre that a patch can touch: half its diagonal, drawn as small as it gets."""
    return math.ceil(patch_size * step / min(size_scaling) / math.sqrt(2)) + 1


def _rotations(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
