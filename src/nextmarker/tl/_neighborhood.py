"""Which cell types are neighbours more often than by chance, image by image."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_value
from nextmarker._record import record_name, refuse_foreign_keys, write_results
from nextmarker._table import get_table
from nextmarker.tl._space import Graph, Images, Linker, warn_of_few_cells

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse
    from spatialdata import SpatialData

PSEUDOCOUNT = 1  # links added to observed and expected ones, so that the ratio of rare pairs is near 1


def neighborhood(
    data: AnnData | SpatialData,
    groupby: str = _keys.CELL_TYPE,
    *,
    graph: Graph = "knn",
    n_neighbors: int = 6,
    radius: float | None = None,
    permutations: int = 1000,
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.NEIGHBORHOOD,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> None:
    """Count which cell types are neighbours, and compare it with chance, in each image by itself.

    squidpy links each cell to its neighbours; cells of different images are never linked. A link leads from a cell to a
    neighbour, so with `graph="knn"` B cells may be near T cells more often than T cells near B cells. The other two
    graphs have each link in both directions.

    The links expected by chance are the mean over random permutations of the types of all cells in the image; the
    positions stay. `log2_ratio` compares observed with expected links and is what to compare between images and
    patients: 1 means twice as many as by chance, -1 half as many. `z` tells how sure this is in one image. It grows
    with the number of cells, so it cannot be compared between images.

    Parameters
    ----------
    data
        Table of cells with types and positions, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with cell types or clusters. Cells without a type stay in their place, but their links are not
        counted.
    graph
        Which cells are neighbours: `"knn"`, the `n_neighbors` nearest cells; `"radius"`, all cells up to a distance of
        `radius`; `"delaunay"`, those that touch in the Delaunay triangulation, up to a distance of `radius` if it is
        given.
    n_neighbors
        Number of neighbours of each cell, for `graph="knn"`.
    radius
        Largest distance in the unit of `.obsm["spatial"]`: micrometres if the pixel size is known, otherwise pixels.
    permutations
        Number of random permutations.
    image_key
        Column of `.obs` with the images. Cells without an image are left out.
    key_added
        Name of the result.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed. The permutations of an image depend on the seed and its name only, not on other images or their order.

    Returns
    -------
    None. Writes into the table:

    - `.uns[key_added]`: a table with one row for each image and pair of types, and the columns

      - `image`, `cell_type`, `neighbor`
      - `n_cells` and `n_neighbor_cells`: cells of the two types in the image
      - `observed`: links from cells of the first type to cells of the second
      - `expected`: their mean over the permutations
      - `log2_ratio`: log2 of (observed + 1) / (expected + 1)
      - `z`: observed minus expected, in standard deviations over the permutations

      The last four are NaN if there can be no such link, because the image lacks one of the types, has only one cell of
      a type and its neighbours of the same type are asked for, or has too few cells for the graph. `z` is also NaN if
      all permutations have the same number of links.

    - `.uns["nextmarker"]["neighborhood"]`, or `["neighborhood_<key_added>"]` for another `key_added`: a record of the
      parameters, and of the `seeds` of the `images`. `sq.gr.nhood_enrichment` gives the same counts and z for an image
      alone with this seed and `n_jobs=1`

    Warns
    -----
    UserWarning
        If an image has too few cells for the graph, or `groupby` is a clustering of an earlier embedding.

    Raises
    ------
    KeyError
        If the table, a column or the positions are missing.
    ValueError
        If a parameter is out of range, no cell has both a type and an image, positions are not finite, images of
        several patients have the same name, or the result would replace something that nextmarker did not write. The
        table is not changed.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> x, y = np.divmod(np.arange(200), 10)
    >>> # each type in its own part of the image
    >>> obs = pd.DataFrame(
    ...     {"image": "core_1", "cell_type": np.where(x < 10, "T", "B")}, x.astype(str) + "," + y.astype(str)
    ... )
    >>> adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x, y]).astype(float)})
    >>> nm.tl.neighborhood(adata, graph="radius", radius=1, permutations=100)
    >>> adata.uns["neighborhood"][["cell_type", "neighbor", "observed", "log2_ratio"]].round(1)
      cell_type neighbor  observed  log2_ratio
    0         B        B     360.0         1.0
    1         B        T      10.0        -4.1
    2         T        B      10.0        -4.1
    3         T        T     360.0         1.0
    """
    adata = get_table(data, table_key)
    check_value("permutations", permutations, permutations >= 2, "at least 2")
    refuse_foreign_keys(adata, [f"uns/{key_added}"], _keys.NEIGHBORHOOD)
    link = Linker(graph, n_neighbors, radius)
    images = Images(adata, groupby, image_key)

    seeds = [_seed(random_state, name) for name in images.names]
    parts, lacking = [], []
    for (name, rows), seed in zip(images, seeds, strict=True):
        adjacency = link(images.positions[rows])
        if adjacency is None:
            lacking.append(name)
        parts.append(_compare(adjacency, images.codes[rows], len(images.types), permutations, seed))
    record = {
        "groupby": groupby,
        "image_key": image_key,
        **link.record,
        "permutations": permutations,
        "random_state": random_state,
        "images": images.names.to_numpy(object),
        "seeds": np.array(seeds),
    }
    table = _tabulate(parts, images)
    write_results(adata, record_name(_keys.NEIGHBORHOOD, key_added), {f"uns/{key_added}": table}, record)
    warn_of_few_cells(lacking, "so their rows are NaN")


def _seed(random_state: int, image: str) -> int:
    return int(sha256(f"{random_state} {image}".encode()).hexdigest()[:8], 16)


def _compare(
    adjacency: sparse.csr_matrix | None, codes: np.ndarray, n_types: int, permutations: int, seed: int
) -> dict[str, np.ndarray]:
    """Compare the links between types with chance; each value is (types, types)."""
    typed = codes >= 0
    sizes = np.bincount(codes[typed], minlength=n_types)
    result = {
        "n_cells": np.repeat(sizes[:, None], n_types, axis=1),
        "n_neighbor_cells": np.repeat(sizes[None], n_types, axis=0),
    }
    possible = sizes[:, None] * (sizes - np.eye(n_types, dtype=int)) > 0
    if adjacency is None:
        return result | dict.fromkeys(("observed", "expected", "log2_ratio", "z"), np.full((n_types, n_types), np.nan))
    observed, by_chance = _count(adjacency[typed][:, typed], codes[typed], n_types, permutations, seed)
    expected, spread = by_chance.mean(axis=0), by_chance.std(axis=0)
    compared = {
        "observed": observed,
        "expected": expected,
        "log2_ratio": np.log2((observed + PSEUDOCOUNT) / (expected + PSEUDOCOUNT)),
        "z": np.divide(observed - expected, spread, out=np.full(spread.shape, np.nan), where=spread > 0),
    }
    return result | {name: np.where(possible, values, np.nan) for name, values in compared.items()}


def _count(
    adjacency: sparse.csr_matrix, codes: np.ndarray, n_types: int, permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count links by type, (types, types), and the same for permuted types, (permutations, types, types)."""
    links = adjacency.tocoo()
    shape = (n_types, n_types)

    def count(types: np.ndarray) -> np.ndarray:
        return np.bincount(types[links.row] * n_types + types[links.col], minlength=n_types**2).reshape(shape)

    random = np.random.RandomState(seed)  # as in squidpy, to give the same numbers
    shuffled = codes.copy()
    by_chance = np.empty((permutations, *shape))
    for number in range(permutations):
        random.shuffle(shuffled)
        by_chance[number] = count(shuffled)
    return count(codes), by_chance


def _tabulate(parts: list[dict[str, np.ndarray]], images: Images) -> pd.DataFrame:
    image, first, second = np.indices((len(parts), len(images.types), len(images.types))).reshape(3, -1)
    names = {"image": (image, images.names), "cell_type": (first, images.types), "neighbor": (second, images.types)}
    columns = {key: pd.Categorical.from_codes(codes, categories) for key, (codes, categories) in names.items()}
    table = pd.DataFrame(columns | {key: np.concatenate([part[key].ravel() for part in parts]) for key in parts[0]})
    return table.set_axis(table.index.astype(str))  # as it is read from files
