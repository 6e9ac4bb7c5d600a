"""Memory of nm.pp.detect_cells and nm.tl.embed: 6 against 60 images, and one large image under a cap.

Usage: ``python -m benchmarks.memory [--side PX] [--cap GB]``

Each is run in a process of its own. The images are made while they are read, so nothing but what the steps keep is in
memory. Prints the peak of the process in GB, and the ratio of 60 images to 6. The large image has 41 markers; it is
4,000 px wide by default, and with ``--side 20000`` most of it is empty.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import dask.array as da
import numpy as np
import torch
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

import nextmarker as nm
from benchmarks.report import peak_memory, report, seconds_of

PATCH = 12
SPACING = 40  # pixels between cells


def main() -> None:
    """Start a process for each and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4_000, help="width of the large image in pixels (default: 4,000)")
    parser.add_argument("--cap", type=float, default=4.0, help="memory it may have, in GB (default: 4)")
    parser.add_argument("--run", nargs=5, type=float, metavar="N", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        images, markers, side, filled, cap = arguments.run
        analyse(int(images), int(markers), int(side), filled, cap)
        return
    few, many = (measure(images, 20, 600, 1.0) for images in (6, 60))
    figures = {"6 images": f"{few[0]:.2f} GB", "60 images": f"{many[0]:.2f} GB"}
    report("peak of detect_cells and embed", figures, many[0] / few[0], f"{many[1]:,.0f} cells")
    side, cap = arguments.side, arguments.cap
    peak, cells, seconds = measure(1, 41, side, min(1.0, (2_000 / side) ** 2), cap)
    note = f"{cells:,.0f} cells, {seconds:.0f} s"
    report(f"one image of 41 x {side:,} x {side:,} px", {"peak": f"{peak:.2f} GB", "cap": f"{cap:g} GB"}, None, note)


def measure(*numbers: float) -> tuple[float, float, float]:
    """Peak memory in GB, cells and seconds of an analysis in a process of its own."""
    given = [str(number) for number in (*numbers, 0)[:5]]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--run", *given]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    peak, cells, seconds = map(float, answer.split()[-3:])
    return peak, cells, seconds


def analyse(images: int, markers: int, side: int, filled: float, cap: float) -> None:
    """Detect and embed the cells of images, and print peak memory, cells and seconds."""
    if cap:
        resource.setrlimit(resource.RLIMIT_DATA, (int(cap * 1e9),) * 2)
    names = [f"marker {number}" for number in range(markers)]
    sdata = SpatialData(images={f"image_{number}": make_image(names, side, filled) for number in range(images)})
    torch.manual_seed(0)
    model = nm.nn.NeXtMarker(nm.nn.ModelConfig(tuple(names), PATCH, None, nm.nn.NetworkConfig()), [2.0] * markers)

    def run() -> None:
        nm.pp.detect_cells(sdata, names[0], diameter=8, progress=False)
        nm.tl.embed(sdata, model, progress=False)

    seconds = seconds_of(run)
    print(peak_memory(), sdata["table"].n_obs, seconds)


def make_image(names: list[str], side: int, filled: float) -> Image2DModel:
    """Make an image of round cells in a grid, with noise, in a share of its chunks; the others are empty."""
    chunk = min(side, 1_000)

    def make_chunk(block_info: dict) -> np.ndarray:
        _, row, column = block_info[None]["chunk-location"]
        rng = np.random.default_rng([row, column])
        pixels = np.zeros((len(names), chunk, chunk), np.uint16)
        if rng.random() < filled:
            offset = (np.arange(chunk) % SPACING - SPACING / 2) ** 2
            cells = 60 * np.exp(-(offset[:, None] + offset) / 18)
            pixels += (cells + rng.integers(0, 4, (len(names), chunk, chunk), np.uint8)).astype(np.uint16)
        return pixels

    shape = ((len(names),), (chunk,) * (side // chunk), (chunk,) * (side // chunk))
    pixels = da.map_blocks(make_chunk, chunks=shape, dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=names)


if __name__ == "__main__":
    main()
