"""Isolated cells that differ in marker location and shape, with uneven staining and background.

Usage: ``python -m experiments.shapes [--seeds N] [--cells N]``

There are eight types (``nm.datasets.synthetic_cells(swapped=True)``): in two pairs, two markers swap their location; in
a third pair, the nucleus is round or lobed. Staining varies by 35 % between cells, and each marker of each cell has its
own background. A model is trained with the default settings. Mean intensity in the nucleus (IE), interpretability (I)
and embedding (F) are compared with each other and with a network of the same encoder that was trained on the types
(supervised). Prints one table.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

import nextmarker as nm
from experiments.supervised import classify_supervised
from experiments.synthetic import CONTROL, IMAGE, KEYS, SUPERVISED, classify, make_cells, summarize

if TYPE_CHECKING:
    from anndata import AnnData

NUISANCES = {"swapped": True, "staining": 0.35, "background": 0.3}
PATCH_SIZE = 28  # pixels, cells with their surroundings
FIRST_SEED = 10  # lower seeds were used to choose the defaults


def main() -> None:
    """Measure all seeds and print mean and standard deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions (default: 3)")
    parser.add_argument("--cells", type=int, default=3000, help="number of cells (default: 3000)")
    arguments = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    print(summarize([measure(arguments.cells, seed) for seed in seeds]).to_string())


def measure(n_cells: int, seed: int, training: nm.nn.TrainingConfig | None = None) -> pd.DataFrame:
    """Scores of one seed, one row per representation and one for the control."""
    training = training or nm.nn.TrainingConfig()
    sdata = make_cells(n_cells, seed, **NUISANCES)
    adata = sdata["table"]
    model = nm.tl.train(sdata, PATCH_SIZE, training=training, random_state=seed, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    codes = adata.obs["cell_type"].cat.codes.to_numpy()
    learn, test = train_test_split(np.arange(len(codes)), test_size=0.3, stratify=codes, random_state=seed)
    rows = {name: score(adata, key, codes, learn, test, seed) for name, key in KEYS.items()}
    supervised = classify_supervised(
        sdata[IMAGE].to_numpy(),
        adata.obsm["spatial"],
        codes,
        learn,
        model.config,
        model.normalization.start,
        replace(training, **SUPERVISED, marker_dropout=0.0, swap_surroundings=False),
        random_state=seed,
    )
    rows[CONTROL] = {"MLP": balanced_accuracy_score(codes[test], supervised[test])}
    return pd.DataFrame(rows).T


def score(
    adata: AnnData, key: str, codes: np.ndarray, learn: np.ndarray, test: np.ndarray, seed: int
) -> dict[str, float]:
    """Balanced accuracy of a two-layer network and of the 15 nearest neighbours; ARI of the default clusters."""
    values = adata.obsm[key]
    neighbours = KNeighborsClassifier(15).fit(values[learn], codes[learn]).predict(values[test])
    nm.tl.cluster(adata, use_rep=key)
    clusters = nm.metrics.agreement(adata, "cell_type", "nextmarker").iloc[0]
    return {
        "MLP": balanced_accuracy_score(codes[test], classify(values, codes, learn, seed)[test]),
        "kNN": balanced_accuracy_score(codes[test], neighbours),
        "ARI": clusters["ari"],
        "clusters": clusters["n_groups"],
    }


if __name__ == "__main__":
    main()
