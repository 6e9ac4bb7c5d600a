"""Draws the cells of each training step from pixels in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker._tiles import occupied_windows, read_window
from nextmarker.nn.patches import CellTile, patch_margin
from nextmarker.nn.zero import pixel_offset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker._regions import Region
    from nextmarker.nn.training import TrainingConfig

SCALE_CELLS = 2048
"""Number of cells, and of places, from which the scale of a model is computed."""
PLACES = 64
"""Places in a window at which each training step measures the zero."""


class CellSampler:
    """Draws random cells from windows of the images, of which a limited number is in memory at a time.

    Parameters
    ----------
    regions
        Images and cells.
    markers
        Channels to read, in this order.
    patch_size
        Width of a patch in pixels of the model.
    pixel_size
        Micrometres per pixel of the model, or None.
    training
        Its `size_scaling`, `steps` and `batch_by_image` are used.
    generator
        Source of all randomness.
    device
        Where the pixels are kept.
    zero
        Whether the model subtracts the zero of an image. If so, the offset of the camera is subtracted and places are
        drawn.
    size
        Width of a window in pixels of its image.
    memory
        Approximate number of bytes of pixels in memory. If the images are larger, windows are exchanged.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        markers: Sequence[str],
        patch_size: int,
        pixel_size: float | None,
        training: TrainingConfig,
        generator: torch.Generator,
        device: torch.device,
        *,
        zero: bool = True,
        size: int = 1024,
        memory: int = 2**30,
    ) -> None:
        self.markers, self.patch_size, self.pixel_size = markers, patch_size, pixel_size
        self.training, self.generator, self.device = training, generator, device
        self.zero, self.memory = zero, memory
        windows = [(region, window) for region in regions for window in occupied_windows(region, size=size)]
        self.order = [windows[i] for i in torch.randperm(len(windows), generator=generator)]
        self.loaded = 0
        self.held: list[CellTile] = []
        self._load()
        self.drawn = 0

    @property
    def n_cells(self) -> int:
        """Number of cells in memory."""
        return sum(len(tile.centres) for tile in self.held)

    def state(self) -> np.ndarray:
        """Which windows are in memory, and when the next is exchanged, int64 (3,)."""
        return np.array([self.drawn, self.loaded, len(self.held)])

    def restore(self, state: np.ndarray) -> None:
        """Return to an earlier state of a sampler made with the same arguments, except for the generator."""
        self.drawn, loaded, count = state.tolist()
        if loaded != self.loaded:
            self.held, self.loaded = [], loaded - count
            self.held = [self._load_next() for _ in range(count)]

    def draw(self, count: int) -> list[CellTile]:
        """Draw cells without replacement from the windows in memory, and exchange a window when its time has come."""
        self._exchange()
        sizes = torch.tensor([len(tile.centres) for tile in self.held])
        chosen = self._choose(sizes, count).sort().values
        tile_of = torch.searchsorted(sizes.cumsum(0), chosen, right=True)
        first = sizes.cumsum(0) - sizes
        drawn = []
        for number in tile_of.unique().tolist():
            tile = self.held[number]
            picked = (chosen[tile_of == number] - first[number]).to(self.device)
            places = self.draw_places(tile) if self.zero else None
            drawn.append(replace(tile, centres=tile.centres[picked], places=places))
        return drawn

    def sample_cells(self, number: int = SCALE_CELLS) -> list[CellTile]:
        """Draw about `number` cells, and as many places, from all windows in memory."""
        count = max(number // len(self.held), 2)
        return [
            replace(
                tile,
                centres=tile.centres[
                    torch.randperm(len(tile.centres), generator=self.generator)[:count].to(self.device)
                ],
                places=self.draw_places(tile, max(count, PLACES)),
            )
            for tile in self.held
        ]

    def draw_places(self, tile: CellTile, count: int = PLACES) -> torch.Tensor:
        """Draw random places in a window, float64 (places, 2)."""
        margin = self._margin(tile.scale)
        sides = torch.tensor(tile.pixels.shape[1::-1], dtype=torch.float64)  # (x, y)
        places = torch.rand(count, 2, generator=self.generator, dtype=torch.float64)
        return (margin + places * (sides - 2 * margin - 1)).to(self.device)

    def sample_pixels(self, count: int = 2_000_000) -> np.ndarray:
        """Evenly spaced pixels of the windows in memory, above their offset, (about `count`, markers)."""
        total = sum(tile.pixels[..., 0].numel() for tile in self.held)
        stride = max(total // count, 1)
        return np.concatenate([_above_offset(tile, stride) for tile in self.held])

    def _choose(self, sizes: torch.Tensor, count: int) -> torch.Tensor:
        """Choose `count` cells, numbered through all windows: from one window, then the next, or from all at once."""
        if not self.training.batch_by_image:
            return torch.randperm(int(sizes.sum()), generator=self.generator)[:count]
        first = sizes.cumsum(0) - sizes
        chosen = torch.empty(0, dtype=torch.int64)
        for window in torch.randperm(len(sizes), generator=self.generator):
            if len(chosen) < count:
                cells = first[window] + torch.randperm(int(sizes[window]), generator=self.generator)
                chosen = torch.cat([chosen, cells])[:count]
        return chosen

    def _exchange(self) -> None:
        """Replace the oldest window in memory by the next, so often that all are used during the training."""
        waiting = len(self.order) - len(self.held)
        self.drawn += 1
        if waiting and self.drawn % max(self.training.steps // waiting, 1) == 0:
            self.held.pop(0)
            self._load()

    def _load(self) -> None:
        """Fill the memory with windows, with at least two cells, which contrastive learning needs."""
        while len(self.held) < len(self.order) and (self._bytes() < self.memory or self.n_cells < 2):
            self.held.append(self._load_next())

    def _load_next(self) -> CellTile:
        region, window = self.order[self.loaded % len(self.order)]
        self.loaded += 1
        scale = region.scale(self.pixel_size)
        tile = read_window(region, self.markers, window, margin=self._margin(scale))
        offset = torch.from_numpy(pixel_offset(tile.pixels))
        return CellTile(
            torch.from_numpy(tile.pixels),
            torch.from_numpy(tile.centres),
            scale,
            offset if self.zero and offset.any() else None,
        ).to(self.device)

    def _margin(self, scale: float) -> int:
        return patch_margin(self.patch_size, scale, self.training.size_scaling)

    def _bytes(self) -> int:
        return sum(tile.pixels.nbytes for tile in self.held)


def _above_offset(tile: CellTile, stride: int) -> np.ndarray:
    pixels = tile.pixels.flatten(0, 1)[::stride]
    if tile.offset is not None:
        pixels = (pixels - tile.offset).clamp(min=0)
    return pixels.cpu().numpy()
