"""Densely packed synthetic tissue: shared membranes, low counts, and the differences between raw images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from nextmarker.datasets._layout import choose_types, smooth_noise, spread
from nextmarker.datasets._truth import MOST_COUNTS, PIXEL_SIZE, check_integers, check_levels, tabulate, with_truth
from nextmarker.io import _image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData


class _Marker(NamedTuple):
    place: str  # nucleus, cytoplasm or membrane
    counts: float  # per pixel, where a positive cell has it


class _DenseType(NamedTuple):
    markers: tuple[str, ...]
    share: float  # of all cells
    size: float  # diameter relative to other types
    habitat: int  # types with the same habitat occur together
    cohesion: float  # how strongly


_MARKERS: Final = {
    "DNA": _Marker("nucleus", 30),
    "Ki67": _Marker("nucleus", 5),
    "FOXP3": _Marker("nucleus", 3),
    "CD45": _Marker("membrane", 12),
    "CD3": _Marker("membrane", 8),
    "CD4": _Marker("membrane", 4),
    "CD8": _Marker("membrane", 6),
    "CD20": _Marker("membrane", 14),
    "CD31": _Marker("membrane", 1.5),
    "CD68": _Marker("cytoplasm", 5),
    "PanCK": _Marker("cytoplasm", 25),
    "SMA": _Marker("cytoplasm", 10),
}
_IN_EVERY_CELL: Final = ("DNA",)

# in the order in which they are placed
_TYPES: Final = {
    "tumour": _DenseType(("PanCK",), 0.20, 1.2, habitat=0, cohesion=4),
    "proliferating tumour": _DenseType(("PanCK", "Ki67"), 0.10, 1.2, habitat=0, cohesion=2),
    "B cell": _DenseType(("CD45", "CD20"), 0.14, 0.9, habitat=1, cohesion=3),
    "T helper": _DenseType(("CD45", "CD3", "CD4"), 0.12, 0.9, habitat=1, cohesion=1),
    "regulatory T": _DenseType(("CD45", "CD3", "CD4", "FOXP3"), 0.06, 0.9, habitat=1, cohesion=0.5),
    "cytotoxic T": _DenseType(("CD45", "CD3", "CD8"), 0.10, 0.9, habitat=1, cohesion=0),
    "endothelium": _DenseType(("CD31",), 0.08, 1.0, habitat=2, cohesion=2),
    "macrophage": _DenseType(("CD45", "CD68"), 0.08, 1.1, habitat=1, cohesion=0),
    "fibroblast": _DenseType(("SMA",), 0.12, 1.0, habitat=2, cohesion=0),
}

DENSE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {name: kind.markers for name, kind in _TYPES.items()}
"""The cell types of :func:`dense_tissue`, each with its own markers."""

BACKGROUND_SPREAD = 0.7  # standard deviation of the logarithm of the background over images and markers
LEAST_SPACING = 4.0  # pixels; at less, cells would be single pixels


def dense_tissue(
    n_images: int = 4,
    n_cells: int = 400,
    *,
    counts: float = 1.0,
    spacing: float = 9.0,
    blur: float = 0.7,
    staining: float = 0.3,
    background: float = 0.0,
    offset: float = 0.0,
    random_state: int = 0,
) -> SpatialData:
    """Generate images of densely packed tissue with known cell types and adjustable difficulty.

    There are nine cell types and twelve markers in nucleus, cytoplasm or membrane, with 1.5 to 30 counts per pixel. The
    cells fill the image, and neighbours share their membrane, so the markers of its neighbours are visible in every
    cell. Pixels are Poisson counts plus `offset`. Unlike :func:`synthetic_tissue`, it is meant for testing the limits
    of a method: change one parameter and keep the others.

    Parameters
    ----------
    n_images
        Number of images.
    n_cells
        Number of cells per image.
    counts
        Factor for the counts of all markers; 0.25 gives difficult images.
    spacing
        Distance between the centres of neighbouring cells, in pixels.
    blur
        Standard deviation of the Gaussian blur of the instrument, in pixels.
    staining
        Variation of the staining: each marker of each image is multiplied by exp(N(0, `staining`)).
    background
        Mean background, in multiples of the square root of the marker's counts. Each marker of each image has
        ``background * sqrt(counts) * exp(N(0, 0.7))`` counts in every pixel; 0.1 is typical of raw images of imaging
        mass cytometry.
    offset
        Counts added to every pixel of every marker after the shot noise, as by a camera: the same number everywhere,
        rounded to an integer.
    random_state
        Seed. An image depends only on the seed and its own number, not on the number of images.

    Returns
    -------
    SpatialData with, for each image ``dense_1``, ``dense_2``, ...

    ``sdata.images["dense_1"]``
        Counts, uint16 (c, y, x), with 1 micrometre per pixel, in the coordinate system ``dense_1``. Pixels are
        saturated at 65,535 counts.
    ``sdata.labels["masks_dense_1"]``
        Cell masks, int32 (y, x). Every pixel belongs to a cell.
    ``sdata.shapes["truth_dense_1"]``
        Circles at the centres of the cells, with the same area as their masks, and the categorical ``cell_type``; the
        index is the label in the masks. ``nm.datasets.DENSE_TYPES`` lists the markers of each type.

    Raises
    ------
    TypeError
        If the number of images or cells, or the seed, is not an integer.
    ValueError
        If a number is too small, negative or not finite.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.dense_tissue(n_images=1, n_cells=100, background=0.1)
    >>> sdata["dense_1"].sizes["c"], int(sdata["masks_dense_1"].min())
    (12, 1)
    >>> nm.datasets.DENSE_TYPES["cytotoxic T"]
    ('CD45', 'CD3', 'CD8')
    """
    check_integers(1, n_images=n_images, n_cells=n_cells)
    check_integers(0, random_state=random_state)
    check_levels(counts=counts, blur=blur, staining=staining, background=background, offset=offset)
    check_levels(LEAST_SPACING, spacing=spacing)
    shape = _shape(n_cells, spacing)
    images, masks, truths = [], [], []
    for number in range(1, n_images + 1):
        rng = np.random.default_rng([random_state, number])
        cells = _place_cells(n_cells, shape, rng)
        labels, depth = _fill(cells, shape)
        expected = _expected(cells, labels, depth, staining, rng) * counts
        expected = ndimage.gaussian_filter(expected, (0, blur, blur))
        pixels = rng.poisson(expected + _background(background, counts, rng)[:, None, None])
        recorded = np.minimum(pixels + np.rint(offset), MOST_COUNTS).astype(np.uint16)
        images.append(_image.Image(f"dense_{number}", recorded, tuple(_MARKERS), PIXEL_SIZE))
        masks.append(labels)
        truths.append(tabulate(cells, labels, list(_TYPES)))
    return with_truth(images, masks, truths)


def _shape(n_cells: int, spacing: float) -> tuple[int, int]:
    """Height and width of an image for these cells at this distance; a quarter wider than high."""
    area = n_cells * spacing**2 * np.sqrt(0.75)  # for a hexagonal lattice
    height = np.sqrt(area / 1.25)
    return int(np.ceil(height)), int(np.ceil(1.25 * height))


def _place_cells(n_cells: int, shape: tuple[int, int], rng: np.random.Generator) -> pd.DataFrame:
    habitats = np.stack([smooth_noise(shape, 0.12 * np.sqrt(np.prod(shape)), rng) for _ in range(3)])
    centres = spread(np.ones(shape, bool), n_cells, rng)
    columns, rows = centres.astype(int).T
    kinds = choose_types(list(_TYPES.values()), habitats[:, rows, columns], rng)
    size = np.array([kind.size for kind in _TYPES.values()])[kinds] * rng.lognormal(0, 0.05, n_cells)
    return pd.DataFrame({"x": centres[:, 0], "y": centres[:, 1], "kind": kinds, "size": size})


def _fill(cells: pd.DataFrame, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Assign each pixel to the nearest cell, with distances relative to cell size.

    Returns
    -------
    Labels, int32 (y, x), and the depth of each pixel in its cell: 0 at the centre, 1 at the border to the next cell,
    float (y, x).
    """
    pixels = np.argwhere(np.ones(shape, bool))[:, ::-1] + 0.5
    n_nearest = min(8, len(cells))
    distance, nearest = cKDTree(cells[["x", "y"]]).query(pixels, k=[*range(1, n_nearest + 1)])
    distance = distance / cells["size"].to_numpy()[nearest]
    order = np.argsort(distance, axis=1)
    own, *others = np.take_along_axis(distance, order, axis=1).T
    labels = np.take_along_axis(nearest, order[:, :1], axis=1)[:, 0] + 1
    depth = 2 * own / (own + others[0]) if others else own / max(shape)
    return labels.reshape(shape).astype(np.int32), depth.reshape(shape)


def _expected(
    cells: pd.DataFrame, labels: np.ndarray, depth: np.ndarray, staining: float, rng: np.random.Generator
) -> np.ndarray:
    """Counts of every marker before blur and noise, float (c, y, x)."""
    places = {
        "nucleus": expit((0.62 - depth) / 0.06),
        "cytoplasm": expit((depth - 0.5) / 0.08),
        "membrane": np.exp(-(((1 - depth) / 0.3) ** 2)),
    }
    kinds = list(_TYPES.values())
    expected = []
    for name, marker in _MARKERS.items():
        has = np.array([name in kind.markers or name in _IN_EVERY_CELL for kind in kinds])[cells["kind"]]
        level = np.append(0, has * rng.lognormal(0, 0.25, len(cells)))[labels]
        expected.append(marker.counts * rng.lognormal(0, staining) * level * places[marker.place])
    return np.stack(expected)


def _background(background: float, counts: float, rng: np.random.Generator) -> np.ndarray:
    """Background of every marker of an image, counts per pixel, float (c,)."""
    of_markers = np.sqrt([marker.counts * counts for marker in _MARKERS.values()])
    return background * of_markers * rng.lognormal(0, BACKGROUND_SPREAD, len(_MARKERS))
