"""Speed of nm.tl.cluster, against PhenoGraph (Leiden) with the same settings.

Usage: ``python -m benchmarks.clustering [--cells N] [--sample N] [--alone]``

The cells are a mixture of 20 types of unequal size, each of which varies in 20 of 256 dimensions. Prints seconds,
including everything that is loaded or compiled on the way, their ratio, the adjusted Rand index of both partitions to
each other and of ours to the types, and the peak of memory.
"""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import nextmarker as nm
from benchmarks.report import peak_memory, report, time_both

FEATURES, TYPES, DIMENSIONS, IMAGES = 256, 20, 20, 100
AT_ONCE = 50_000


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000, help="number of cells (default: 100,000)")
    parser.add_argument("--sample", type=int, help="cluster a sample of so many cells, and assign the others")
    parser.add_argument("--alone", action="store_true", help="without PhenoGraph")
    arguments = parser.parse_args()
    adata, types = make_cells(arguments.cells)
    before = peak_memory()
    ours = time_both(lambda: nm.tl.cluster(adata, resolution=1, n_sample=arguments.sample))
    clusters = adata.obs["nextmarker"]
    note = f"ARI {adjusted_rand_score(types, clusters):.3f} to the types, {clusters.nunique()} clusters"
    note += f", peak {peak_memory():.1f} GB, {before:.1f} GB before"
    figures, ratio = {"nm.tl.cluster": "{:.1f} s, {:.1f} s of processor time".format(*ours)}, None
    if not arguments.alone:
        found: list[np.ndarray] = []
        theirs = time_both(lambda: found.append(phenograph(adata.obsm["X_nextmarker"])))
        figures["PhenoGraph"] = "{:.1f} s, {:.1f} s of processor time".format(*theirs)
        ratio = theirs[0] / ours[0]
        processor = f"of processor time {theirs[1] / ours[1]:.2f}"
        note = f"{processor} | ARI {adjusted_rand_score(found[0], clusters):.3f} to it, {note}"
    sample = f", sample of {arguments.sample:,}" if arguments.sample else ""
    report(f"cluster {arguments.cells:,} x {FEATURES}{sample}", figures, ratio, note)


def make_cells(n_cells: int) -> tuple[AnnData, np.ndarray]:
    """Make a table with an embedding, and the type of each cell."""
    rng = np.random.default_rng(0)
    shares = rng.lognormal(size=TYPES)
    types = rng.choice(TYPES, n_cells, p=shares / shares.sum())
    centres = 0.5 * rng.standard_normal((TYPES, FEATURES), np.float32)
    directions = rng.standard_normal((TYPES, DIMENSIONS, FEATURES), np.float32) / np.sqrt(DIMENSIONS, dtype=np.float32)
    cells = np.empty((n_cells, FEATURES), np.float32)
    for start in range(0, n_cells, AT_ONCE):
        block, own = cells[start : start + AT_ONCE], types[start : start + AT_ONCE]
        block[:] = 0.1 * rng.standard_normal(block.shape, np.float32) + centres[own]
        for number in range(TYPES):
            where = np.flatnonzero(own == number)
            block[where] += rng.standard_normal((len(where), DIMENSIONS), np.float32) @ directions[number]
    images = pd.Categorical.from_codes(rng.integers(0, IMAGES, n_cells), [f"image {n}" for n in range(IMAGES)])
    obs = pd.DataFrame({"image": images}, index=pd.RangeIndex(n_cells).astype(str))
    return AnnData(obs=obs, obsm={"X_nextmarker": cells}), types


def phenograph(cells: np.ndarray) -> np.ndarray:
    """Clusters of the package PhenoGraph, with its default of 30 neighbours."""
    import phenograph as package

    with redirect_stdout(io.StringIO()):
        return package.cluster(cells, clustering_algo="leiden", seed=0)[0]


if __name__ == "__main__":
    main()
