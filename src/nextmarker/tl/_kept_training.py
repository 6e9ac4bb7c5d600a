"""Keeps the state of a training in a folder."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from nextmarker._checkpoint import Checkpoint, digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from nextmarker._regions import Region
    from nextmarker.nn.training_state import TrainingState
    from nextmarker.tl._sampler import CellSampler

SECONDS = 10.0
"""Time between two writings, each of which takes a few milliseconds."""
_SAMPLER = "sampler"


class KeptTraining:
    """Keeps the state of a training and of its sampler every few seconds, and after the last step.

    Parameters
    ----------
    folder
        The folder of a checkpoint.
    key
        From `training_key`.
    sampler
        Draws the cells.
    steps
        Number of steps.
    """

    def __init__(self, folder: str | Path, key: str, sampler: CellSampler, steps: int) -> None:
        self.checkpoint, self.key, self.sampler, self.steps = Checkpoint(folder, "train"), key, sampler, steps
        self.checkpoint.plan("step", steps, {"training": [key]})
        self.written = time.monotonic()

    def restore(self, state: TrainingState) -> None:
        """Bring a new training to the state that was kept, if there is one."""
        arrays = self.checkpoint.find(self.key)
        if arrays is not None:
            self.sampler.restore(arrays.pop(_SAMPLER))
            state.restore(arrays)

    def after_step(self, state: TrainingState) -> None:
        """Keep the state if it is time."""
        if len(state.losses) == self.steps or time.monotonic() - self.written >= SECONDS:
            self.checkpoint.keep(self.key, {**state.as_arrays(), _SAMPLER: self.sampler.state()})
            self.written = time.monotonic()


def training_key(sampler: CellSampler, regions: Sequence[Region], means: np.ndarray | None, **settings: object) -> str:
    """Digest of all that a training depends on: settings, cells, and the pixels that are in memory at its start.

    Parameters
    ----------
    means
        Mean intensities of the cells in the table, which stand for the pixels that are read later.
    """
    fixed = {"version": version("nextmarker"), "device": sampler.device.type, "means": means, **settings}
    images = [(region.image, region.pixels.shape, str(region.pixels.dtype), region.pixel_size) for region in regions]
    centres = {f"centres {number}": region.centres for number, region in enumerate(regions)}
    pixels = {f"pixels {number}": tile.pixels.cpu().numpy() for number, tile in enumerate(sampler.held)}
    return digest(**fixed, images=images, **centres, **pixels)
