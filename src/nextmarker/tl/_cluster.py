"""Clusters cells as PhenoGraph does: a graph of shared neighbours, divided by the Leiden algorithm."""

from __future__ import annotations

import io
import random
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from scipy import sparse

from nextmarker import _keys
from nextmarker._errors import check_option, check_value, no_such
from nextmarker._origins import as_record, largest_origins, warn_of_one_origin
from nextmarker._palette import colors_of
from nextmarker._provenance import digest
from nextmarker._record import made_from, record_name, refuse_foreign_keys, write_results
from nextmarker._regions import as_list
from nextmarker._table import OURS, get_table, read_representations
from nextmarker.tl._cluster_sample import draw_sample, spread
from nextmarker.tl._neighbors import count_shared, nearest_neighbors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import igraph
    from anndata import AnnData
    from spatialdata import SpatialData

Backend = Literal["igraph", "leidenalg", "phenograph"]


def cluster(
    data: AnnData | SpatialData,
    *,
    use_rep: str = _keys.EMBEDDING,
    n_neighbors: int = 30,
    resolution: float = 0.3,
    backend: Backend = "igraph",
    restrict_to: tuple[str, str | Sequence[str]] | None = None,
    n_sample: int | None = None,
    key_added: str | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> None:
    """Cluster cells by shared nearest neighbours, as PhenoGraph does.

    Each cell is linked to its nearest neighbours by Euclidean distance. The weight of a link is the Jaccard index of
    the two sets of neighbours, averaged over both directions; a cell is not its own neighbour. The Leiden algorithm
    divides this graph by modularity until it no longer improves, with the same objective in all backends. Every cell
    belongs to a cluster, however small.

    Neighbours are exact up to 50,000 cells. Above, they are found by pynndescent, which misses a few.

    A cluster with hardly any cells from more than one image is often due to the staining, not a cell type. A warning
    lists such clusters if the column `image` of the table gives the image of each cell, and likewise for one `sample`.
    Cells without an image or sample do not count.

    Parameters
    ----------
    data
        Table with an embedding, or the SpatialData object that contains it.
    use_rep
        Representation to cluster, (cells, features): a key of `.obsm`, `"X"`, or `"layers/<name>"`.
    n_neighbors
        Number of nearest neighbours of each cell.
    resolution
        Higher values give more clusters. The default keeps well separated types in one piece. In tissue with many
        types, rare ones may share a cluster with others: compare with 0.5. PhenoGraph uses 1.
    backend
        `"igraph"`, the fastest; `"leidenalg"`; or `"phenograph"`, the original package, given the neighbours, which
        starts one process per processor.
    restrict_to
        Column of `.obs` and one or more of its clusters, such as `("nextmarker", ["3"])`: only the cells of these
        clusters are clustered, by neighbours among themselves, to find types that share a cluster. The new clusters are
        named `"3,0"`, `"3,1"` and so on; all other cells keep their cluster.
    n_sample
        Cluster only so many cells, drawn at random with the same share of each image, and add each other cell to the
        cluster that most of its five nearest cells in the sample have; of a large sample, about 20,000 cells are
        compared with all others. For tables too large for memory or patience. A type is found if it is separate from
        others and the sample has more than `n_neighbors` of its cells; a continuum is divided elsewhere than with all
        cells.
    key_added
        Name of the results, by default `"nextmarker"`, or with `restrict_to` its column followed by `_R`, as in scanpy.
    table_key
        Name of the table in the SpatialData object.
    random_state
        Seed of the sample, of pynndescent and of Leiden. The same seed gives the same clusters (above 50,000 cells,
        with the same number of threads).

    Returns
    -------
    None. Writes into the table (with `restrict_to` or a sample no graph; a sample removes that of an earlier call):

    - `.obs[key_added]`: clusters, categorical, from the largest, `"0"`
    - `.uns[f"{key_added}_colors"]`: their colours in figures of scanpy and nextmarker, if there are up to 30 clusters
    - `.obsp[f"{key_added}_connectivities"]`: Jaccard graph, symmetric CSR, float64 (cells, cells)
    - `.obsp[f"{key_added}_distances"]`: distances to the neighbours, CSR, (cells, cells)
    - `.uns[f"{key_added}_neighbors"]`: describes the graph for scanpy's `neighbors_key`
    - `.uns["nextmarker"]["cluster"]`, or `["cluster_<key_added>"]` for another `key_added`: a record of parameters and
      embedding. If the cells come from several images, `largest_image` and `largest_image_share` are the image with
      most cells of each cluster, in the order of the clusters, and its share (empty and NaN if no image is known);
      likewise `largest_sample` and `largest_sample_share`

    Warns
    -----
    UserWarning
        If at least 80 % of the cells of a cluster come from one image or sample, and this is not explained by its size:
        the image has less than 80 % of all cells, the share of other images in the cluster is at most half of their
        share in the table, and p < 0.001 by chance. Either the staining or background of the images differs, or these
        cells occur in one image only.
        `nm.metrics.batch_mixing(adata, "image")` measures how well images mix, and
        `nm.pl.cells(sdata, image, color="nextmarker")` shows where the cells are.

    Raises
    ------
    KeyError
        If the table, the embedding, or the column or a cluster of `restrict_to` does not exist.
    ValueError
        If there are too few cells or a number is out of range, the embedding has values that are infinite or NaN, cells
        were embedded by different models, `X_interpretability` does not fit the markers, `backend` is unknown, or a
        result would replace something that nextmarker did not write. The table is not changed.

    Examples
    --------
    >>> import numpy as np, nextmarker as nm
    >>> from anndata import AnnData
    >>> rng = np.random.default_rng(0)
    >>> centres = np.repeat([0.0, 10.0], [60, 40])
    >>> adata = AnnData(obsm={"X_nextmarker": rng.normal(centres[:, None], size=(100, 5))})
    >>> nm.tl.cluster(adata, n_neighbors=15, resolution=0.2)
    >>> adata.obs["nextmarker"].value_counts().to_dict()
    {'0': 60, '1': 40}
    """
    adata = get_table(data, table_key)
    check_option("backend", backend, get_args(Backend))
    check_value("resolution", resolution, resolution > 0, "positive")
    previous, cells = _read_restriction(adata, restrict_to)
    key_added = key_added or (_keys.CLUSTERS if previous is None else f"{previous.name}_R")
    graph = {name: f"{key_added}_{name}" for name in (_keys.CONNECTIVITIES, _keys.DISTANCES, _keys.NEIGHBORS)}
    places = {_keys.CLUSTERS: f"obs/{key_added}"}
    if previous is None:
        places |= {name: f"{'uns' if name == _keys.NEIGHBORS else 'obsp'}/{key}" for name, key in graph.items()}
    refuse_foreign_keys(adata, list(places.values()), _keys.CLUSTER_STEP)
    embedding = _read_embedding(adata, use_rep, n_neighbors, cells)
    rule = f"more than n_neighbors={n_neighbors}"
    check_value("n_sample", n_sample, n_sample is None or n_sample > n_neighbors, rule)

    sample = draw_sample(adata.obs[cells], n_sample, random_state)
    distances = nearest_neighbors(embedding if sample is None else embedding[sample], n_neighbors, random_state)
    connectivities = _jaccard_graph(distances)
    if backend == "phenograph":
        membership = _phenograph(distances, resolution, random_state)
    else:
        leiden = _leiden_igraph if backend == "igraph" else _leiden_leidenalg
        membership = leiden(_as_igraph(connectivities), resolution, random_state)
    if sample is not None:
        membership = spread(membership, sample, embedding, random_state)

    parameters = {"n_neighbors": n_neighbors, "metric": "euclidean", "use_rep": use_rep, "random_state": random_state}
    clusters = _largest_first(membership)
    clusters = clusters if previous is None else _refine(previous, cells, clusters)
    origins = largest_origins(clusters, adata.obs)
    results: dict[str, Any] = {_keys.CLUSTERS: clusters, **dict.fromkeys(graph)}
    if sample is None:
        results |= {
            _keys.CONNECTIVITIES: connectivities,
            _keys.DISTANCES: distances,
            _keys.NEIGHBORS: {
                "connectivities_key": graph[_keys.CONNECTIVITIES],
                "distances_key": graph[_keys.DISTANCES],
                "params": {"method": "jaccard", **_known_to_scanpy(parameters, adata)},
            },
        }
    record = {
        **parameters,
        "resolution": resolution,
        "backend": backend,
        "key_added": key_added,
        "restrict_to": None if restrict_to is None else np.array([restrict_to[0], *as_list(restrict_to[1])], object),
        "n_sample": n_sample,
        "clustering": digest(clusters.codes),
        **as_record(origins),
        **(made_from(adata) if use_rep in OURS else {}),
    }
    step = record_name(_keys.CLUSTER_STEP, key_added)
    written = {place: results[name] for name, place in places.items()}
    write_results(adata, step, written | colors_of(key_added, len(clusters.categories)), record)
    warn_of_one_origin(origins, clusters)


def _read_restriction(
    adata: AnnData, restrict_to: tuple[str, str | Sequence[str]] | None
) -> tuple[pd.Series | None, np.ndarray]:
    """Read the clusters that only some are divided of, and which cells these have, bool (cells,); all by default."""
    if restrict_to is None:
        return None, np.ones(adata.n_obs, dtype=bool)
    column, chosen = restrict_to
    fix = "Choose another: restrict_to=(column, clusters)."
    if column not in adata.obs:
        raise KeyError(no_such("column", column, ".obs of the table", adata.obs, fix))
    labels = adata.obs[column].astype("category").cat.remove_unused_categories().cat.rename_categories(str)
    lacking = [name for name in as_list(chosen) if name not in labels.cat.categories]
    if lacking:
        raise KeyError(no_such("cluster", lacking, f".obs[{column!r}]", labels.cat.categories, fix))
    return labels, labels.isin(as_list(chosen)).to_numpy()


def _refine(previous: pd.Series, cells: np.ndarray, clusters: pd.Categorical[str]) -> pd.Categorical[str]:
    """Put clusters of some of the cells in the place of those that these had, in the order of the previous ones."""
    divided = previous.cat.categories[previous.cat.categories.isin(previous[cells])]
    parts = [f"{'-'.join(divided)},{number}" for number in clusters.categories]
    labels = previous.astype(object).to_numpy(copy=True)
    labels[cells] = np.asarray(parts, dtype=object)[clusters.codes]
    names = previous.cat.categories.tolist()
    first = names.index(divided[0])
    after = [name for name in names[first:] if name not in divided]
    return pd.Categorical(labels, [*names[:first], *parts, *after])


def _known_to_scanpy(parameters: dict[str, Any], adata: AnnData) -> dict[str, Any]:
    """Leave out a representation that scanpy cannot read, which it would look up before it draws the graph."""
    known = parameters["use_rep"] == "X" or parameters["use_rep"] in adata.obsm
    return {name: value for name, value in parameters.items() if known or name != "use_rep"}


def _read_embedding(adata: AnnData, use_rep: str, n_neighbors: int, chosen: np.ndarray) -> np.ndarray:
    embedding = read_representations(adata, use_rep, chosen)[use_rep]
    check_value("n_neighbors", n_neighbors, n_neighbors >= 2, "at least 2")
    cells = len(embedding)
    if cells <= n_neighbors:
        msg = f"{n_neighbors} neighbours need {n_neighbors + 1} cells, and there are {cells}: lower n_neighbors=..."
        raise ValueError(msg)
    return embedding


def _jaccard_graph(distances: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weight each link by the Jaccard index of the two sets of neighbours, averaged over both directions."""
    neighbors = np.sort(distances.indices.reshape(distances.shape[0], -1), axis=1)
    shared = np.empty_like(neighbors)
    count_shared(neighbors, shared)
    index = shared / (2 * neighbors.shape[1] - shared)
    directed = sparse.csr_matrix((index.ravel(), neighbors.ravel(), distances.indptr), shape=distances.shape)
    return sparse.csr_matrix((directed + directed.T) * 0.5)


def _as_igraph(connectivities: sparse.csr_matrix) -> igraph.Graph:
    import igraph

    links = sparse.triu(connectivities, k=1).tocoo()
    edges = np.column_stack([links.row, links.col])
    return igraph.Graph(n=connectivities.shape[0], edges=edges, edge_attrs={"weight": links.data})


def _leiden_igraph(graph: igraph.Graph, resolution: float, random_state: int) -> np.ndarray:
    import igraph

    igraph.set_random_number_generator(random.Random(random_state))
    try:
        partition = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=-1
        )
    finally:
        igraph.set_random_number_generator(random)  # igraph's own default
    return np.array(partition.membership)


def _leiden_leidenalg(graph: igraph.Graph, resolution: float, random_state: int) -> np.ndarray:
    import leidenalg

    partition = leidenalg.find_partition(
        graph,
        leidenalg.RBConfigurationVertexPartition,
        weights="weight",
        resolution_parameter=resolution,
        n_iterations=-1,
        seed=random_state,
    )
    return np.array(partition.membership)


def _phenograph(distances: sparse.csr_matrix, resolution: float, random_state: int) -> np.ndarray:
    import phenograph

    with redirect_stdout(io.StringIO()):
        membership, _, _ = phenograph.cluster(
            distances,
            clustering_algo="leiden",
            resolution_parameter=resolution,
            seed=random_state,
            min_cluster_size=0,  # smaller clusters would all be labelled -1
        )
    return membership


def _largest_first(membership: np.ndarray) -> pd.Categorical[str]:
    """Number clusters from the largest; clusters of equal size are ordered by their first cell."""
    _, first, codes, sizes = np.unique(membership, return_index=True, return_inverse=True, return_counts=True)
    rank = np.argsort(np.lexsort([first, -sizes]))
    return pd.Categorical.from_codes(rank[codes], categories=pd.Index([str(number) for number in range(len(sizes))]))
