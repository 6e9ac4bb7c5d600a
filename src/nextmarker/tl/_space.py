"""Cells and their neighbours in each image. The only file that imports squidpy, and only when it is needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from scipy.spatial import QhullError

from nextmarker import _keys
from nextmarker._errors import check_option, check_value, listed
from nextmarker._provenance import check_clusters
from nextmarker._table import read_labels, refuse_infinite, refuse_joined, require

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

Graph = Literal["knn", "radius", "delaunay"]

LEAST = {"radius": 2, "delaunay": 3}  # cells that a graph needs
NAMED = 3  # images that a warning lists


class Images:
    """The cells of a table, image by image, with their types and positions.

    Parameters
    ----------
    groupby
        Column of `.obs` with the types.
    image_key
        Column of `.obs` with the images.

    Raises
    ------
    KeyError
        If a column or the positions are missing.
    ValueError
        If no cell has both a type and an image, positions are not finite, or several images have the same name.
    """

    def __init__(self, adata: AnnData, groupby: str, image_key: str) -> None:
        columns = {"groupby": groupby, "image_key": image_key}
        read_labels(adata, columns)
        (types, self.types), (images, self.names) = (_read(adata, {name: key}) for name, key in columns.items())
        positions = require(adata, "obsm", _keys.SPATIAL, "adata.obsm['spatial'] = ..., (x, y) of each cell")
        self.positions = np.asarray(positions, dtype=float)
        refuse_infinite(self.positions[images >= 0], adata.obs_names[images >= 0], f".obsm[{_keys.SPATIAL!r}]")
        refuse_joined(adata, image_key)
        check_clusters(adata, groupby)
        self.codes = types
        self.rows = [np.flatnonzero(images == code) for code in range(len(self.names))]

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name each image, with the rows of its cells in the table, int (cells,)."""
        return iter(zip(self.names, self.rows, strict=True))


class Linker:
    """Links the cells of an image to their neighbours, as `squidpy.gr.spatial_neighbors_knn` and its like do.

    Raises
    ------
    ValueError
        If the graph is unknown, or its parameters are out of range.
    """

    def __init__(self, graph: Graph, n_neighbors: int, radius: float | None) -> None:
        check_option("graph", graph, get_args(Graph))
        check_value("n_neighbors", n_neighbors, n_neighbors >= 1, "at least 1")
        check_value("radius", radius, radius is None or radius > 0, "positive")
        if graph == "radius":
            check_value("radius", radius, radius is not None, "a distance, as in .obsm['spatial']: graph='radius'")
        if graph == "knn":
            check_value("radius", radius, radius is None, "None with graph='knn'. Choose graph='radius' or 'delaunay'")
        radius = None if radius is None else float(radius)
        neighbors = _import_squidpy().gr.neighbors
        builders = {
            "knn": lambda: neighbors.KNNBuilder(n_neighs=n_neighbors),
            "radius": lambda: neighbors.RadiusBuilder(radius=radius),
            "delaunay": lambda: neighbors.DelaunayBuilder(radius=radius),
        }
        self._builder = builders[graph]()
        self._least = LEAST.get(graph, n_neighbors + 1)
        self.record = {"graph": graph, "n_neighbors": n_neighbors if graph == "knn" else None, "radius": radius}

    def __call__(self, positions: np.ndarray) -> sparse.csr_matrix | None:
        """Link cells, (cells, cells) with 1 from each cell to each of its neighbours; None if no links can be made."""
        if len(positions) < self._least:
            return None
        try:
            links = self._builder.build(positions)[0]
        except QhullError:  # all cells on one line
            return None
        return links if links.nnz else None


def count_together(positions: np.ndarray, codes: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Run `squidpy.gr.co_occurrence` on cells of one image, whose types are numbered without a gap.

    Returns
    -------
    How much more frequent the second type is within each distance of the first than near all cells, float (types,
    types, distances).
    """
    from anndata import AnnData

    types = pd.Categorical(codes.astype(str), np.arange(codes.max() + 1).astype(str))
    image = AnnData(obs=pd.DataFrame({"type": types}, np.arange(len(codes)).astype(str)), obsm={"spatial": positions})
    ratios, _ = _import_squidpy().gr.co_occurrence(image, "type", interval=np.append(0, distances), copy=True)
    return ratios.swapaxes(0, 1)


def warn_of_few_cells(names: list[str], what: str) -> None:
    """Warn of images in which no cells could be linked."""
    if names:
        msg = f"Images with too few cells to link them, {what}: {listed(names, NAMED)}."
        warnings.warn(msg, stacklevel=3)


def _import_squidpy() -> ModuleType:
    """Import squidpy, which takes seconds and warns of its own docstrings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        import squidpy
    return squidpy


def _read(adata: AnnData, column: dict[str, str]) -> tuple[np.ndarray, pd.Index]:
    """Read a column as codes of its names, int (cells,), -1 where a cell has none."""
    known, (labels,) = read_labels(adata, column)
    codes = np.full(adata.n_obs, -1)
    codes[known] = labels.codes
    return codes, labels.categories
