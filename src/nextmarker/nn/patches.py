"""Patches cut from an image tile and augmented: shifted, rotated, scaled and flipped in one resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nextmarker.nn.cpu_patches import can_interpolate, interpolate_on_cpu
from nextmarker.nn.device import to_device

BORDER = (0.3, 0.45)
"""Range of the distance at which a cell ends and its surroundings begin, in patch widths. Half the distance between
neighbouring centres is 0.375."""
SOFTNESS = 0.06
"""Width of the transition between a cell and the surroundings of another, in patch widths, so that no edge is seen."""


@dataclass(frozen=True)
class CellTile:
    """Pixels of a part of an image, and the cells to cut from it."""

    pixels: Tensor
    """Raw counts, (height, width, markers)."""
    centres: Tensor
    """Centres (x, y) as indices into `pixels`, float64 (cells, 2)."""
    scale: float
    """Pixels of the tile per pixel of a patch."""
    offset: Tensor | None = None
    """Counts that the camera added to every pixel, (markers,), subtracted from each patch; None for none."""
    places: Tensor | None = None
    """Random places (x, y) in the image, some of them empty, as indices into `pixels`, float64 (places, 2)."""

    def to(self, device: torch.device) -> CellTile:
        """Move all tensors to a device."""
        offset, places = (None if tensor is None else tensor.to(device) for tensor in (self.offset, self.places))
        return CellTile(to_device(self.pixels, device), self.centres.to(device), self.scale, offset, places)

    def at_places(self) -> CellTile:
        """Replace the cells of the tile by its places.

        Raises
        ------
        ValueError
            If the tile has no places.
        """
        if self.places is None:
            msg = "The zero needs random places in the image: CellTile(..., places=...)."
            raise ValueError(msg)
        return replace(self, centres=self.places)


def cut_patches(tile: CellTile, size: int, transforms: Tensor) -> Tensor:
    """Cut square patches around cell centres by bilinear interpolation.

    Positions are computed relative to the pixel of the centre, so the patch of a cell does not depend on the tile. The
    tile must extend `patch_margin(...)` pixels beyond every centre.

    Parameters
    ----------
    tile
        Pixels and cell centres.
    size
        Width of a patch.
    transforms
        Maps an offset from the centre of a patch to an offset from the centre of the cell, both (x, y),
        float32 (cells, 2, 2).

    Returns
    -------
    Raw counts above the offset, float32 (cells, markers, size, size).
    """
    _, width, markers = tile.pixels.shape
    anchor = tile.centres.floor()
    offset = torch.arange(size, device=tile.pixels.device, dtype=torch.float32) - (size - 1) / 2
    grid = torch.stack(torch.meshgrid(offset, offset, indexing="xy"), -1).reshape(-1, 2)  # (size * size, 2), (x, y)
    position = (tile.centres - anchor).float()[:, None] + tile.scale * grid @ transforms.mT  # (cells, size * size, 2)
    corner = position.floor()
    right, below = (position - corner).unbind(-1)
    column, row = (corner.long() + anchor.long()[:, None]).unbind(-1)
    index = row * width + column  # (cells, size * size)

    flat = tile.pixels.reshape(-1, markers)
    on_cpu = can_interpolate(flat)
    patches = (interpolate_on_cpu if on_cpu else interpolate)(flat, width, index, right, below)
    if tile.offset is not None:
        patches = patches.sub_(tile.offset[:, None]).clamp_(min=0)
    return patches.unflatten(2, (size, size))


def interpolate(flat: Tensor, width: int, index: Tensor, right: Tensor, below: Tensor) -> Tensor:
    """Interpolate between pixels and those to the right and below.

    Parameters
    ----------
    flat
        Raw counts, (pixels, markers), of an image of `width` pixels.
    index
        Pixels above and left of the positions, int64 (cells, positions).
    right, below
        Distances of the positions from these pixels, 0 to 1, float32 (cells, positions).

    Returns
    -------
    float32 (cells, markers, positions).
    """
    patches = torch.zeros(index.numel(), flat.shape[1], device=flat.device)
    for down, weight_y in ((0, 1 - below), (width, below)):
        for along, weight_x in ((0, 1 - right), (1, right)):
            corner_counts = flat.index_select(0, (index + (down + along)).flatten()).float()
            patches.addcmul_(corner_counts, (weight_x * weight_y).reshape(-1, 1))
    return patches.unflatten(0, index.shape).transpose(1, 2)


def random_transforms(count: int, size_scaling: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw random rotations, flips with probability 1/2, and scalings that are uniform on a logarithmic axis.

    Returns
    -------
    float32 (count, 2, 2). A cell scaled by s appears s times as large.
    """
    angle, flip, scale = torch.rand(3, count, generator=generator)
    low, high = (math.log(bound) for bound in size_scaling)
    shrink = torch.exp(-(low + (high - low) * scale))
    mirror = torch.where(flip < 0.5, -1.0, 1.0)
    return (
        _rotations(2 * math.pi * angle) * shrink[:, None, None] * torch.stack([mirror, torch.ones(count)], -1)[:, None]
    )


def fixed_rotations(count: int) -> Tensor:
    """Make evenly spaced rotations, none of them along the pixel grid, (count, 2, 2).

    Interpolation smooths a rotated patch as it smooths the views in training; it would not smooth one along the grid.
    """
    return _rotations(2 * math.pi * (torch.arange(count) + 0.25) / count)


def random_gains(
    count: int, markers: int, intensity_scaling: tuple[float, float], dropout: float, generator: torch.Generator
) -> Tensor:
    """Draw a random factor for the raw counts of every cell and marker.

    Returns
    -------
    float32 (count, markers, 1, 1): uniform on a logarithmic axis, or zero with the probability `dropout`. At least one
    marker of a cell is kept, which matters in small panels: without any marker all cells look alike.
    """
    low, high = (math.log(bound) for bound in intensity_scaling)
    scaling, lot = torch.rand(2, count, markers, 1, 1, generator=generator)
    shown = (lot >= dropout) | (lot == lot.amax(1, keepdim=True))
    return torch.exp(low + (high - low) * scaling) * shown


def swap_surroundings(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Replace the surroundings of every cell by those of another cell.

    Parameters
    ----------
    patches
        (cells, markers, size, size).

    Returns
    -------
    Each patch within a circle of random radius, and outside of it the patch of another cell. A single cell keeps its
    surroundings.
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


def patch_margin(patch_size: int, scale: float, size_scaling: tuple[float, float] = (1.0, 1.0)) -> int:
    """Pixels needed around a cell centre: half the diagonal of a patch, for a cell scaled down to the minimum."""
    return math.ceil(patch_size * scale / min(size_scaling) / math.sqrt(2)) + 1


def _rotations(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
