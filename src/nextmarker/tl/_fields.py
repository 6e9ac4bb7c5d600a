"""The pixels from which training draws its cells."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker._tiles import cut_fields, read_field
from nextmarker.nn.device import to_device
from nextmarker.nn.views import Crops, reach
from nextmarker.nn.zero import pixel_offset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker._regions import Region
    from nextmarker.nn.training import TrainingConfig

SCALE_CELLS = 2048
"""Cells, and as many places, from which the scale of a model is chosen."""
PLACES = 64
"""Places of a field from which a step learns what empty ones respond."""


class Fields:
    """The pixels from which training draws its cells: a bounded number of fields, chosen in random order.

    Parameters
    ----------
    regions
        Images and cells.
    markers
        Channels to read, in this order.
    patch_size
        Side of a patch in pixels of the model.
    pixel_size
        Micrometres per pixel of the model, or None.
    training
        How small cells are scaled, for how many steps they are drawn, and whether a step mixes the fields.
    seed
        Source of all randomness.
    device
        Where the pixels are kept.
    zero
        Whether the model subtracts an image's own zero: take off what a camera added to the pixels, and draw places.
    size
        Side of a field in pixels of its image.
    memory
        Bytes of pixels that are held at one time, about; with more, fields take turns.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        markers: Sequence[str],
        patch_size: int,
        pixel_size: float | None,
        training: TrainingConfig,
        seed: torch.Generator,
        device: torch.device,
        *,
        zero: bool = True,
        size: int = 1024,
        memory: int = 2**30,
    ) -> None:
        self.markers, self.patch_size, self.pixel_size = markers, patch_size, pixel_size
        self.training, self.seed, self.device, self.zero, self.memory = training, seed, device, zero, memory
        waiting = [(region, field) for region in regions for field in cut_fields(region, size=size)]
        self.order = [waiting[i] for i in torch.randperm(len(waiting), generator=seed)]
        self.queue = cycle(self.order)
        self.held: list[Crops] = []
        self._load()
        self.drawn = 0

    @property
    def n_cells(self) -> int:
        """Cells of the fields in memory."""
        return sum(len(crops.centres) for crops in self.held)

    def draw(self, count: int) -> list[Crops]:
        """Draw cells without replacement from the fields in memory, and let a waiting field take its turn."""
        self._take_turns()
        sizes = torch.tensor([len(crops.centres) for crops in self.held])
        chosen = self._choose(sizes, count).sort().values
        field_of = torch.searchsorted(sizes.cumsum(0), chosen, right=True)
        first = sizes.cumsum(0) - sizes
        drawn = []
        for number in field_of.unique().tolist():
            crops = self.held[number]
            picked = (chosen[field_of == number] - first[number]).to(self.device)
            places = self.draw_places(crops) if self.zero else None
            drawn.append(replace(crops, centres=crops.centres[picked], places=places))
        return drawn

    def sample_cells(self) -> list[Crops]:
        """Draw some cells and places of every field in memory."""
        share = max(SCALE_CELLS // len(self.held), 2)
        return [
            replace(
                crops,
                centres=crops.centres[torch.randperm(len(crops.centres), generator=self.seed)[:share].to(self.device)],
                places=self.draw_places(crops, max(share, PLACES)),
            )
            for crops in self.held
        ]

    def draw_places(self, crops: Crops, count: int = PLACES) -> torch.Tensor:
        """Draw places all over a field, float64 (places, 2)."""
        halo = self._halo(crops.step)
        sides = torch.tensor(crops.pixels.shape[1::-1], dtype=torch.float64)  # (x, y)
        places = torch.rand(count, 2, generator=self.seed, dtype=torch.float64)
        return (halo + places * (sides - 2 * halo - 1)).to(self.device)

    def _choose(self, sizes: torch.Tensor, count: int) -> torch.Tensor:
        """Choose `count` cells, numbered through all fields: from one field, then the next, or from all at once."""
        if not self.training.batch_by_image:
            return torch.randperm(int(sizes.sum()), generator=self.seed)[:count]
        first = sizes.cumsum(0) - sizes
        chosen = torch.empty(0, dtype=torch.int64)
        for field in torch.randperm(len(sizes), generator=self.seed):
            if len(chosen) < count:
                of_field = first[field] + torch.randperm(int(sizes[field]), generator=self.seed)
                chosen = torch.cat([chosen, of_field])[:count]
        return chosen

    def sample_pixels(self, count: int = 2_000_000) -> np.ndarray:
        """Evenly spaced pixels of the fields in memory, above their offset, (about `count`, markers)."""
        total = sum(crops.pixels[..., 0].numel() for crops in self.held)
        stride = max(total // count, 1)
        return np.concatenate([_above_offset(crops, stride) for crops in self.held])

    def _take_turns(self) -> None:
        waiting = len(self.order) - len(self.held)
        self.drawn += 1
        if waiting and self.drawn % max(self.training.steps // waiting, 1) == 0:
            self.held.pop(0)
            self._load()

    def _load(self) -> None:
        """Fill the memory with fields; of two cells at least, since one alone has no others to be told from."""
        while len(self.held) < len(self.order) and (self._bytes() < self.memory or self.n_cells < 2):
            self.held.append(self._load_next())

    def _load_next(self) -> Crops:
        region, field = next(self.queue)
        step = region.step(self.pixel_size)
        tile = read_field(region, self.markers, field, halo=self._halo(step))
        offset = torch.from_numpy(pixel_offset(tile.pixels))
        return Crops(
            to_device(tile.pixels, self.device),
            torch.from_numpy(tile.centres).to(self.device),
            step,
            offset.to(self.device) if self.zero and offset.any() else None,
        )

    def _halo(self, step: float) -> int:
        return reach(self.patch_size, step, self.training.size_scaling)

    def _bytes(self) -> int:
        return sum(crops.pixels.nbytes for crops in self.held)


def _above_offset(crops: Crops, stride: int) -> np.ndarray:
    pixels = crops.pixels.flatten(0, 1)[::stride]
    if crops.offset is not None:
        pixels = (pixels - crops.offset).clamp(min=0)
    return pixels.cpu().numpy()
