"""The figures of the gallery and of the API pages, all from one synthetic tissue.

The build of the documentation draws them all into a folder, see `conf.py`. By hand: ``python docs/figures.py FOLDER``.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.figure import Figure
from spatialdata import SpatialData

import nextmarker as nm

SIGNATURES = {
    "tumour": "PanCK+ CD45- Ki67-",
    "dividing tumour": "PanCK+ CD45- Ki67+",
    "B cell": "CD45+ CD20+ CD3-",
    "T helper": "CD45+ CD3+ CD4+ FOXP3-",
    "regulatory T": "CD45+ CD3+ CD4+ FOXP3+",
    "cytotoxic T": "CD45+ CD3+ CD8+",
    "macrophage": "CD45+ CD68+ CD3-",
    "endothelium": "CD31+ CD45-",
    "fibroblast": "SMA+ CD45-",
}
SHEET = pd.DataFrame({"image": [f"dense_{n}" for n in range(1, 7)], "patient": [f"P{n}" for n in range(1, 7)]})
SHEET["group"] = ["control", "treated"] * 3


class Tissue(NamedTuple):
    """What the figures are drawn from."""

    sdata: SpatialData
    adata: AnnData
    model: nm.nn.NeXtMarker
    cohort: AnnData


def analyse() -> Tissue:
    """Analyse six images of dense tissue, each of another patient; a short training is enough here."""
    sdata = nm.datasets.dense_tissue(n_images=6, n_cells=300, background=0.1)
    nm.pp.detect_cells(sdata, nuclear_channels="DNA", diameter=7, progress=False)
    training = nm.nn.TrainingConfig(steps=100, batch_size=128)
    model = nm.tl.train(sdata, training=training, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    adata = sdata["table"]
    nm.tl.cluster(adata)
    nm.tl.marker_attribution(adata)
    nm.tl.annotate(adata, SIGNATURES)
    sc.tl.umap(adata, neighbors_key="nextmarker_neighbors")
    nm.tl.neighborhood(adata, permutations=200)

    nm.pp.integrate(sdata, "masks", cofactor=1, progress=False)
    means = sdata["intensity"]
    nm.tl.cluster(means, use_rep="layers/arcsinh")
    nm.tl.annotate(means, SIGNATURES, layer="arcsinh", key_added="mean_type")
    nm.pp.match_cells(sdata, "intensity", columns=["mean_type"], progress=False)
    return Tissue(sdata, adata, model, make_cohort(adata))


def make_cohort(adata: AnnData) -> AnnData:
    """Leave cells out at random, B cells more often in controls, so that patients differ in composition."""
    rng = np.random.default_rng(0)
    pairs = pd.MultiIndex.from_frame(adata.obs[["image", "cell_type"]].astype(str))
    kept = pd.Series(rng.uniform(0.7, 1, pairs.nunique()), pairs.unique())
    kept[[image in SHEET["image"][::2].to_list() and kind == "B cell" for image, kind in kept.index]] *= 0.4
    cohort = adata[rng.random(adata.n_obs) < kept.loc[pairs].to_numpy()].copy()
    nm.pp.add_samples(cohort, SHEET)
    nm.tl.compare_groups(cohort, reference="control")
    return cohort


def cells(tissue: Tissue):
    return nm.pl.cells(tissue.sdata, "dense_1", color="cell_type")


def matches(tissue: Tissue):
    return nm.pl.matches(tissue.sdata, "dense_1")


def training(tissue: Tissue):
    return nm.pl.training(tissue.adata)


def views(tissue: Tissue):
    return nm.pl.views(nm.get.views(tissue.sdata, "dense_1_117"), markers=["DNA", "CD45", "CD3", "CD4"])


def cell_attribution(tissue: Tissue):
    return nm.pl.cell_attribution(nm.get.cell_attribution(tissue.sdata, "dense_1_117", tissue.model))


def normalization(tissue: Tissue):
    return nm.pl.normalization(tissue.sdata)


def marker_attribution(tissue: Tissue):
    return nm.pl.marker_attribution(tissue.adata, dendrogram=True)


def agreement(tissue: Tissue):
    return nm.pl.agreement(tissue.adata, "cell_type", "mean_type")


def annotation(tissue: Tissue):
    return nm.pl.annotation(tissue.adata)


def thresholds(tissue: Tissue):
    return nm.pl.thresholds(tissue.adata)


def patches(tissue: Tissue):
    return nm.pl.patches(tissue.sdata, groupby="cell_type", markers=["DNA", "PanCK", "CD45"])


def composition(tissue: Tissue):
    return nm.pl.composition(tissue.cohort, "cell_type", by="patient", group_key="group")


def neighborhood(tissue: Tissue):
    return nm.pl.neighborhood(tissue.adata, sort=True)


def unusual_images(tissue: Tissue):
    return nm.pl.unusual_images(nm.get.unusual_images(tissue.adata))


def groups(tissue: Tissue):
    return nm.pl.groups(tissue.cohort)


FIGURES = [
    *[cells, matches, training, views, cell_attribution, normalization, marker_attribution, agreement, annotation],
    *[thresholds, patches, composition, neighborhood, unusual_images, groups],
]


def draw_all(folder: Path) -> None:
    """Draw each figure as `folder`/<name>.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), plt.rc_context({"savefig.dpi": 110, "savefig.bbox": "tight"}):
        warnings.simplefilter("ignore")  # of the uneven background: see the gallery
        tissue = analyse()
        for draw in FIGURES:
            figure: Figure = np.asarray(draw(tissue), dtype=object).flat[0].figure
            figure.savefig(folder / f"{draw.__name__}.png")
            plt.close(figure)


if __name__ == "__main__":
    plt.switch_backend("Agg")
    draw_all(Path(sys.argv[1]))
