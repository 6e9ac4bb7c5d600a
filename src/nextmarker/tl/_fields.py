"""The pixels from which training draws its cells."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker._tiles import cut_fields, read_field
from nextmarker.nn.device import to_device
from nextmarker.nn.views import Crops, reach

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextmarker._cells import Region
    from nextmarker.nn.training import Settings

FIELD_SIZE = 1024
"""Side, in pixels, of the pieces in which training reads an image."""
FIELD_MEMORY = 2**30
"""Bytes of pixels that training holds at one time; with more, fields take turns."""


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
    settings
        How small cells are scaled, for how many steps they are drawn, and whether a step mixes the fields.
    seed
        Source of all randomness.
    device
        Where the pixels are kept.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        markers: Sequence[str],
        patch_size: int,
        pixel_size: float | None,
        settings: Settings,
        seed: torch.Generator,
        device: torch.device,
    ) -> None:
        self.markers, self.patch_size, self.pixel_size = markers, patch_size, pixel_size
        self.settings, self.seed, self.device = settings, seed, device
        waiting = [(region, field) for region in regions for field in cut_fields(region, size=FIELD_SIZE)]
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
            drawn.append(Crops(crops.pixels, crops.centres[picked], crops.step))
        return drawn

    def _choose(self, sizes: torch.Tensor, count: int) -> torch.Tensor:
        """Choose `count` cells, numbered through all fields: from one field, then the next, or from all at once."""
        if not self.settings.within_images:
            return torch.randperm(int(sizes.sum()), generator=self.seed)[:count]
        first = sizes.cumsum(0) - sizes
        chosen = torch.empty(0, dtype=torch.int64)
        for field in torch.randperm(len(sizes), generator=self.seed):
            if len(chosen) < count:
                of_field = first[field] + torch.randperm(int(sizes[field]), generator=self.seed)
                chosen = torch.cat([chosen, of_field])[:count]
        return chosen

    def sample_pixels(self, count: int = 2_000_000) -> np.ndarray:
        """Evenly spaced pixels of the fields in memory, (about `count`, markers)."""
        total = sum(crops.pixels[..., 0].numel() for crops in self.held)
        stride = max(total // count, 1)
        return np.concatenate([crops.pixels.flatten(0, 1)[::stride].cpu().numpy() for crops in self.held])

    def _take_turns(self) -> None:
        waiting = len(self.order) - len(self.held)
        self.drawn += 1
        if waiting and self.drawn % max(self.settings.steps // waiting, 1) == 0:
            self.held.pop(0)
            self._load()

    def _load(self) -> None:
        """Fill the memory with fields; of two cells at least, since one alone has no others to be told from."""
        while len(self.held) < len(self.order) and (self._bytes() < FIELD_MEMORY or self.n_cells < 2):
            self.held.append(self._load_next())

    def _load_next(self) -> Crops:
        region, field = next(self.queue)
        step = region.step(self.pixel_size)
        tile = read_field(region, self.markers, field, halo=reach(self.patch_size, step, self.settings.size_scaling))
        return Crops(to_device(tile.pixels, self.device), torch.from_numpy(tile.centres).to(self.device), step)

    def _bytes(self) -> int:
        return sum(crops.pixels.nbytes for crops in self.held)
