"""Synthetic tissue with eight cell types, each with its own location and markers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from nextmarker.datasets._layout import choose_types, smooth_noise, spread
from nextmarker.datasets._truth import PIXEL_SIZE, check_integers, tabulate, with_truth
from nextmarker.io import _image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData


class _Marker(NamedTuple):
    place: str  # nucleus, cytoplasm or membrane
    counts: float  # per pixel, where a positive cell has it
    background: float  # everywhere, per pixel


class _TissueType(NamedTuple):
    markers: tuple[str, ...]
    share: float  # of all cells
    radius: float  # pixels
    elongation: float  # long axis over short axis
    habitat: int  # types with the same habitat occur together
    cohesion: float  # how strongly


_MARKERS: Final = {
    "DNA1": _Marker("nucleus", 60, 1.0),
    "DNA2": _Marker("nucleus", 110, 1.5),
    "Ki67": _Marker("nucleus", 12, 0.1),
    "CD3": _Marker("membrane", 14, 0.3),
    "CD4": _Marker("membrane", 6, 0.2),
    "CD8": _Marker("membrane", 9, 0.2),
    "CD20": _Marker("membrane", 30, 0.4),
    "CD31": _Marker("membrane", 2, 0.03),
    "CD68": _Marker("cytoplasm", 16, 0.5),
    "HLA-DR": _Marker("membrane", 45, 1.5),
    "E-cadherin": _Marker("membrane", 25, 0.6),
    "PanKRT": _Marker("cytoplasm", 1000, 8),
    "SMA": _Marker("cytoplasm", 300, 5),
    "Vimentin": _Marker("cytoplasm", 80, 3),
}

# in the order in which they are placed
_TISSUE: Final = {
    "proliferating tumour": _TissueType(("PanKRT", "E-cadherin", "Ki67"), 0.08, 5.3, 1.1, habitat=0, cohesion=2),
    "tumour": _TissueType(("PanKRT", "E-cadherin"), 0.19, 5.1, 1.1, habitat=0, cohesion=8),
    "B cell": _TissueType(("CD20", "HLA-DR"), 0.14, 4.2, 1.0, habitat=1, cohesion=6),
    "T helper": _TissueType(("CD3", "CD4"), 0.16, 4.1, 1.0, habitat=1, cohesion=1.5),
    "endothelium": _TissueType(("CD31", "Vimentin"), 0.07, 4.2, 2.0, habitat=2, cohesion=5),
    "cytotoxic T": _TissueType(("CD3", "CD8"), 0.12, 4.2, 1.0, habitat=1, cohesion=0.5),
    "macrophage": _TissueType(("CD68", "HLA-DR"), 0.11, 5.2, 1.2, habitat=1, cohesion=0),
    "fibroblast": _TissueType(("SMA", "Vimentin"), 0.13, 4.5, 2.0, habitat=2, cohesion=0),
}

TISSUE_TYPES: Final[Mapping[str, tuple[str, ...]]] = {name: kind.markers for name, kind in _TISSUE.items()}
"""The cell types of :func:`synthetic_tissue`, each with its own markers."""

NUCLEAR = ("DNA1", "DNA2")  # in every cell
AREA_PER_CELL = 78  # pixels of the image; cells of about 65 pixels then touch
LEAST_AREA_PER_CELL = 50


def synthetic_tissue(
    n_images: int = 3,
    n_cells: int = 600,
    *,
    image_size: tuple[int, int] | None = None,
    random_state: int = 0,
) -> SpatialData:
    """Generate images of tissue with known cell types.

    Eight cell types form nests, follicles and stroma. They touch their neighbours, differ in size, shape and number,
    and are stained with 14 markers in nucleus, cytoplasm or membrane, with 2 to 1,000 counts per pixel. Staining and
    background vary between images, and pixels are Poisson counts.

    Parameters
    ----------
    n_images
        Number of images.
    n_cells
        Number of cells per image.
    image_size
        Height and width of each image in pixels, with at least 50 pixels per cell. By default large enough for the
        cells, and a quarter wider than high.
    random_state
        Seed. An image depends only on the seed and its own number, not on the number of images.

    Returns
    -------
    SpatialData with, for each image ``tissue_1``, ``tissue_2``, ...

    ``sdata.images["tissue_1"]``
        Counts, uint16 (c, y, x), with 1 micrometre per pixel, in the coordinate system ``tissue_1``.
    ``sdata.labels["masks_tissue_1"]``
        Cell masks, int32 (y, x), with 0 elsewhere.
    ``sdata.shapes["truth_tissue_1"]``
        Circles at the centres of the cells, with the same area as their masks, and the categorical ``cell_type``; the
        index is the label in the masks. ``nm.datasets.TISSUE_TYPES`` lists the markers of each type.
    ``sdata.attrs["nextmarker_pixel_size"]``
        Micrometres per pixel, as stored by :func:`nextmarker.io.read`.

    Raises
    ------
    TypeError
        If a number is not an integer.
    ValueError
        If a number is too small, or the cells do not fit into `image_size`.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=100)
    >>> sdata["tissue_1"].shape, sdata["tissue_1"]["c"].values.tolist()[:4]
    ((14, 79, 99), ['DNA1', 'DNA2', 'Ki67', 'CD3'])
    >>> sdata["truth_tissue_1"]["cell_type"].value_counts().head(3).to_dict()
    {'tumour': 19, 'T helper': 16, 'B cell': 14}
    >>> nm.datasets.TISSUE_TYPES["T helper"]
    ('CD3', 'CD4')
    """
    check_integers(1, n_images=n_images, n_cells=n_cells)
    check_integers(0, random_state=random_state)
    height, width = _size(image_size, n_cells)
    images, masks, truths = [], [], []
    for number in range(1, n_images + 1):
        rng = np.random.default_rng([random_state, number])
        cells = _place_cells(n_cells, (height, width), rng)
        labels, depth = _grow_cells(cells, (height, width))
        counts = _stain(cells, labels, depth, rng)
        images.append(_image.Image(f"tissue_{number}", counts, tuple(_MARKERS), PIXEL_SIZE))
        masks.append(labels)
        truths.append(tabulate(cells, labels, list(_TISSUE)))
    return with_truth(images, masks, truths)


def _size(image_size: tuple[int, int] | None, n_cells: int) -> tuple[int, int]:
    if image_size is None:
        height = np.sqrt(n_cells * AREA_PER_CELL / 1.25)
        return int(np.ceil(height)), int(np.ceil(1.25 * height))
    if not isinstance(image_size, Sequence):
        msg = f"image_size={image_size!r} must be (height, width) in pixels."
        raise TypeError(msg)
    if len(image_size) != 2:
        msg = f"image_size must be (height, width) in pixels, not {len(image_size)} numbers."
        raise ValueError(msg)
    height, width = image_size
    check_integers(1, height=height, width=width)
    if height * width < LEAST_AREA_PER_CELL * n_cells:
        msg = (
            f"{n_cells} cells do not fit into {height} x {width} pixels: they need {LEAST_AREA_PER_CELL * n_cells} "
            "pixels. Use fewer cells, or leave image_size out."
        )
        raise ValueError(msg)
    return height, width


def _place_cells(n_cells: int, shape: tuple[int, int], rng: np.random.Generator) -> pd.DataFrame:
    """Choose position, type, size and orientation of the cells."""
    habitats = np.stack([smooth_noise(shape, 0.12 * np.sqrt(np.prod(shape)), rng) for _ in range(3)])
    lumen = smooth_noise(shape, 8, rng)
    centres = spread(lumen > np.quantile(lumen, 0.05), n_cells, rng)
    rows, columns = centres.astype(int).T[::-1]
    kinds = choose_types(list(_TISSUE.values()), habitats[:, rows, columns], rng)
    along_y, along_x = np.gradient(habitats[0])
    table = list(_TISSUE.values())
    return pd.DataFrame(
        {
            "x": centres[:, 0],
            "y": centres[:, 1],
            "kind": kinds,
            "radius": np.array([kind.radius for kind in table])[kinds] * rng.lognormal(0, 0.1, n_cells),
            "elongation": np.array([kind.elongation for kind in table])[kinds] * rng.lognormal(0, 0.05, n_cells),
            # stroma is oriented along the nests of tumour
            "angle": np.arctan2(along_x, -along_y)[rows, columns] + rng.normal(0, 0.3, n_cells),
        }
    )


def _grow_cells(cells: pd.DataFrame, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Assign each pixel to the cell in whose ellipse it is deepest.

    Returns
    -------
    Labels, int32 (y, x), and the depth of each pixel in its cell: 0 at the centre, 1 at the border, float (y, x).
    """
    pixels = np.argwhere(np.ones(shape, bool))[:, ::-1] + 0.5
    n_nearest = min(8, len(cells))
    _, nearest = cKDTree(cells[["x", "y"]]).query(pixels, k=[*range(1, n_nearest + 1)])
    offset = pixels[:, None] - cells[["x", "y"]].to_numpy()[nearest]
    cosine, sine = np.cos(cells["angle"].to_numpy())[nearest], np.sin(cells["angle"].to_numpy())[nearest]
    stretch = np.sqrt(cells["elongation"].to_numpy())[nearest]
    along = (cosine * offset[..., 0] + sine * offset[..., 1]) / stretch
    across = (cosine * offset[..., 1] - sine * offset[..., 0]) * stretch
    distance = np.hypot(along, across) / cells["radius"].to_numpy()[nearest]

    order = np.argsort(distance, axis=1)
    own = np.take_along_axis(distance, order[:, :1], axis=1)[:, 0]
    labels = np.where(own < 1, np.take_along_axis(nearest, order[:, :1], axis=1)[:, 0] + 1, 0)
    if n_nearest > 1:  # if two cells touch, the border is between them
        neighbour = np.take_along_axis(distance, order[:, 1:2], axis=1)[:, 0]
        own = np.maximum(own, 2 * own / (own + neighbour))
    return labels.reshape(shape).astype(np.int32), own.reshape(shape)


def _stain(cells: pd.DataFrame, labels: np.ndarray, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Poisson counts of every marker, uint16 (c, y, x)."""
    places = {
        "nucleus": expit((0.62 - depth) / 0.06),
        "cytoplasm": expit((depth - 0.5) / 0.08),
        "membrane": np.exp(-(((1 - depth) / 0.3) ** 2)),
    }
    kinds = list(_TISSUE.values())
    counts = []
    for name, marker in _MARKERS.items():
        has = np.array([name in kind.markers or name in NUCLEAR for kind in kinds])[cells["kind"]]
        level = np.append(0, has * rng.lognormal(0, 0.3, len(cells)))[labels]
        expected = marker.counts * rng.lognormal(0, 0.1) * level * places[marker.place]
        blurred = ndimage.gaussian_filter(expected, 0.6)  # the spot of the instrument is wider than a pixel
        counts.append(rng.poisson(blurred + marker.background * rng.lognormal(0, 0.2)))
    return np.stack(counts).astype(np.uint16)
