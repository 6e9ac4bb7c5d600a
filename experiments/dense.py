"""Dense synthetic tissue: cell types from centres alone, compared with means in true and in segmented masks.

Usage: ``python -m experiments.dense [-o DIR] [--seeds N] [--cells N]``

For each seed and setting, ``nm.datasets.dense_tissue`` generates four images. A model is trained at the detected
centres, without masks or types, and embeds the cells at these and at the true centres. The true types serve for
scoring. Scores are saved in DIR at once, so an interrupted run can be continued. Prints one table per setting, and
saves it in DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import expand_labels, watershed
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nextmarker as nm
from nextmarker._regions import read_regions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData

SETTINGS: Final[dict[str, dict[str, float]]] = {
    "clean": {},
    "hard": {"counts": 0.25, "spacing": 8.0, "blur": 1.0},
    "hazy": {"background": 0.1},
    "offset": {"offset": 100.0},
}
N_IMAGES = 4
FIRST_SEED = 10  # lower seeds were used to choose the defaults
NUCLEAR = "DNA"
DETECTED = "detected"
LETTERS: Final = {"I": "X_interpretability", "F": "X_nextmarker"}


def main() -> None:
    """Measure the scores that are missing, and print all tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("dense"), help="folder (default: dense)")
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions (default: 3)")
    parser.add_argument("--cells", type=int, default=400, help="cells in each image (default: 400)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for setting in SETTINGS:
        seeds = [
            measure_once(setting, seed, arguments.cells, arguments.output)
            for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds)
        ]
        table = over_seeds(seeds)
        print(f"\n{setting}\n{table.to_string()}", flush=True)
        table.to_csv(arguments.output / f"{setting}.csv")


def measure_once(setting: str, seed: int, n_cells: int, output: Path) -> pd.DataFrame:
    """Scores of one tissue, read from the folder if they exist."""
    kept = output / f"{setting}-{n_cells}_cells-{seed}.csv"
    if not kept.exists():
        print(f"{setting}, seed {seed}", flush=True)
        sdata = nm.datasets.dense_tissue(N_IMAGES, n_cells, **SETTINGS[setting], random_state=seed)
        draft = kept.with_suffix(".unfinished")
        measure(sdata, seed).to_csv(draft)
        draft.rename(kept)
    return pd.read_csv(kept, index_col="representation")


def measure(sdata: SpatialData, seed: int, training: nm.nn.TrainingConfig | None = None) -> pd.DataFrame:
    """Scores of one tissue, one row per representation."""
    nm.pp.add_cells(sdata, "truth", progress=False)
    nm.pp.detect_cells(sdata, NUCLEAR, key_added=DETECTED, table_key=DETECTED, progress=False)
    model = nm.tl.train(sdata, training=training, table_key=DETECTED, random_state=seed)
    compared = [
        in_masks(sdata, {image: sdata[f"masks_{image}"].to_numpy() for image in sdata.images}, "true"),
        in_masks(sdata, {image: segment(pixels.sel(c=NUCLEAR)) for image, pixels in sdata.images.items()}, "segmented"),
        at_centres(sdata, model, "table", "true"),
        at_centres(sdata, model, DETECTED, "detected"),
    ]
    n_cells = sum(len(sdata[f"truth_{image}"]) for image in sdata.images)
    return pd.concat([score(cells, n_cells) for cells in compared]).rename_axis("representation")


def segment(nuclear: np.ndarray) -> np.ndarray:
    """Segment cells with a common pipeline; int (y, x), 0 for background.

    Square roots of the nuclear channel are smoothed (Gaussian of 1 px) and separated from the background by Otsu's
    threshold. A watershed from maxima more than 2 px apart gives the nuclei, which are expanded by up to 2 px.
    """
    smooth = ndimage.gaussian_filter(np.sqrt(np.asarray(nuclear, float)), 1.0)
    foreground = smooth > threshold_otsu(smooth)
    seeds = np.zeros(smooth.shape, int)
    maxima = peak_local_max(smooth, min_distance=2, labels=foreground.astype(int), exclude_border=False)
    seeds[tuple(maxima.T)] = np.arange(1, len(maxima) + 1)
    return expand_labels(watershed(-smooth, seeds, mask=foreground), 2)


def in_masks(sdata: SpatialData, masks: Mapping[str, np.ndarray], kind: str) -> AnnData:
    """Square roots of the mean counts in masks; a mask is assigned to the true cell with most of its pixels.

    If several masks are assigned to one cell, the one with the most pixels in the cell counts.
    """
    images, labels, means = [], [], []
    for image, mask in masks.items():
        pairs = pd.DataFrame({"mask": mask.ravel(), "cell": sdata[f"masks_{image}"].to_numpy().ravel()})
        shared = pairs[pairs["mask"] > 0].value_counts().reset_index()  # most pixels first
        shared = shared.drop_duplicates("mask")
        images += [image] * len(shared)
        labels += shared["cell"].tolist()
        means.append(np.column_stack([ndimage.mean(each, mask, shared["mask"]) for each in sdata[image].to_numpy()]))
    return true_cells(sdata, images, labels, {f"means in {kind} masks": np.sqrt(np.vstack(means))})


def at_centres(sdata: SpatialData, model: nm.nn.NeXtMarker, table_key: str, kind: str) -> AnnData:
    """I and F at centres; a centre is assigned to the true cell around it, and the first of several counts."""
    nm.tl.embed(sdata, model, table_key=table_key, progress=False)
    adata = sdata[table_key]
    labels = np.empty(adata.n_obs, int)
    for region in read_regions(sdata, table_key):
        column, row = np.floor(region.centres).astype(int).T
        labels[region.rows] = sdata[f"masks_{region.image}"].to_numpy()[row, column]
    embeddings = {f"{letter} at {kind} centres": adata.obsm[key] for letter, key in LETTERS.items()}
    return true_cells(sdata, adata.obs["image"], labels, embeddings)


def true_cells(
    sdata: SpatialData, images: list[str] | pd.Series, labels: list[int] | np.ndarray, values: Mapping[str, np.ndarray]
) -> AnnData:
    """Table of the cells that were found, each once, with image and true type."""
    cells = pd.MultiIndex.from_arrays([np.asarray(images, object), labels])
    types = pd.concat({image: sdata[f"truth_{image}"]["cell_type"] for image in sdata.images})
    first = ~cells.duplicated()
    obs = pd.DataFrame({"image": cells.get_level_values(0), "cell_type": types.loc[cells].array})[first]
    return AnnData(obs=obs.rename(index=str), obsm={name: each[first] for name, each in values.items()})


def score(adata: AnnData, n_cells: int) -> pd.DataFrame:
    """Scores of each representation, (representations, scores).

    Balanced accuracy of the 15 nearest neighbours, leaving out one image at a time; ARI of the default clusters; mixing
    of images within types, 1 for random; balanced accuracy of a linear classifier for the image of a cell, a quarter
    for random; and the fraction of true cells that were found.
    """
    rows = {}
    for name in adata.obsm:
        types = nm.metrics.probe(adata, "cell_type", use_rep=name, classifier="knn").iloc[0]
        nm.tl.cluster(adata, use_rep=name)
        clusters = nm.metrics.agreement(adata, "cell_type", "nextmarker").iloc[0]
        mixing = nm.metrics.batch_mixing(adata, "image", label_key="cell_type", use_rep=name).iloc[-1]
        rows[name] = {
            "kNN": types["balanced_accuracy"],
            "ARI": clusters["ari"],
            "clusters": clusters["n_groups"],
            "mixing": mixing["neighbor_entropy"],
            "image accuracy": image_accuracy(adata, name),
            "found": adata.n_obs / n_cells,
        }
    return pd.DataFrame(rows).T


def image_accuracy(adata: AnnData, name: str) -> float:
    """Balanced accuracy of a linear classifier for the image of a cell, in five-fold cross-validation."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return cross_val_score(classifier, adata.obsm[name], adata.obs["image"], scoring="balanced_accuracy").mean()


def over_seeds(scores: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, as text."""
    seeds = pd.concat(scores).groupby(level="representation", sort=False)
    mean, spread = (table.map("{:.3f}".format) for table in (seeds.mean(), seeds.std(ddof=0)))
    return mean + " ± " + spread


if __name__ == "__main__":
    main()
