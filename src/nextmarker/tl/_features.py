"""Compute I and F of the cells of all images, image by image and tile by tile."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker import _keys
from nextmarker._images import Job, map_images
from nextmarker._tiles import divide, stream_tiles
from nextmarker.nn.cpu import tasks_in_threads
from nextmarker.nn.device import patches_at_once
from nextmarker.nn.patches import CellTile, cut_patches, fixed_rotations, patch_margin
from nextmarker.tl._missing import fill_with_zero
from nextmarker.tl._zero import Zero, measure_zero

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from nextmarker._progress import Advance
    from nextmarker._regions import Region
    from nextmarker._tiles import Tile
    from nextmarker.nn.model import NeXtMarker
    from nextmarker.tl._places import Recorded

PART_SIZE = 8192
"""Images larger than this, in pixels, are embedded in parts."""
ROWS_AT_ONCE = 65_536
"""Number of cells whose F is computed at a time."""


def embed_regions(
    model: NeXtMarker,
    regions: Sequence[Region],
    lacking: Mapping[str, Sequence[str]],
    n_cells: int,
    rotations: int,
    tile_size: int,
    device: torch.device,
    progress: bool,
    recorded: Callable[[Region], Recorded | None] = lambda _: None,
    checkpoint: str | Path | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Zero]]:
    """Compute I and F of the cells of all images, tile by tile.

    Parameters
    ----------
    lacking
        For each image, the markers whose counts are taken as zero.
    recorded
        Reads what the table holds of the cells of a region, to check where they are.
    checkpoint
        Folder in which I of each image is kept.

    Returns
    -------
    I, float32 (cells, markers, features), and F, float32 (cells, embedding), in the order of the table; and the zero of
    each image, if the model subtracts it.
    """
    known = model.config
    parts = [part for region in regions for part in _divide(region, model, lacking.get(region.image, []))]
    settings = {"model": model.digest(), "rotations": rotations, "device": device.type}
    results = map_images(
        partial(_embed_part, model, rotations, tile_size, device),
        [part.as_job(recorded, settings) for part in parts],
        step=_keys.EMBED_STEP,
        title="embedding",
        unit="cell",
        progress=progress,
        checkpoint=checkpoint,
    )
    interpretability = np.empty((n_cells, len(known.markers), known.network.features), np.float32)
    zeros: dict[str, Zero] = {}
    for number, arrays in results:
        interpretability[parts[number].rows] = arrays["interpretability"]
        if "zero_response" in arrays:
            zeros[parts[number].image.image] = Zero.from_arrays(arrays)
    in_order = {region.image: zeros[region.image] for region in regions if region.image in zeros}
    return interpretability, _combine(model, interpretability, device), in_order


@dataclass(frozen=True)
class _Part:
    """Cells of an image, or of a part of a large one."""

    image: Region
    """The whole image, without cells."""
    cells: Region
    """The part, with cells that are numbered from 0."""
    rows: np.ndarray
    """Positions of the cells in the table."""
    centres: np.ndarray
    """Centres in the whole image."""
    absent: Sequence[str]
    """Markers whose counts are taken as zero."""

    def as_job(self, recorded: Callable[[Region], Recorded | None], settings: Mapping[str, object]) -> Job:
        """Describe what is computed, and what it depends on."""

        def in_table() -> Recorded | None:
            return recorded(replace(self.cells, rows=self.rows))

        def inputs() -> tuple[Region, Region, Sequence[str], Recorded | None]:
            return self.image, self.cells, self.absent, in_table()

        def depends_on() -> dict[str, object]:
            table = in_table()
            means = None if table is None else table.means
            own = {"centres": self.centres, "pixel_size": self.cells.pixel_size, "absent": self.absent, "means": means}
            return {**settings, **own}

        return Job(self.image.image, self.image.pixels, inputs, len(self.rows), depends_on)


def _divide(region: Region, model: NeXtMarker, absent: Sequence[str]) -> Iterator[_Part]:
    """Divide an image into parts of bounded size, with the markers of the model."""
    known = model.config
    pixels = fill_with_zero(region.pixels, absent).sel(c=list(known.markers))
    whole = replace(region, pixels=pixels)
    image = replace(whole, centres=np.empty((0, 2)), rows=np.empty(0, int))
    margin = patch_margin(known.patch_size, region.scale(known.pixel_size))
    for mine, part in divide(whole, size=PART_SIZE, margin=margin):
        cells = replace(part, rows=np.arange(len(part.rows)))
        yield _Part(image, cells, part.rows, region.centres[mine], absent)


@torch.inference_mode()
def _embed_part(
    model: NeXtMarker,
    rotations: int,
    tile_size: int,
    device: torch.device,
    image: Region,
    cells: Region,
    absent: Sequence[str],
    recorded: Recorded | None,
    advance: Advance,
) -> dict[str, np.ndarray]:
    """Compute I of the cells of a part, (cells, markers, features), and the zero of its image."""
    known = model.config
    model = deepcopy(model).to(device).eval()
    scale = image.scale(known.pixel_size)
    zero = measure_zero(model, image, device)
    interpretability = np.empty((len(cells.rows), len(known.markers), known.network.features), np.float32)
    margin = patch_margin(known.patch_size, scale)
    size = max(patches_at_once(device) // rotations, 1)
    with tasks_in_threads(device) as in_threads:
        for tile in stream_tiles(cells, known.markers, tile_size=tile_size, margin=margin):
            if recorded is not None and recorded.check(cells, tile):
                recorded = None  # one tile is enough
            batches = [*_batches(tile, scale, device, size)]
            results = in_threads(partial(_interpret, model, rotations, zero), [batch for _, batch in batches])
            for (rows, _), result in zip(batches, results, strict=True):
                interpretability[rows] = result[: len(rows)].cpu()
                advance(len(rows))
    interpretability[:, np.isin(known.markers, absent)] = 0  # exactly, without rounding errors
    return {"interpretability": interpretability, **({} if zero is None else zero.as_arrays())}


@torch.inference_mode()
def _combine(model: NeXtMarker, interpretability: np.ndarray, device: torch.device) -> np.ndarray:
    """Compute F of all cells, in the order of the table, so that it does not depend on tiles.

    F is linear in I, so F of the average I is the average F.
    """
    crosstalk = deepcopy(model.crosstalk).to(device)
    blocks = torch.from_numpy(interpretability).flatten(1).split(ROWS_AT_ONCE)
    return torch.cat([crosstalk(block.to(device)).cpu() for block in blocks]).numpy()


@torch.inference_mode()
def _interpret(model: NeXtMarker, rotations: int, zero: Zero | None, cells: CellTile) -> torch.Tensor:
    """Compute I of the cells of a tile from their responses averaged over rotations, (cells, markers, features)."""
    count = len(cells.centres)
    if zero is not None:
        cells = replace(cells, offset=zero.offset)
    views = [
        cut_patches(cells, model.config.patch_size, rotation.expand(count, 2, 2).to(cells.pixels.device))
        for rotation in fixed_rotations(rotations)
    ]
    response = model.respond(torch.cat(views)).unflatten(0, (rotations, count)).mean(0)
    return model.interpret(response, None if zero is None else zero.response)


def _batches(tile: Tile, scale: float, device: torch.device, size: int) -> Iterator[tuple[np.ndarray, CellTile]]:
    """Divide the cells of a tile into batches of equal size; the last is filled up with copies of its last cell.

    The order of summation depends on the size of a batch, so otherwise the last bits would depend on the tiles.
    """
    cells = CellTile(torch.from_numpy(tile.pixels), torch.from_numpy(tile.centres), scale).to(device)
    for first in range(0, len(tile.rows), size):
        filled = torch.arange(first, first + size, device=device).clamp(max=len(tile.rows) - 1)
        yield tile.rows[first : first + size], replace(cells, centres=cells.centres[filled])
