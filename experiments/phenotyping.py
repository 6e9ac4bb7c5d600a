"""Phenotypes of real tissue, from centres alone and from mean intensity in masks, by the same signatures.

Usage: ``python -m experiments.phenotyping DATA [-o DIR] [--seeds N]``

DATA holds NAME_image.ome.tif, NAME_mask.tif and NAME_cells.csv (label, x, y, cell_type) of one patient each. The
workflow of nextmarker detects centres, trains a model and clusters F; that of integrated expression (IE) clusters means
in the masks (arcsinh), as they are and with every marker scaled to unit variance. Clusters and cells of all are named
by the signatures in ``experiments.phenotyping_tables``, and compared with the published types, with each other, and
with reruns of their own. The places of the types are described by their neighbours and by niches. Signatures are also
tried on dense tissue, whose types are known exactly. Models and embeddings are kept in DIR, so that a run that was
stopped goes on. Prints tables, and leaves them and figures in DIR.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.preprocessing import StandardScaler

import nextmarker as nm
from experiments.dcis import file_of
from experiments.phenotyping_dense import name_dense_tissue
from experiments.phenotyping_space import describe_space
from experiments.phenotyping_tables import (
    BY_CELL,
    BY_CLUSTER,
    CLUSTERS,
    IE,
    LINEAGE_OF,
    OURS,
    PUBLISHED,
    PUBLISHED_TYPE,
    RESOLUTIONS,
    SCALED,
    SIGNATURES,
    UNNAMED,
    compare,
    lineages,
    transfer,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

REPRESENTATION: Final = {OURS: "X_nextmarker", IE: "X_arcsinh", SCALED: "X_scaled"}
ARCSINH = "arcsinh"
DEFAULT, DEFAULT_BY_CELL = (f"{by} {RESOLUTIONS[0]}" for by in (BY_CLUSTER, BY_CELL))
CROP = (350, 350, 300, 300)  # x, y, width, height in pixels
ANNOTATED = "annotated"
IN_TABLES = ("Cells of other types in", "In . of .* clusters", "Many cells are unlike")  # warnings
COFACTOR = 1.0  # as in the other experiments; the means of most markers are below one count


def main() -> None:
    """Train what is not there yet, print all tables, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of NAME_image.ome.tif, NAME_mask.tif and NAME_cells.csv")
    parser.add_argument("-o", "--output", type=Path, default=Path("phenotyping"), help="folder (default: phenotyping)")
    parser.add_argument("--seeds", type=int, default=2, help="runs of each workflow, at least 2 (default: 2)")
    parser.add_argument("--dense-seeds", type=int, default=3, help="repetitions on dense tissue (default: 3)")
    parser.add_argument("--nuclear-channel", default="HH3", help="channel in which centres are detected (default: HH3)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for start in IN_TABLES:
        warnings.filterwarnings("ignore", start)

    sdata = read(arguments.data, arguments.nuclear_channel)
    runs = {(OURS, seed): embed_once(sdata, OURS, seed, arguments.output) for seed in range(arguments.seeds)}
    unseen = embed_once(sdata, f"{OURS}_without_one", 0, arguments.output, list(sdata.images)[1:])
    for seed in range(arguments.seeds):
        runs |= {(workflow, seed): measure_means(sdata, corrected=seed > 0) for workflow in (IE, SCALED)}
    for (workflow, seed), adata in runs.items():
        name_cells(adata, workflow, seed)
    obs = sdata["table"].obs
    for name, table in compare(runs, obs[obs["matched"].notna()]).items():
        show(name, table, arguments.output)
    draw(sdata, runs, arguments.output)
    for name, table in describe_space(sdata, runs[OURS, 0], DEFAULT_BY_CELL, arguments.output).items():
        show(name, table, arguments.output)
    show("transfer", transfer_patients(runs[OURS, 0], unseen), arguments.output)
    show("dense", name_dense_tissue(arguments.dense_seeds, arguments.output), arguments.output)


def show(name: str, table: pd.DataFrame, output: Path) -> None:
    """Print a table, and keep it."""
    print(f"\n{name}\n{table.round(3).to_string()}", flush=True)
    table.to_csv(output / f"{name}.csv")


def read(folder: Path, nuclear_channel: str) -> SpatialData:
    """Images with detected centres (`table`) and means in masks with published types (`intensity`), matched."""
    sdata = nm.io.read(sorted(folder.glob("*_image.ome.tif")))
    nm.pp.add_masks(sdata, {image: file_of(folder, image, "mask.tif") for image in sdata.images})
    nm.pp.detect_cells(sdata, nuclear_channel, progress=False)
    nm.pp.integrate(sdata, "masks", cofactor=COFACTOR, progress=False)
    obs = sdata["intensity"].obs
    cells = {image: pd.read_csv(file_of(folder, image, "cells.csv"), index_col="label") for image in sdata.images}
    types = pd.concat(cells)["cell_type"].reindex(pd.MultiIndex.from_frame(obs[["image", "instance_id"]])).array
    obs[PUBLISHED_TYPE] = pd.Categorical(types)
    obs[PUBLISHED] = pd.Categorical(pd.Series(types).map(LINEAGE_OF))
    nm.pp.match_cells(sdata, "intensity", columns=[PUBLISHED, PUBLISHED_TYPE], progress=False)
    return sdata


def embed_once(sdata: SpatialData, name: str, seed: int, output: Path, images: list[str] | None = None) -> AnnData:
    """Embed all centres with a model of some images, by default all, and keep both for the next time."""
    kept, saved = output / f"{name}-{seed}.h5ad", output / f"{name}-{seed}.safetensors"
    if not kept.exists():
        print(f"{kept}", flush=True)
        if not saved.exists():
            some = sdata if images is None else sdata.subset([*images, *(f"cells_{image}" for image in images)])
            nm.tl.train(some, random_state=seed).save(saved)
        nm.tl.embed(sdata, saved, progress=False)
        draft = kept.with_suffix(".unfinished")
        sdata["table"].write_h5ad(draft)
        draft.replace(kept)
    return ad.read_h5ad(kept)


def measure_means(sdata: SpatialData, *, corrected: bool) -> AnnData:
    """Copy the table of means; if asked, subtract the mean of all pixels of the image outside of its masks, to zero."""
    adata = sdata["intensity"].copy()
    if corrected:
        for image in sdata.images:
            outside = sdata[image].to_numpy()[:, sdata[f"masks_{image}"].to_numpy() == 0].mean(axis=1)
            rows = (adata.obs["image"] == image).to_numpy()
            adata.X[rows] = np.maximum(adata.X[rows] - outside, 0)
        adata.layers[ARCSINH] = np.arcsinh(adata.X / COFACTOR)
    adata.obsm[REPRESENTATION[IE]] = adata.layers[ARCSINH]
    adata.obsm[REPRESENTATION[SCALED]] = StandardScaler().fit_transform(adata.layers[ARCSINH])
    return adata


def name_cells(adata: AnnData, workflow: str, seed: int) -> None:
    """Cluster the cells, and name clusters and cells, at each resolution."""
    use_rep, layer = REPRESENTATION[workflow], "interpretability" if workflow == OURS else ARCSINH
    for resolution in RESOLUTIONS:
        clusters = f"{CLUSTERS} {resolution}"
        nm.tl.cluster(adata, use_rep=use_rep, resolution=resolution, key_added=clusters, random_state=seed)
        for by, way in ((BY_CLUSTER, "cluster"), (BY_CELL, "cell")):
            key = f"{by} {resolution}"
            nm.tl.annotate(adata, SIGNATURES, groupby=clusters, by=way, layer=layer, key_added=key)


def transfer_patients(adata: AnnData, unseen: AnnData) -> pd.DataFrame:
    """Type each patient by the nine others, and the first also with a model that has not seen it."""
    lineage = lineages(adata.obs[DEFAULT].astype(object)).replace(UNNAMED, np.nan)
    images = adata.obs["image"].cat.categories
    tables = {}
    for name, table, chosen in (("", adata, images), (", not seen in training", unseen, images[:1])):
        table.obs[ANNOTATED] = pd.Categorical(lineage)
        scores = {key: transfer(table, key, chosen) for key in (PUBLISHED, ANNOTATED)}
        tables[name] = pd.concat(scores, axis=1).rename(index=lambda image, name=name: f"{image}{name}")
    return pd.concat(tables.values())


def draw(sdata: SpatialData, runs: dict[tuple[str, int], AnnData], output: Path) -> None:
    """Figures of the first runs: clusters and types, thresholds, agreement of the workflows, and matched cells."""
    adata, means = runs[OURS, 0], runs[IE, 0]
    for workflow, table in ((OURS, adata), (IE, means)):
        save(nm.pl.annotation(table, key=DEFAULT), output / f"annotation_{workflow}.png")
        save(nm.pl.thresholds(table, key=DEFAULT)[0], output / f"thresholds_{workflow}.png")
    adata.obs[OURS] = in_order(lineages(adata.obs[DEFAULT_BY_CELL].astype(object)))
    adata.obs[IE] = in_order(lineages(means.obs[DEFAULT_BY_CELL].astype(object)).reindex(adata.obs["matched"]))
    sc.tl.umap(adata, neighbors_key=f"{CLUSTERS} {RESOLUTIONS[0]}_neighbors")
    save(nm.pl.agreement(adata, IE, OURS)[0], output / "agreement.png")
    save(nm.pl.matches(sdata, crop=CROP), output / "matches.png")


def in_order(names: pd.Series) -> pd.Categorical:
    """Lineages in the order of the signatures, and last those without a name."""
    return pd.Categorical(names, [*dict.fromkeys(LINEAGE_OF.values()), UNNAMED])


def save(ax: plt.Axes, path: Path) -> None:
    """Write a figure, and close it."""
    ax.figure.savefig(path, dpi=150)
    plt.close(ax.figure)


if __name__ == "__main__":
    main()
