"""Mixing of batches, such as patients or images, within cell types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import entr
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from nextmarker import _keys
from nextmarker._errors import check_value
from nextmarker._table import get_table, read_labels, read_representations
from nextmarker.metrics._shared import as_table, sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

ALL = "all"


def batch_mixing(
    data: AnnData | SpatialData,
    batch_key: str,
    *,
    label_key: str | None = None,
    use_rep: str | Sequence[str] | None = None,
    n_neighbors: int = 30,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure how well batches, such as patients or images, mix within each cell type.

    Cells are compared only with cells of the same type, so a type that occurs only in some patients does not count as a
    difference between patients. The entropy of the batches among the nearest neighbours of a cell is averaged over the
    cells and divided by the value expected if batches were assigned to these cells at random, i.e. if the neighbours
    were drawn without replacement from all cells of the type (a hypergeometric distribution). So it is 1 for random
    mixing, whatever the sizes of the batches and the number of neighbours, and can be slightly above 1.

    For a type with more than 10,000 cells, a random sample of about 10,000 is used, from all batches in proportion.

    Parameters
    ----------
    data
        Table with embedded cells, or the SpatialData object that contains it.
    batch_key
        Column of `.obs` with the batches, such as images or patients.
    label_key
        Column of `.obs` with the cell types. By default all cells count as one type. Cells without a type or batch (NaN
        or empty) are left out.
    use_rep
        Representation to score, or a list of them: a key of `.obsm`, `"X"`, or `"layers/<name>"`, with numbers (cells,
        features). By default all of `"X"`, `"X_interpretability"` and `"X_nextmarker"` that the table has.
    n_neighbors
        Number of nearest neighbours of each cell, by Euclidean distance; at most a third of the other cells of the
        type, because larger neighbourhoods contain nearly all cells and would always look mixed.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed of the random sample.

    Returns
    -------
    For each representation, one row per type and a row `"all"` with the mean over the types, weighted by their number
    of cells; without `label_key` only the row `"all"`. The columns are

    - `representation`, `type`, `n_batches`, `n_cells`, and `n_left_out` (of the whole table)
    - `silhouette` of the batches: 0 or below if they mix, near 1 if they are separate
    - `neighbor_entropy`: 1 for random mixing, 0 if all neighbours are from the same batch

    Both are NaN for types that occur in one batch only, the entropy also for types with fewer than 7 cells. NaN values
    are left out of the mean.

    Raises
    ------
    KeyError
        If the table, a representation or a column is missing.
    ValueError
        If there is only one batch, `n_neighbors` is below 2, or a representation contains anything but finite numbers.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> batches = np.repeat(["p1", "p2"], [60, 40])
    >>> rng = np.random.default_rng(1)
    >>> mixed = rng.normal(size=(100, 2))
    >>> adata = AnnData(
    ...     obs=pd.DataFrame({"patient": batches}, index=[f"cell{i}" for i in range(100)]),
    ...     obsm={"mixed": mixed, "apart": mixed + 10 * (batches == "p1")[:, None]},
    ... )
    >>> table = nm.metrics.batch_mixing(adata, "patient", use_rep=["mixed", "apart"])
    >>> table[["representation", "silhouette", "neighbor_entropy"]].round(1)
      representation  silhouette  neighbor_entropy
    0          mixed         0.0               1.0
    1          apart         0.9               0.0
    """
    adata = get_table(data, table_key)
    check_value("n_neighbors", n_neighbors, n_neighbors >= 2, "at least 2")
    known, labels = read_labels(
        adata, {"batch_key": batch_key} | ({} if label_key is None else {"label_key": label_key})
    )
    batches, types = labels[0], None if label_key is None else labels[1]
    values = read_representations(adata, use_rep, known)
    if len(batches.categories) < 2:
        only = batches.categories[0]
        msg = (
            f"All {len(batches)} cells are from one batch, {only!r} in .obs[{batch_key!r}]. Choose another: "
            "batch_key=..."
        )
        raise ValueError(msg)

    rows = []
    for name, cells in values.items():
        by_type = [
            {"type": kind, **_mixing(cells[inside], batches[inside], n_neighbors, random_state)}
            for kind, inside in _divide(types, len(batches))
        ]
        overall = [] if label_key is None else [_weighted_mean(by_type, len(batches.categories))]
        rows += [{"representation": name, **row} for row in [*by_type, *overall]]
    return as_table(rows).assign(n_left_out=int((~known).sum()))


def _divide(types: pd.Categorical | None, n_cells: int) -> list[tuple[str, np.ndarray]]:
    """List the types, each with a mask of its cells."""
    if types is None:
        return [(ALL, np.ones(n_cells, dtype=bool))]
    return [(kind, types.codes == code) for code, kind in enumerate(types.categories)]


def _mixing(cells: np.ndarray, batches: pd.Categorical, n_neighbors: int, random_state: int) -> dict[str, float]:
    """Silhouette and normalized entropy of the batches within one type."""
    batches = batches.remove_unused_categories()
    chosen = sample(batches, random_state)
    codes, n_batches = batches.codes[chosen], len(batches.categories)
    has_silhouette = 2 <= n_batches < len(codes)
    return {
        "silhouette": float(silhouette_score(cells[chosen], codes)) if has_silhouette else np.nan,
        "neighbor_entropy": _neighbor_entropy(cells[chosen], codes, min(n_neighbors, (len(codes) - 1) // 3)),
        "n_batches": n_batches,
        "n_cells": len(cells),
    }


def _neighbor_entropy(cells: np.ndarray, codes: np.ndarray, n_neighbors: int) -> float:
    """Entropy of the batches among the neighbours, divided by its expectation for randomly assigned batches."""
    sizes = np.bincount(codes)
    if len(sizes) < 2 or n_neighbors < 2:
        return np.nan
    neighbors = codes[NearestNeighbors(n_neighbors=n_neighbors).fit(cells).kneighbors(return_distance=False)]
    entropy = sum(entr((neighbors == code).mean(axis=1)) for code in range(len(sizes))).mean()
    count = np.arange(n_neighbors + 1)
    # if batches are assigned at random, the neighbours of a cell are a random draw from all cells
    chance = stats.hypergeom.pmf(count, len(codes), sizes[:, None], n_neighbors)
    return float(entropy / (chance @ entr(count / n_neighbors)).sum())


def _weighted_mean(by_type: list[dict], n_batches: int) -> dict:
    """Mean over the types, weighted by their number of cells, without NaN."""
    table = pd.DataFrame(by_type)
    means = {}
    for column in ("silhouette", "neighbor_entropy"):
        weights = table["n_cells"].where(table[column].notna(), 0)
        means[column] = float((table[column] * weights).sum() / weights.sum()) if weights.any() else np.nan
    return {"type": ALL, **means, "n_batches": n_batches, "n_cells": int(table["n_cells"].sum())}
