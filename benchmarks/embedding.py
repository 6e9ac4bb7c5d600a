"""Speed of nm.tl.embed, against a plain PyTorch loop with the same weights.

Usage: ``python -m benchmarks.embedding [--markers N] [--patch-size PX] [--cells N]``

The loop cuts a window around each cell, rotates it with ``grid_sample`` and passes batches of 256 patches through the
layers of the model, with the default settings of PyTorch. Both use all processors, unless OMP_NUM_THREADS is set, and
take turns; the best of several rounds counts. Prints patches per second, the ratio, and how much the results differ.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

import nextmarker as nm
from benchmarks.report import best_of, report

ROTATIONS = 4
BATCH = 256
ROUNDS = 5
SIDE = 1024


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markers", type=int, default=34, help="number of markers (default: 34)")
    parser.add_argument("--patch-size", type=int, default=10, help="width of a patch in pixels (default: 10)")
    parser.add_argument("--cells", type=int, default=4000, help="number of cells (default: 4000)")
    arguments = parser.parse_args()
    sdata = make_image(arguments.markers, arguments.cells, arguments.patch_size)
    network = nm.nn.NetworkConfig(zero=False)
    markers = tuple(sdata["table"].var_names)
    torch.manual_seed(0)
    model = nm.nn.NeXtMarker(nm.nn.ModelConfig(markers, arguments.patch_size, None, network), [2.0] * len(markers))
    seconds = best_of(ROUNDS, {"nm.tl.embed": lambda: embed(sdata, model), "plain loop": lambda: loop(sdata, model)})
    ours, plain = embed(sdata, model), loop(sdata, model)
    figures = {name: f"{ROTATIONS * arguments.cells / took:,.0f} patches/s" for name, took in seconds.items()}
    note = f"largest difference {np.abs(ours - plain).max() / np.abs(plain).max():.1e} of the largest value"
    task = f"embed, {arguments.markers} markers x {arguments.patch_size} px x {ROTATIONS} rotations"
    report(task, figures, seconds["plain loop"] / seconds["nm.tl.embed"], note)


def make_image(markers: int, cells: int, patch_size: int) -> SpatialData:
    """Make an image of random counts, with cells at random places."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (markers, SIDE, SIDE)).astype(np.uint16)
    names = [f"marker {number}" for number in range(markers)]
    sdata = SpatialData(images={"image": Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=names)})
    places = rng.uniform(2 * patch_size, SIDE - 2 * patch_size, (cells, 2))
    nm.pp.add_cells(sdata, pd.DataFrame(places, columns=["x", "y"]), progress=False)
    return sdata


def embed(sdata: SpatialData, model: nm.nn.NeXtMarker) -> np.ndarray:
    """I by this package, (cells, markers * features)."""
    nm.tl.embed(sdata, model, rotations=ROTATIONS, progress=False)
    return sdata["table"].obsm["X_interpretability"]


@torch.no_grad()
def loop(sdata: SpatialData, model: nm.nn.NeXtMarker) -> np.ndarray:
    """I by a plain loop, (cells, markers * features)."""
    pixels = torch.from_numpy(sdata["image"].to_numpy().astype(np.float32))
    side = model.config.patch_size
    half = math.ceil(side / math.sqrt(2)) + 1
    patches, rows = [], []
    for x, y in sdata["table"].obsm["spatial"]:
        left, top = int(x) - half, int(y) - half
        window = pixels[:, top : top + 2 * half, left : left + 2 * half]
        patches += [rotate(window, x - left, y - top, turn, side) for turn in range(ROTATIONS)]
        if len(patches) >= BATCH:
            rows.append(respond(model, torch.stack(patches)))
            patches = []
    if patches:
        rows.append(respond(model, torch.stack(patches)))
    response = torch.cat(rows).unflatten(0, (-1, ROTATIONS)).mean(1)
    return model.interpret(response).flatten(1).numpy()


def rotate(window: torch.Tensor, x: float, y: float, turn: int, side: int) -> torch.Tensor:
    """Cut a patch around (x, y) from a window (markers, height, width), in one of evenly spaced rotations."""
    angle = (turn + 0.25) * math.pi / 2  # not along the pixel grid, as in nm.tl.embed
    offset = torch.arange(side) - (side - 1) / 2
    down, along = torch.meshgrid(offset, offset, indexing="ij")
    column = x + math.cos(angle) * along - math.sin(angle) * down
    row = y + math.sin(angle) * along + math.cos(angle) * down
    grid = torch.stack([column, row], -1) * 2 / window.shape[-1] - 1
    return F.grid_sample(window[None], grid[None].float(), align_corners=False)[0]


def respond(model: nm.nn.NeXtMarker, patches: torch.Tensor) -> torch.Tensor:
    """Response by grouped convolutions, (cells, markers, features)."""
    encoder = model.encoder
    features = F.relu(encoder.stem(model.normalization.signal(patches)))
    for block in encoder.blocks:
        features = features + block.project(F.relu(block.expand(block.spatial(features))))
    features = F.relu(features).unflatten(1, (patches.shape[1], -1))
    return torch.einsum("nmfhw,fhw->nmf", features, encoder.weights(features.shape[-1], features))


if __name__ == "__main__":
    main()
