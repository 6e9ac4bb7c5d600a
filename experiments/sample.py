"""Clusters of a sample of the cells, against clusters of all.

Usage: ``python -m experiments.sample [TABLE.h5ad] [--cells N]``

Clusters tables of many cells by ``nm.tl.cluster``, with ``n_sample=`` and without: a mixture of 20 separate types, one
of 12 types that overlap, and, if a TABLE with an embedding is given, cells between neighbours in this embedding. Prints
the adjusted Rand index of both, beside that of all cells with another seed.
"""

from __future__ import annotations

import argparse

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import nextmarker as nm

FEATURES, DIMENSIONS, NOISE = 256, 20, 0.1
MIXTURES = {"separate": (20, 0.5), "overlapping": (12, 0.15)}
"""Number of types, and standard deviation of their centres."""
SAMPLES = (10_000, 20_000)
NEAREST, MIXED = 16, 6  # neighbours of a cell, and how many of them a new cell lies between


def main() -> None:
    """Print a row for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", help="table with an embedding, of nm.tl.embed")
    parser.add_argument("--cells", type=int, default=100_000, help="number of cells (default: 100,000)")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    tables = {name: mix(rng, arguments.cells, *mixture) for name, mixture in MIXTURES.items()}
    if arguments.table:
        tables["real"] = resample(rng, ad.read_h5ad(arguments.table).obsm["X_nextmarker"], arguments.cells)
    print(pd.DataFrame({name: agreement(cells) for name, cells in tables.items()}).T.round(3).to_string())


def mix(rng: np.random.Generator, n_cells: int, n_types: int, spread: float) -> np.ndarray:
    """Make cells of types of unequal size, each of which varies in dimensions of its own."""
    shares = rng.lognormal(size=n_types)
    types = rng.choice(n_types, n_cells, p=shares / shares.sum())
    cells = NOISE * rng.standard_normal((n_cells, FEATURES), np.float32)
    for number in range(n_types):
        own = np.flatnonzero(types == number)
        directions = rng.standard_normal((DIMENSIONS, FEATURES), np.float32) / np.sqrt(DIMENSIONS, dtype=np.float32)
        cells[own] += rng.standard_normal((len(own), DIMENSIONS), np.float32) @ directions
        cells[own] += spread * rng.standard_normal(FEATURES, np.float32)
    return cells


def resample(rng: np.random.Generator, embedding: np.ndarray, n_cells: int) -> np.ndarray:
    """Make cells that lie between a cell of an embedding and some of its neighbours."""
    nearest = NearestNeighbors(n_neighbors=NEAREST).fit(embedding).kneighbors(embedding, return_distance=False)
    of_cells = nearest[rng.integers(0, len(embedding), n_cells)[:, None], rng.integers(0, NEAREST, (n_cells, MIXED))]
    weights = rng.dirichlet(np.ones(MIXED), n_cells)
    cells = sum(weights[:, [at]] * embedding[of_cells[:, at]] for at in range(MIXED))
    return np.asarray(cells + NOISE * embedding.std(axis=0) * rng.standard_normal(cells.shape), np.float32)


def agreement(cells: np.ndarray) -> dict[str, float]:
    """Adjusted Rand index of the clusters of samples, and of another seed, to those of all cells."""
    adata = ad.AnnData(obs=pd.DataFrame(index=pd.RangeIndex(len(cells)).astype(str)), obsm={"X_nextmarker": cells})

    def cluster(**settings: int) -> np.ndarray:
        nm.tl.cluster(adata, **settings)
        return adata.obs["nextmarker"].to_numpy()

    everything = cluster()
    others = {f"sample of {n:,}": cluster(n_sample=n) for n in SAMPLES if n < len(cells)}
    others["another seed"] = cluster(random_state=1)
    return {name: adjusted_rand_score(everything, clusters) for name, clusters in others.items()}


if __name__ == "__main__":
    main()
