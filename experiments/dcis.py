"""Real tissue: cell types of ten patients, from cell centres alone, compared with mean intensity in masks.

Usage: ``python -m experiments.dcis DATA [-o DIR] [--seeds N]``

DATA contains NAME_image.ome.tif, NAME_mask.tif and NAME_cells.csv (label, x, y, cell_type) for each patient. Models are
trained on images and centres; masks are only used for comparison. The default is also trained on the same images with
added background. Embeddings are saved in DIR, so an interrupted run can be continued. Prints tables, and saves them in
DIR.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tifffile
from anndata import AnnData
from scipy import ndimage

import nextmarker as nm
from experiments.controls import embed_control, fix_arcsinh, fuse_early, leave_as_is, share_encoder
from experiments.dcis_background import FOLDER, add_background, background
from experiments.dcis_tables import DEFAULT, all_tables
from nextmarker._regions import read_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spatialdata import SpatialData

PATCH_SIZE = 24  # pixels: 4/3 of the median distance between neighbouring centres, the default here
RADII = (4, 7, 10)  # pixels


def main() -> None:
    """Train the models that are missing, and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of NAME_image.ome.tif, NAME_mask.tif and NAME_cells.csv")
    parser.add_argument("-o", "--output", type=Path, default=Path("dcis"), help="folder (default: dcis)")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions of nextmarker (default: 5)")
    parser.add_argument("--control-seeds", type=int, default=3, help="repetitions of every control (default: 3)")
    parser.add_argument("--nuclear-channel", default="HH3", help="channel in which centres are detected (default: HH3)")
    arguments = parser.parse_args()
    (arguments.output / FOLDER).mkdir(parents=True, exist_ok=True)
    sdata = read(arguments.data)
    for name in models():
        for seed in range(arguments.seeds if name == DEFAULT else arguments.control_seeds):
            train_once(sdata, name, seed, arguments.output)
    hazy = add_background(sdata)
    for seed in range(min(arguments.seeds, arguments.control_seeds)):
        train_once(hazy, DEFAULT, seed, arguments.output / FOLDER)
    for each in (sdata, hazy):
        measure_intensity(each, arguments.data)
    tables = all_tables(sdata, arguments.output)
    tables["background"] = background(sdata["table"], hazy["table"], arguments.output)
    tables["detected"] = score_detected(sdata, arguments.data, arguments.output, arguments.nuclear_channel)
    for name, table in tables.items():
        print(f"\n{name}\n{table.to_string()}", flush=True)
        table.to_csv(arguments.output / f"{name}.csv")


def read(folder: Path) -> SpatialData:
    """Read the images, and the cells at their given centres with their types."""
    sdata = nm.io.read(sorted(folder.glob("*_image.ome.tif")))
    cells = {image: pd.read_csv(file_of(folder, image, "cells.csv"), index_col="label") for image in sdata.images}
    nm.pp.add_cells(sdata, cells, progress=False)
    obs = sdata["table"].obs
    types = [cells[image]["cell_type"].loc[label] for image, label in zip(obs["image"], obs["source_id"], strict=True)]
    obs["cell_type"] = pd.Categorical(types)
    return sdata


def file_of(folder: Path, image: str, ending: str) -> Path:
    """Path of a file of an image."""
    return folder / f"{image.removesuffix('_image')}_{ending}"


def models() -> Mapping[str, Callable[[SpatialData, int], tuple[nm.nn.NeXtMarker, np.ndarray, np.ndarray]]]:
    """The default and its controls, as functions of data and seed that return model, I and F."""
    training, network = nm.nn.TrainingConfig, nm.nn.NetworkConfig
    return {
        DEFAULT: embed,
        "untrained": partial(embed_control, leave_as_is, PATCH_SIZE, None),
        "early fusion": partial(embed_control, fuse_early, PATCH_SIZE, training()),
        "shared encoder": partial(embed_control, share_encoder, PATCH_SIZE, training()),
        "fixed arcsinh": partial(embed_control, fix_arcsinh, PATCH_SIZE, training()),
        "linear axis": partial(embed, training=training(sigmoid_start=0.25), network=network(axis="linear")),
        "three patch sizes": partial(embed, training=training(patch_scales=(1.0, 0.8, 0.6))),
        "images mixed": partial(embed, training=training(batch_by_image=False)),
        "no marker hidden": partial(embed, training=training(marker_dropout=0.0)),
    }


def embed(
    sdata: SpatialData,
    seed: int,
    training: nm.nn.TrainingConfig | None = None,
    network: nm.nn.NetworkConfig | None = None,
) -> tuple[nm.nn.NeXtMarker, np.ndarray, np.ndarray]:
    """Compute model, I and F as users do."""
    model = nm.tl.train(sdata, PATCH_SIZE, training=training, network=network, random_state=seed)
    nm.tl.embed(sdata, model)
    adata = sdata["table"]
    return model, adata.obsm["X_interpretability"], adata.obsm["X_nextmarker"]


def train_once(sdata: SpatialData, name: str, seed: int, output: Path) -> None:
    """Save I and F of one model, unless they exist already."""
    kept = output / f"{name.replace(' ', '_')}-{seed}.npz"
    if not kept.exists():
        print(f"{kept}", flush=True)
        model, interpretability, embedding = models()[name](sdata, seed)
        if name == DEFAULT:
            model.save(kept.with_suffix(".safetensors"), overwrite=True)
        draft = kept.with_suffix(".unfinished")
        with draft.open("wb") as file:
            np.savez(file, I=interpretability.reshape(len(embedding), -1), F=embedding)
        draft.replace(kept)


def measure_intensity(sdata: SpatialData, folder: Path) -> None:
    """Write mean counts into the table: `mask` in the masks, `disc_N_px` in discs around the centres.

    `mask_minus_background` is `mask` minus the mean of all pixels outside of masks, at least zero.
    """
    adata = sdata["table"]
    for name in ("mask", "mask_minus_background", *(f"disc_{radius}_px" for radius in RADII)):
        adata.obsm[name] = np.empty(adata.shape)
    for region in read_regions(sdata):
        counts, mask = region.pixels.to_numpy(), tifffile.imread(file_of(folder, region.image, "mask.tif"))
        labels = adata.obs["source_id"].iloc[region.rows]
        means = np.column_stack([ndimage.mean(each, mask, labels) for each in counts])
        adata.obsm["mask"][region.rows] = means
        adata.obsm["mask_minus_background"][region.rows] = np.maximum(means - counts[:, mask == 0].mean(1), 0)
        column, row = np.floor(region.centres).astype(int).T
        for radius in RADII:
            adata.obsm[f"disc_{radius}_px"][region.rows] = disc_means(counts, row, column, radius)


def score_detected(sdata: SpatialData, folder: Path, output: Path, nuclear_channel: str) -> pd.DataFrame:
    """Balanced accuracy of types at detected centres, and of means in the masks around them; first seed."""
    adata = sdata["table"]
    nm.pp.detect_cells(
        sdata, nuclear_channels=nuclear_channel, key_added="detected", table_key="detected", progress=False
    )
    model = nm.nn.load_model(output / f"{DEFAULT}-0.safetensors")
    nm.tl.embed(sdata, model, table_key="detected", progress=False)
    cell = cells_under_centres(sdata, folder)
    first = (cell >= 0) & ~pd.Series(cell).duplicated().to_numpy()
    counts, embedding = adata.obsm["mask"][cell[first]], sdata["detected"].obsm["X_nextmarker"][first]
    compared = {"mask, arcsinh": np.arcsinh(counts), "mask, square root": np.sqrt(counts), f"{DEFAULT} F": embedding}
    found = AnnData(obs=adata.obs.iloc[cell[first]][["image", "cell_type"]], obsm=compared)
    scores = {}
    for name in ("logistic", "knn"):
        table = nm.metrics.probe(found, "cell_type", use_rep=list(compared), classifier=name)
        scores[name] = table.set_index("representation")["balanced_accuracy"]
    return pd.DataFrame(scores).assign(cells=found.obs["cell_type"].notna().sum())


def cells_under_centres(sdata: SpatialData, folder: Path) -> np.ndarray:
    """Row of the cell whose mask contains each detected centre, -1 for none, (centres,)."""
    obs, cell = sdata["table"].obs, np.full(sdata["detected"].n_obs, -1)
    for region in read_regions(sdata, "detected"):
        inside = obs["image"] == region.image
        row_of = pd.Series(np.flatnonzero(inside), obs["source_id"][inside])
        column, row = np.floor(region.centres).astype(int).T
        labels = tifffile.imread(file_of(folder, region.image, "mask.tif"))[row, column]
        cell[region.rows] = row_of.reindex(labels, fill_value=-1)
    return cell


def disc_means(counts: np.ndarray, row: np.ndarray, column: np.ndarray, radius: int) -> np.ndarray:
    """Mean in a disc around each cell, (cells, channels); the image is reflected at its edges."""
    offset = np.arange(-radius, radius + 1)
    down, along = np.nonzero(offset[:, None] ** 2 + offset**2 <= radius**2)
    padded = np.pad(counts, [(0, 0), (radius, radius), (radius, radius)], mode="symmetric")
    return padded[:, row[:, None] + down, column[:, None] + along].mean(2).T


if __name__ == "__main__":
    main()
