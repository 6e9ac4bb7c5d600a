"""Speed of cutting patches from a Zarr store, against the ImageTilesDataset of spatialdata.

Usage: ``python -m benchmarks.patches [--cells N] [--peer-cells N]``

Both read the same store and return the pixels around each cell as arrays, one after another. Prints patches per second
and the ratio.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from spatialdata import SpatialData, read_zarr
from spatialdata.dataloader import ImageTilesDataset
from spatialdata.models import Image2DModel

import nextmarker as nm
from benchmarks.report import best_of, report
from nextmarker._regions import read_regions
from nextmarker._tiles import stream_tiles
from nextmarker.nn.patches import CellTile, cut_patches, patch_margin

MARKERS, SIDE, PATCH, BATCH, ROUNDS = 34, 1024, 16, 256, 3


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000, help="number of cells (default: 20,000)")
    parser.add_argument("--peer-cells", type=int, default=200, help="of these, cells for the peer (default: 200)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nm.io.write(make_image(arguments.cells), Path(folder) / "image.zarr")
        sdata = read_zarr(Path(folder) / "image.zarr")
        tiles, few = tiles_of_spatialdata(sdata), arguments.peer_cells
        functions = {
            "nextmarker": lambda: cut(sdata),
            "ImageTilesDataset": lambda: [tiles[cell][0].to_numpy() for cell in range(few)],
        }
        seconds = best_of(ROUNDS, functions)
    ours, theirs = arguments.cells / seconds["nextmarker"], few / seconds["ImageTilesDataset"]
    figures = {"nextmarker": f"{ours:,.0f} patches/s", "ImageTilesDataset": f"{theirs:,.0f} patches/s"}
    report(f"patches of {MARKERS} x {PATCH} x {PATCH} px from Zarr", figures, ours / theirs)


def make_image(n_cells: int) -> SpatialData:
    """Make an image of random counts, with cells at random places."""
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (MARKERS, SIDE, SIDE), np.uint16)
    names = [f"marker {number}" for number in range(MARKERS)]
    image = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=names, chunks=(MARKERS, 128, 128))
    sdata = SpatialData(images={"image": image})
    places = rng.uniform(2 * PATCH, SIDE - 2 * PATCH, (n_cells, 2))
    nm.pp.add_cells(sdata, pd.DataFrame(places, columns=["x", "y"]), progress=False)
    return sdata


def cut(sdata: SpatialData) -> int:
    """Cut the patches of all cells as nm.tl.embed does, in one orientation."""
    count = 0
    (region,) = read_regions(sdata)
    names = sdata["table"].var_names.tolist()
    for tile in stream_tiles(region, names, tile_size=1024, margin=patch_margin(PATCH, 1.0)):
        pixels, centres = torch.from_numpy(tile.pixels), torch.from_numpy(tile.centres)
        for batch in centres.split(BATCH):
            count += len(cut_patches(CellTile(pixels, batch, 1.0), PATCH, torch.eye(2).expand(len(batch), 2, 2)))
    return count


def tiles_of_spatialdata(sdata: SpatialData) -> ImageTilesDataset:
    """Its data set of tiles, in the form that is fastest: without a table for each tile."""
    return ImageTilesDataset(
        sdata,
        regions_to_images={"cells": "image"},
        regions_to_coordinate_systems={"cells": "global"},
        tile_dim_in_units=PATCH,
        return_annotations="region",
        table_name="table",
    )


if __name__ == "__main__":
    main()
