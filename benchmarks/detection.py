"""Cells that nm.pp.detect_cells finds, against masks.

Usage: ``python -m benchmarks.detection DATA`` with a folder of pairs NAME_image.ome.tif and NAME_mask.tif.

A centre counts once, inside its mask: a mask with a centre inside is found; a second centre in one mask, or a centre on
the background, is false.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

import nextmarker as nm

METHODS = ("maxima", "blobs", "threshold")


def main() -> None:
    """Print precision, recall and F1 for each method, pooled over the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of NAME_image.ome.tif and NAME_mask.tif")
    parser.add_argument("--nuclear-channel", default="HH3", help="nuclear channel (default: HH3)")
    parser.add_argument("--diameter", type=float, help="nuclear diameter in pixels (default: from the data)")
    arguments = parser.parse_args()
    sdata, masks = _read(arguments.data)
    rows = {}
    for method in METHODS:
        start = time.perf_counter()
        nm.pp.detect_cells(
            sdata, arguments.nuclear_channel, method=method, diameter=arguments.diameter, overwrite=True, progress=False
        )
        counts = _count(sdata, masks)
        rows[method] = {**_scores(counts.sum()), "worst F1": counts.apply(_f1, axis=1).min()}
        rows[method]["s"] = time.perf_counter() - start
    print(pd.DataFrame(rows).T.round(3).to_string())


def _read(folder: Path) -> tuple[object, dict[str, np.ndarray]]:
    images = sorted(folder.glob("*_image.ome.tif"))
    if not images:
        msg = f"No *_image.ome.tif in {folder}."
        raise FileNotFoundError(msg)
    sdata = nm.io.read(images)
    paths = [path.with_name(path.name.replace("_image.ome.tif", "_mask.tif")) for path in images]
    return sdata, {image: tifffile.imread(path) for image, path in zip(sdata.images, paths, strict=True)}


def _count(sdata: object, masks: dict[str, np.ndarray]) -> pd.DataFrame:
    """Count masks with a centre, centres and masks in each image."""
    counts = {}
    for image, mask in masks.items():
        centres = sdata.shapes[f"cells_{image}"].geometry
        label = mask[np.floor(centres.y).astype(int), np.floor(centres.x).astype(int)]
        counts[image] = {
            "found": len(np.unique(label[label > 0])),
            "centres": len(label),
            "masks": len(np.unique(mask[mask > 0])),
        }
    return pd.DataFrame(counts).T


def _scores(count: pd.Series) -> dict[str, float]:
    return {
        "precision": count["found"] / count["centres"],
        "recall": count["found"] / count["masks"],
        "F1": _f1(count),
    }


def _f1(count: pd.Series) -> float:
    return 2 * count["found"] / (count["centres"] + count["masks"])


if __name__ == "__main__":
    main()
