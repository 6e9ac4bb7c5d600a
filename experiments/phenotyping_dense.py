"""Dense tissue, whose types are known exactly: types that signatures give to cells at detected centres."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

import nextmarker as nm
from experiments.dense import DETECTED, FIRST_SEED, N_IMAGES, NUCLEAR, SETTINGS
from nextmarker._regions import read_regions

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

SHOWN: Final = ("clean", "hazy")
STATES: Final = ("Ki67", "FOXP3")  # markers that exclude no type; all others are of lineages
SHORT: Final = {
    "tumour": "PanCK+ CD45-",
    "proliferating tumour": "PanCK+ CD45- Ki67+",
    "B cell": "CD45+ CD20+ CD3-",
    "T helper": "CD45+ CD3+ CD20- CD4+ CD8-",
    "regulatory T": "CD45+ CD3+ CD20- CD4+ CD8- FOXP3+",
    "cytotoxic T": "CD45+ CD3+ CD20- CD8+ CD4-",
    "endothelium": "CD31+ CD45- PanCK-",
    "macrophage": "CD45+ CD68+ CD3- CD20-",
    "fibroblast": "SMA+ CD45- PanCK-",
}


def name_dense_tissue(seeds: int, output: Path) -> pd.DataFrame:
    """Macro-F1 of the types of clusters and of cells in each setting: mean and range over the seeds."""
    runs = product(SHOWN, range(FIRST_SEED, FIRST_SEED + seeds))
    scores = pd.concat({run: score(embed_once(*run, output)) for run in runs}, names=["setting", "seed"])
    return scores.unstack("seed").agg(["mean", "min", "max"], axis=1)


def embed_once(setting: str, seed: int, output: Path) -> AnnData:
    """Table of one tissue with embeddings and true types, kept for the next time."""
    kept = output / f"dense_{setting}-{seed}.h5ad"
    if not kept.exists():
        print(f"{kept}", flush=True)
        sdata = nm.datasets.dense_tissue(N_IMAGES, **SETTINGS[setting], random_state=seed)
        draft = kept.with_suffix(".unfinished")
        embed(sdata, seed).write_h5ad(draft)
        draft.replace(kept)
    return ad.read_h5ad(kept)


def embed(sdata: SpatialData, seed: int, training: nm.nn.TrainingConfig | None = None) -> AnnData:
    """Embed the detected cells with a model trained on them, and add their true types."""
    nm.pp.detect_cells(sdata, NUCLEAR, key_added=DETECTED, table_key=DETECTED, progress=False)
    model = nm.tl.train(sdata, training=training, table_key=DETECTED, random_state=seed, progress=False)
    nm.tl.embed(sdata, model, table_key=DETECTED, progress=False)
    adata = sdata[DETECTED]
    adata.obs["true"] = true_types(sdata)
    return adata


def score(adata: AnnData) -> pd.Series:
    """Macro-F1 of all types, by signatures and way of naming; cells without one type count as wrong."""
    nm.tl.cluster(adata)
    scores = {}
    for (name, signatures), by in product({"short": SHORT, "matrix": matrix()}.items(), ("cluster", "cell")):
        nm.tl.annotate(adata, signatures, by=by)
        true, found = (adata.obs[key].astype(str) for key in ("true", "cell_type"))
        scores[name, by] = f1_score(true, found, labels=list(nm.datasets.DENSE_TYPES), average="macro")
    return pd.Series(scores).rename_axis(["signatures", "by"])


def matrix() -> pd.DataFrame:
    """Signatures as a matrix, (types, markers): 1 for a type's own markers, -1 for all of other lineages."""
    markers = sorted({marker for own in nm.datasets.DENSE_TYPES.values() for marker in own})
    table = pd.DataFrame(0, index=list(nm.datasets.DENSE_TYPES), columns=markers)
    table.loc[:, [marker for marker in markers if marker not in STATES]] = -1
    for name, own in nm.datasets.DENSE_TYPES.items():
        table.loc[name, list(own)] = 1
    return table


def true_types(sdata: SpatialData) -> np.ndarray:
    """Type of the cell under each detected centre; every pixel of this tissue belongs to a cell."""
    types = np.empty(sdata[DETECTED].n_obs, object)
    for region in read_regions(sdata, DETECTED):
        column, row = np.floor(region.centres).astype(int).T
        labels = sdata[f"masks_{region.image}"].to_numpy()[row, column]
        types[region.rows] = sdata[f"truth_{region.image}"]["cell_type"].loc[labels].to_numpy()
    return types
