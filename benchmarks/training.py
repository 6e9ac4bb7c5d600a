"""Speed of a training step on a CPU, against the same training by the layers of PyTorch.

Usage: ``python -m benchmarks.training [--markers N] [--patch-size PX] [--steps N]``

Both start from the same weights and see the same views, 256 cells twice. The plain training cuts patches by indexing
and passes them through the layers of the model, 64 at a time.
The two take turns; the least CPU time of the rounds counts, since other programs lengthen the time on the clock. Prints
seconds per step, the ratio, and how much the losses differ.
"""

from __future__ import annotations

import argparse
import platform
import time
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import torch

import nextmarker as nm
from benchmarks.embedding import make_image
from nextmarker._regions import read_regions
from nextmarker.nn.device import pick_device
from nextmarker.nn.training import fit
from nextmarker.tl._sampler import CellSampler

CELLS = 4000
ROUNDS = 2


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markers", type=int, default=41, help="number of markers (default: 41)")
    parser.add_argument("--patch-size", type=int, default=24, help="width of a patch in pixels (default: 24)")
    parser.add_argument("--steps", type=int, default=20, help="steps of each training (default: 20)")
    arguments = parser.parse_args()
    sdata = make_image(arguments.markers, CELLS, arguments.patch_size)
    run(sdata, arguments.patch_size, 1)  # compiles
    seconds: dict[str, list[float]] = {"plain layers": [], "nm.tl.train": []}
    for _ in range(ROUNDS):
        with only_torch():
            took, plain = run(sdata, arguments.patch_size, arguments.steps)
        seconds["plain layers"].append(took)
        took, ours = run(sdata, arguments.patch_size, arguments.steps)
        seconds["nm.tl.train"].append(took)
    for name, each in seconds.items():
        print(f"{name}: {min(each):.3f} s per step, {200 * min(each):.0f} s for 200 steps")
    print(f"ratio: {min(seconds['plain layers']) / min(seconds['nm.tl.train']):.2f}")
    print(f"loss: {ours[0]:.4f} to {ours[-1]:.4f}, largest difference {np.abs(ours / plain - 1).max():.1e}")
    print(f"machine: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")


def only_torch() -> ExitStack:
    """Compute by torch within this block: no compiled code applies."""
    stack = ExitStack()
    for name in ("nn.encoder.can_encode", "nn.patches.can_interpolate"):
        stack.enter_context(patch(f"nextmarker.{name}", return_value=False))
    return stack


def run(sdata: object, patch_size: int, steps: int) -> tuple[float, np.ndarray]:
    """Train a new model, and return the CPU seconds of a step and the loss of each."""
    training, generator = nm.nn.TrainingConfig(steps=steps), torch.Generator().manual_seed(0)
    markers = list(sdata["table"].var_names)
    regions = read_regions(sdata, "table")
    sampler = CellSampler(regions, markers, patch_size, None, training, generator, pick_device("cpu"))
    torch.manual_seed(0)
    model = nm.nn.NeXtMarker(nm.nn.ModelConfig(tuple(markers), patch_size), [2.0] * len(markers))
    start = time.process_time()
    loss = fit(model, sampler.draw, training, generator=generator, progress=False)
    return (time.process_time() - start) / steps, loss


if __name__ == "__main__":
    main()
