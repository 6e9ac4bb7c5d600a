"""Experiment 1 of the paper (Fig. 2): isolated cells that differ in marker location or in the shape of the nucleus.

Usage: ``python -m experiments.synthetic [-o DIR] [--seeds N]``

For each seed, cells of seven types are generated, and a model is trained on them with the settings of the paper. Mean
intensity in the nucleus (IE), interpretability (I) and embedding (F) are compared with each other and with a network of
the same encoder that was trained on the types. Prints tables and saves figures in DIR.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import ndimage
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nextmarker as nm
from experiments.supervised import classify_supervised

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from spatialdata import SpatialData

N_CELLS = 2000
PATCH_SIZE = 18  # pixels; nuclei are 10 to 15 wide
PRESET = "paper-synthetic"
# Higher resolutions separate bright from faint cells of a type; the smallest type has 120 cells.
WHOLE_TYPES = {"n_neighbors": 15, "resolution": 0.2}
# The control has a higher learning rate; with that of the paper it needs several times as many steps.
SUPERVISED = {"steps": 1000, "batch_size": 128, "learning_rate": 0.01, "final_learning_rate": 1e-4, "warmup": 0.1}
IMAGE = "cells_1"
KEYS = {"IE": "X_intensity", "I": "X_interpretability", "F": "X_nextmarker"}
CONTROL = "supervised"


class Run(NamedTuple):
    """Results of one seed."""

    sdata: SpatialData
    scores: pd.DataFrame  # one row per representation and for the control
    confusions: dict[str, pd.DataFrame]  # number of test cells by true and predicted type


def main() -> None:
    """Run the experiment, print the tables and draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("synthetic"), help="folder (default: synthetic)")
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions (default: 3)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    runs = [run(seed) for seed in range(arguments.seeds)]

    print(summarize([each.scores for each in runs]).to_string())
    confusions = {name: sum(each.confusions[name] for each in runs) for name in runs[0].confusions}
    for name, counts in confusions.items():
        print(f"\n{name}: percent of the test cells of a type (rows) that are assigned to each type (columns)")
        print(percent(counts).round(1).to_string())
    draw_types(runs[0].sdata).savefig(arguments.output / "types.png")
    draw_umaps(runs[0].sdata["table"]).savefig(arguments.output / "umap.png")
    draw_confusions(confusions).savefig(arguments.output / "confusion.png")


def run(seed: int) -> Run:
    """Generate cells, train, embed, cluster and measure."""
    sdata = make_cells(N_CELLS, seed)
    adata = sdata["table"]
    model = nm.tl.train(sdata, PATCH_SIZE, preset=PRESET, random_state=seed)
    nm.tl.embed(sdata, model)
    for name, key in KEYS.items():
        nm.tl.cluster(adata, use_rep=key, key_added=name, **WHOLE_TYPES)
        nm.tl.cluster(adata, use_rep=key, key_added=f"{name}_default")

    types = adata.obs["cell_type"].cat
    codes = types.codes.to_numpy()
    learn, test = train_test_split(np.arange(len(codes)), test_size=0.2, stratify=codes, random_state=seed)
    predicted = {name: classify(adata.obsm[key], codes, learn, seed) for name, key in KEYS.items()}
    predicted[CONTROL] = classify_supervised(
        sdata[IMAGE].to_numpy(),
        adata.obsm["spatial"],
        codes,
        learn,
        model.config,
        model.normalization.start,
        replace(nm.nn.PRESETS[PRESET][0], **SUPERVISED),
        random_state=seed,
    )
    confusions = {name: count(codes[test], each[test], types.categories) for name, each in predicted.items()}
    return Run(sdata, measure(adata, confusions, learn, test), confusions)


def make_cells(n_cells: int, seed: int, **nuisances: float) -> SpatialData:
    """Synthetic cells in a table, with type, size and mean intensity in the nucleus (arcsinh)."""
    sdata = nm.datasets.synthetic_cells(n_cells, random_state=seed, **nuisances)
    nm.pp.add_cells(sdata, f"truth_{IMAGE}", progress=False)
    adata, masks = sdata["table"], sdata[f"masks_{IMAGE}"].to_numpy()
    truth = sdata[f"truth_{IMAGE}"].loc[adata.obs["source_id"]]
    adata.obs["cell_type"], adata.obs["size"] = truth["cell_type"].array, truth["size"].to_numpy(float)
    means = [ndimage.mean(channel, masks, truth.index) for channel in sdata[IMAGE].to_numpy()]
    adata.obsm[KEYS["IE"]] = np.arcsinh(np.column_stack(means))
    return sdata


def classify(values: np.ndarray, codes: np.ndarray, learn: np.ndarray, seed: int) -> np.ndarray:
    """Classify each cell with a two-layer network: trained on 60 % of the cells, stopped early on 20 %."""
    network = MLPClassifier(128, early_stopping=True, validation_fraction=0.25, max_iter=500, random_state=seed)
    return make_pipeline(StandardScaler(), network).fit(values[learn], codes[learn]).predict(values)


def count(true: np.ndarray, predicted: np.ndarray, names: pd.Index) -> pd.DataFrame:
    """Number of cells by true type (rows) and by predicted type (columns)."""
    pairs = np.bincount(true * len(names) + predicted, minlength=len(names) ** 2)
    return pd.DataFrame(pairs.reshape(len(names), -1), names, names)


def percent(counts: pd.DataFrame) -> pd.DataFrame:
    """Share of each row."""
    return counts.div(counts.sum(axis=1), axis=0) * 100


def measure(adata: AnnData, confusions: dict[str, pd.DataFrame], learn: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """All scores of one seed, one row per representation and for the control."""
    rows = {name: {"accuracy": accuracy(counts)} for name, counts in confusions.items()}
    for name, key in KEYS.items():
        separation = nm.metrics.separation(adata, "cell_type", use_rep=key).iloc[0]
        whole, default = (
            nm.metrics.agreement(adata, "cell_type", clusters).iloc[0] for clusters in (name, f"{name}_default")
        )
        rows[name] |= {
            "silhouette": separation["silhouette"],
            "Davies-Bouldin": separation["davies_bouldin"],
            "ARI": whole["ari"],
            "clusters": whole["n_groups"],
            "ARI by default": default["ari"],
            "R2 of size": size_r2(adata.obsm[key], adata.obs["size"].to_numpy(), learn, test),
        }
    return pd.DataFrame(rows).T


def accuracy(counts: pd.DataFrame) -> float:
    """Fraction of cells on the diagonal."""
    return np.trace(counts) / counts.to_numpy().sum()


def size_r2(values: np.ndarray, size: np.ndarray, learn: np.ndarray, test: np.ndarray) -> float:
    """Fraction of the variance of size in the test cells that a linear (ridge) regression explains."""
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 3, 7))).fit(values[learn], size[learn])
    return model.score(values[test], size[test])


def summarize(scores: list[pd.DataFrame]) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, as text."""
    seeds = pd.concat(scores, keys=range(len(scores))).groupby(level=1, sort=False)
    mean, spread = (table.map("{:.3f}".format) for table in (seeds.mean(), seeds.std(ddof=0)))
    return (mean + " ± " + spread).where(seeds.mean().notna(), "")


def draw_types(sdata: SpatialData, half: int = 14) -> Figure:
    """One cell of each type (rows) in each marker (columns), each marker on its own scale (Fig. 2A)."""
    adata, image = sdata["table"], sdata[IMAGE].to_numpy()
    names = adata.obs["cell_type"].cat.categories
    figure, axes = plt.subplots(len(names), len(image), figsize=(5, 7), dpi=90, layout="constrained")
    for ax, marker in zip(axes[0], adata.var_names, strict=True):
        ax.set_title(marker)
    for row, name in zip(axes, names, strict=True):
        x, y = adata.obsm["spatial"][np.flatnonzero(adata.obs["cell_type"] == name)[0]].astype(int)
        for ax, channel in zip(row, image, strict=True):
            patch = channel[y - half : y + half, x - half : x + half]
            ax.imshow(patch, cmap="gray", vmin=0, vmax=np.percentile(channel[channel > 1], 90))
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def draw_umaps(adata: AnnData) -> Figure:
    """UMAP of each representation (columns), coloured by type and by size (rows) (Fig. 2B, D)."""
    figure, axes = plt.subplots(2, len(KEYS), figsize=(12, 7), dpi=75, layout="constrained")
    for name, (above, below) in zip(KEYS, axes.T, strict=True):
        sc.tl.umap(adata, neighbors_key=f"{name}_neighbors")
        adata.obsm[f"umap_{name}"] = adata.obsm.pop("X_umap")
        last = name == list(KEYS)[-1]
        shown = {"basis": f"umap_{name}", "show": False, "frameon": False, "size": 12}
        by_type = {"color": "cell_type", "title": f"{name}, types", "legend_loc": "right margin" if last else None}
        by_size = {"color": "size", "title": f"{name}, area of the nucleus", "colorbar_loc": "right" if last else None}
        sc.pl.embedding(adata, ax=above, **by_type, **shown)
        sc.pl.embedding(adata, ax=below, **by_size, **shown)
    return figure


def draw_confusions(confusions: dict[str, pd.DataFrame]) -> Figure:
    """Confusion matrix of each classifier in percent (Fig. 2B)."""
    figure, axes = plt.subplots(1, len(confusions), figsize=(13, 4.6), dpi=75, layout="constrained")
    for ax, (name, counts) in zip(axes, confusions.items(), strict=True):
        shares = percent(counts)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.5:
                ax.text(column, row, f"{share:.0f}", ha="center", va="center", color="w" if share > 50 else "k")
        ax.set_title(f"{name}: {accuracy(counts):.1%}")
        ax.set_xticks(range(len(counts)), counts.columns, rotation=90)
        ax.set_yticks(range(len(counts)), counts.index if ax is axes[0] else [])
    axes[0].set(xlabel="predicted", ylabel="type")
    return figure


if __name__ == "__main__":
    main()
