"""Niches: places whose cells have similar surroundings, found over all images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from nextmarker import _keys
from nextmarker._errors import check_value
from nextmarker._logging import logger
from nextmarker._outcome import are_stable
from nextmarker._palette import colors_of
from nextmarker._record import made_from, record_name, refuse_foreign_keys, refuse_several_models, write_results
from nextmarker._table import OURS, get_table, refuse_infinite, require
from nextmarker.tl._space import Graph, Images, Linker, warn_of_few_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

COMPONENTS = 20  # of the embedding
SAMPLE = 20_000  # cells from which niches are learned
RUNS = 10  # repeated runs for each number of niches
STARTS = 10  # random starts of the final run
AS_STABLE = 0.02  # difference of the adjusted Rand index that does not count


def niches(
    data: AnnData | SpatialData,
    groupby: str = _keys.CELL_TYPE,
    *,
    use_rep: str | None = _keys.EMBEDDING,
    graph: Graph = "knn",
    n_neighbors: int = 6,
    radius: float | None = None,
    n_hops: int = 2,
    n_niches: int | Sequence[int] = range(3, 13),
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.NICHE,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> None:
    """Divide the tissue of all images into niches, places whose cells have similar surroundings.

    The surroundings of a cell are the cell itself and all cells that can be reached from it in `n_hops` links or fewer;
    cells of different images are never linked. They are described by the shares of the cell types and by the mean of
    the embedding, of which the first 20 principal components are used. Both descriptions have the same weight. k-means
    clusters them over all images together.

    If several numbers of niches are given, each is tried in 10 runs, each on a random half of the cells. The chosen
    number is the one on which the runs agree best, by the adjusted Rand index of all cells; of several that are equally
    good (within 0.02), the largest. This is the idea of CellCharter (Varrone et al. 2024).

    More than 20,000 cells are assigned to the niches found in a random sample of that size.

    Parameters
    ----------
    data
        Table of cells with types and positions, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with cell types or clusters. Cells without a type belong to a niche as well, but do not count
        in the shares.
    use_rep
        Representation in `.obsm`, (cells, features). None uses the types alone, which is better if the embedding
        differs between images for technical reasons.
    graph
        Which cells are neighbours: `"knn"`, the `n_neighbors` nearest cells; `"radius"`, all cells up to a distance of
        `radius`; `"delaunay"`, those that touch in the Delaunay triangulation, up to a distance of `radius` if it is
        given.
    n_neighbors
        Number of neighbours of each cell, for `graph="knn"`.
    radius
        Largest distance in the unit of `.obsm["spatial"]`: micrometres if the pixel size is known, otherwise pixels.
    n_hops
        Number of links from a cell to the edge of its surroundings. In dense tissue and with the default graph, 1, 2
        and 3 are about 7, 20 and 40 cells.
    n_niches
        Number of niches, or several to choose from.
    image_key
        Column of `.obs` with the images. Cells without an image have no niche.
    key_added
        Name of the results.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed.

    Returns
    -------
    None. Writes into the table:

    - `.obs[key_added]`: niches, categorical, from the largest, `"0"`; NaN for cells without an image
    - `.uns[f"{key_added}_colors"]`: their colours, if there are up to 30
    - `.uns[f"{key_added}_composition"]`: a table with one row for each niche and type, and the columns `niche`,
      `cell_type`, `n_cells`, `share` of the cells of the niche that have a type, and `share_of_all`, the same for all
      cells with a niche
    - `.uns["nextmarker"]["niches"]`, or `["niches_<key_added>"]` for another `key_added`: a record of the parameters;
      if several numbers were `tried`, their `stability`, the mean adjusted Rand index

    Draw them with `nm.pl.cells(sdata, "core_1", color="niche")`, `nm.pl.composition(adata, "niche")` and
    `nm.pl.composition(adata, "cell_type", by="niche")`.

    Warns
    -----
    UserWarning
        If an image has too few cells for the graph, so that its cells have no niche; if no number of niches is stable
        (the adjusted Rand index is below 0.7); or if `groupby` is a clustering of an earlier embedding.

    Raises
    ------
    KeyError
        If the table, a column, the representation or the positions are missing.
    ValueError
        If a parameter is out of range, there are fewer than twice as many cells as niches, no cell has both a type and
        an image, positions or the representation are not finite, images of several patients have the same name, cells
        were embedded by different models, or a result would replace something that nextmarker did not write. The table
        is not changed.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> x, y = np.divmod(np.arange(200), 10)
    >>> # each type in its own part of the image
    >>> obs = pd.DataFrame(
    ...     {"image": "core_1", "cell_type": np.where(x < 12, "T", "B")}, x.astype(str) + "," + y.astype(str)
    ... )
    >>> adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x, y]).astype(float)})
    >>> nm.tl.niches(adata, use_rep=None, graph="radius", radius=1, n_niches=2)
    >>> adata.uns["niche_composition"].round(1)
      niche cell_type  n_cells  share  share_of_all
    0     0         B        0    0.0           0.4
    1     0         T      120    1.0           0.6
    2     1         B       80    1.0           0.4
    3     1         T        0    0.0           0.6
    """
    adata = get_table(data, table_key)
    check_value("n_hops", n_hops, n_hops >= 1, "at least 1")
    tried = [n_niches] if isinstance(n_niches, int) else sorted(n_niches)
    check_value("n_niches", n_niches, bool(tried) and tried[0] >= 2, "2 or more, or several such numbers")
    refuse_foreign_keys(adata, [f"obs/{key_added}", f"uns/{key_added}_{_keys.COMPOSITION}"], _keys.NICHES_STEP)
    link = Linker(graph, n_neighbors, radius)
    images = Images(adata, groupby, image_key)
    embedding = None if use_rep is None else _read_embedding(adata, use_rep, random_state)

    rows, features, lacking = _describe(images, embedding, link, n_hops)
    if len(rows) < 2 * tried[-1]:
        msg = f"{len(rows)} cells with neighbours are too few for {tried[-1]} niches. Choose fewer: n_niches=..."
        raise ValueError(msg)
    stability = _stabilities(features, tried, random_state) if len(tried) > 1 else []
    chosen = _most_stable(tried, stability) if stability else tried[0]
    membership = _cluster(features, chosen, random_state)
    found = _largest_first(membership, rows, adata.n_obs)

    record = {
        "groupby": groupby,
        "use_rep": use_rep,
        "image_key": image_key,
        **link.record,
        "n_hops": n_hops,
        "n_niches": len(found.categories),
        "tried": np.array(tried) if stability else None,
        "stability": np.array(stability) if stability else None,
        "random_state": random_state,
        **(made_from(adata) if use_rep in OURS else {}),
    }
    results = {
        f"obs/{key_added}": found,
        f"uns/{key_added}_{_keys.COMPOSITION}": _compose(found, images),
        **colors_of(key_added, len(found.categories)),
    }
    write_results(adata, record_name(_keys.NICHES_STEP, key_added), results, record)
    warn_of_few_cells(lacking, "so these have no niche")
    if not are_stable(stability):
        msg = f"No number of niches is stable: adjusted Rand index {max(stability):.2f}. More cells may help: n_hops=3."
        warnings.warn(msg, stacklevel=2)


def _read_embedding(adata: AnnData, use_rep: str, random_state: int) -> np.ndarray:
    """Read the first principal components of an embedding, float32 (cells, components)."""
    values = require(adata, "obsm", use_rep, "nm.tl.embed(sdata), or use the types alone: use_rep=None")
    if use_rep in OURS:
        refuse_several_models(adata)
    values = np.asarray(values, dtype=np.float32)
    refuse_infinite(values, adata.obs_names, f".obsm[{use_rep!r}]")
    n_components = min(COMPONENTS, *values.shape)
    return PCA(n_components, svd_solver="covariance_eigh", random_state=random_state).fit_transform(values)


def _describe(
    images: Images, embedding: np.ndarray | None, link: Linker, n_hops: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Describe the surroundings of each cell that can be linked.

    Returns
    -------
    Rows of these cells, int (cells,); their features, float32 (cells, features); and images without such cells.
    """
    linked, shares, means, lacking = [], [], [], []
    kinds = np.eye(len(images.types) + 1, len(images.types), dtype=np.float32)  # the last, -1, is no type
    for name, rows in images:
        links = link(images.positions[rows])
        if links is None:
            lacking.append(name)
            continue
        reached = _reach(links, n_hops)
        counts = reached @ kinds[images.codes[rows]]
        linked.append(rows)
        shares.append(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        if embedding is not None:
            means.append((reached @ embedding[rows]) / reached.sum(axis=1).reshape(-1, 1))
    blocks = [_standardize(np.concatenate(parts)) for parts in (shares, means) if parts]
    rows = np.concatenate([*linked, []]).astype(int)
    return rows, np.hstack(blocks) if blocks else np.empty((0, 0)), lacking


def _reach(links: sparse.csr_matrix, n_hops: int) -> sparse.csr_array:
    """Mark the cells that can be reached in some links or fewer, in either direction, and the cell itself with 1."""
    step = sparse.csr_array(links + links.T + sparse.eye_array(links.shape[0], dtype=np.float32))
    reached = step
    for _ in range(n_hops - 1):
        reached = reached @ step
    reached.data[:] = 1
    return reached


def _standardize(block: np.ndarray) -> np.ndarray:
    """Centre the features of a block and give them a variance of 1 altogether."""
    variance = block.var(axis=0, dtype=np.float64).sum()
    centred = block - block.mean(axis=0, dtype=np.float64)
    return (centred / np.sqrt(variance or 1)).astype(np.float32)


def _sample(features: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return features[np.sort(random.permutation(len(features))[:SAMPLE])]


def _stabilities(features: np.ndarray, tried: Sequence[int], random_state: int) -> list[float]:
    random = np.random.default_rng(random_state)
    sample = _sample(features, random)
    return [_stability(sample, n, random) for n in tried]


def _stability(sample: np.ndarray, n_niches: int, random: np.random.Generator) -> float:
    """Mean adjusted Rand index of the niches that are found in random halves of a sample."""
    runs = []
    for _ in range(RUNS):
        half = random.permutation(len(sample))[: max(len(sample) // 2, n_niches)]
        means = KMeans(n_niches, n_init=1, random_state=int(random.integers(2**31))).fit(sample[half])
        runs.append(means.predict(sample))
    return float(np.mean([adjusted_rand_score(one, other) for one, other in combinations(runs, 2)]))


def _most_stable(tried: Sequence[int], stability: Sequence[float]) -> int:
    """Choose the largest of the numbers of niches that are about as stable as the most stable one."""
    enough = max(stability) - AS_STABLE
    n_niches, value = max((n, value) for n, value in zip(tried, stability, strict=True) if value >= enough)
    shown = (n_niches, tried[0], tried[-1], value)
    logger.info("%d niches are the most stable of %d to %d (adjusted Rand index %.2f)", *shown)
    return n_niches


def _cluster(features: np.ndarray, n_niches: int, random_state: int) -> np.ndarray:
    """Assign each cell to a niche, int (cells,)."""
    sample = _sample(features, np.random.default_rng(random_state))
    return KMeans(n_niches, n_init=STARTS, random_state=random_state).fit(sample).predict(features)


def _largest_first(membership: np.ndarray, rows: np.ndarray, n_cells: int) -> pd.Categorical[str]:
    """Number niches from the largest, and give them to their cells; other cells have none."""
    sizes = np.bincount(membership)
    rank = np.argsort(np.argsort(-sizes, kind="stable"))
    codes = np.full(n_cells, -1)
    codes[rows] = rank[membership]
    return pd.Categorical.from_codes(codes, pd.Index([str(number) for number in range(len(sizes))]))


def _compose(found: pd.Categorical[str], images: Images) -> pd.DataFrame:
    """Count the types of the cells of each niche."""
    counts = np.zeros((len(found.categories), len(images.types)), dtype=int)
    known = (found.codes >= 0) & (images.codes >= 0)
    np.add.at(counts, (found.codes[known], images.codes[known]), 1)
    niche, kind = np.indices(counts.shape).reshape(2, -1)
    with np.errstate(invalid="ignore"):  # a niche whose cells have no type
        shares = counts / counts.sum(axis=1, keepdims=True)
    table = pd.DataFrame(
        {
            "niche": pd.Categorical.from_codes(niche, found.categories),
            "cell_type": pd.Categorical.from_codes(kind, images.types),
            "n_cells": counts.ravel(),
            "share": shares.ravel(),
            "share_of_all": (counts.sum(axis=0) / counts.sum())[kind],
        }
    )
    return table.set_axis(table.index.astype(str))  # as it is read from files
