"""Isolated synthetic cells; some types differ only in the location of a marker or the shape of the nucleus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from nextmarker.datasets._truth import (
    MOST_COUNTS,
    PIXEL_SIZE,
    apportion,
    check_integers,
    check_levels,
    tabulate,
    with_truth,
)
from nextmarker.io import _image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


class _CellType(NamedTuple):
    counts: tuple[float, ...]  # mean over the nucleus, per pixel, one for each marker
    share: float  # of all cells
    radius: float  # of the nucleus, pixels
    lobed: bool
    places: tuple[str, ...]  # of each marker: nucleus, cell, centre or border


_MARKERS: Final = ("M1", "M2", "M3", "M4", "M5")
_WHOLE: Final = ("nucleus", "cell", "cell", "cell", "cell")
_CENTRE: Final = ("nucleus", "centre", "centre", "centre", "centre")
_BORDER: Final = ("nucleus", "border", "border", "border", "border")
_CELLS: Final = {
    "M2 centre": _CellType((20, 12, 1, 1, 1), 0.22, 6.5, lobed=False, places=_CENTRE),
    "M2 border": _CellType((20, 12, 1, 1, 1), 0.14, 6.5, lobed=False, places=_BORDER),
    "M3 round": _CellType((20, 1, 40, 1, 1), 0.18, 6.0, lobed=False, places=_WHOLE),
    "M3 lobed": _CellType((20, 1, 40, 1, 1), 0.10, 6.0, lobed=True, places=_WHOLE),
    "M4": _CellType((20, 1, 1, 150, 1), 0.18, 7.5, lobed=False, places=_WHOLE),
    "M4 M5": _CellType((20, 1, 1, 150, 6), 0.12, 6.5, lobed=False, places=_WHOLE),
    "M5": _CellType((20, 1, 1, 1, 6), 0.06, 5.0, lobed=False, places=_WHOLE),
}
_SWAPPED: Final = {
    "M2 in M3": _CellType(
        (20, 12, 12, 1, 1), 0.14, 6.5, lobed=False, places=("nucleus", "centre", "border", *_WHOLE[3:])
    ),
    "M3 in M2": _CellType(
        (20, 12, 12, 1, 1), 0.12, 6.5, lobed=False, places=("nucleus", "border", "centre", *_WHOLE[3:])
    ),
    "M4 in M5": _CellType((20, 1, 1, 40, 10), 0.14, 6.5, lobed=False, places=(*_WHOLE[:3], "centre", "border")),
    "M5 in M4": _CellType((20, 1, 1, 40, 10), 0.12, 6.5, lobed=False, places=(*_WHOLE[:3], "border", "centre")),
    "M3 round": _CellType((20, 1, 30, 1, 1), 0.14, 6.0, lobed=False, places=_WHOLE),
    "M3 lobed": _CellType((20, 1, 30, 1, 1), 0.12, 6.0, lobed=True, places=_WHOLE),
    "M4": _CellType((20, 1, 1, 40, 1), 0.12, 7.0, lobed=False, places=_WHOLE),
    "M2 M5": _CellType((20, 8, 1, 1, 10), 0.10, 6.0, lobed=False, places=_WHOLE),
}
FIELD = 32  # pixels; each cell is in its own square
BACKGROUND = 0.2  # counts per pixel
BACKGROUND_SPREAD = 0.7  # standard deviation of the logarithm of the additional background over cells and markers


def synthetic_cells(
    n_cells: int = 2000,
    *,
    swapped: bool = False,
    staining: float = 0.2,
    background: float = 0.0,
    random_state: int = 0,
) -> SpatialData:
    """Generate isolated cells, with some types that mean intensities cannot distinguish.

    The types differ in five markers, M1 to M5, in size and in number. ``M2 centre`` and ``M2 border`` have the same
    counts, at the centre of the nucleus or along its border; ``M3 round`` and ``M3 lobed`` have the same counts and
    nuclei of the same area, which are round or have three lobes.

    Parameters
    ----------
    n_cells
        Number of cells. Each is near the centre of its own field of 32 x 32 pixels.
    swapped
        Generate eight types instead of seven, which are harder to distinguish. Two pairs have the same counts of two
        markers and differ only in which of them is at the centre of the nucleus and which along its border:
        ``M2 in M3`` and ``M3 in M2``, ``M4 in M5`` and ``M5 in M4``. Another pair is ``M3 round`` and ``M3 lobed``.
    staining
        Variation of the staining between cells: each marker of each cell is multiplied by exp(N(0, `staining`)).
    background
        Background of each cell, the same in all pixels of its field: for each marker this fraction of its counts in the
        brightest type, times exp(N(0, 0.7)).
    random_state
        Seed.

    Returns
    -------
    SpatialData with

    ``sdata.images["cells_1"]``
        Counts, uint16 (c, y, x), with 1 micrometre per pixel, in the coordinate system ``cells_1``.
    ``sdata.labels["masks_cells_1"]``
        Masks of the nuclei, int32 (y, x), with 0 elsewhere.
    ``sdata.shapes["truth_cells_1"]``
        Circles at the centres of the nuclei, with the same area, the categorical ``cell_type``, and ``size``, the area
        of the nucleus in pixels; the index is the label in the masks.
    ``sdata.attrs["nextmarker_pixel_size"]``
        Micrometres per pixel, as stored by :func:`nextmarker.io.read`.

    Raises
    ------
    TypeError
        If a number is not an integer.
    ValueError
        If a number is too small, negative or not finite.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_cells(n_cells=100)
    >>> sdata["cells_1"].shape, sdata["cells_1"]["c"].values.tolist()
    ((5, 288, 384), ['M1', 'M2', 'M3', 'M4', 'M5'])
    >>> sdata["truth_cells_1"]["cell_type"].value_counts().head(3).to_dict()
    {'M2 centre': 22, 'M3 round': 18, 'M4': 18}
    """
    check_integers(1, n_cells=n_cells)
    check_integers(0, random_state=random_state)
    check_levels(staining=staining, background=background)
    rng = np.random.default_rng(random_state)
    table = _SWAPPED if swapped else _CELLS
    kinds = list(table.values())
    cells = _place(n_cells, kinds, rng)
    rows = [_draw_row(row, kinds, staining, background, rng) for _, row in cells.groupby(cells["y"] // FIELD)]
    width = rows[0][1].shape[1]
    counts = np.concatenate([_widen(counts, width) for counts, _ in rows], axis=1)
    masks = np.concatenate([_widen(labels, width) for _, labels in rows])
    truth = tabulate(cells, masks, list(table))
    truth["size"] = np.bincount(masks.ravel())[1:]
    return with_truth([_image.Image("cells_1", counts, _MARKERS, PIXEL_SIZE)], [masks], [truth])


def _place(n_cells: int, table: Sequence[_CellType], rng: np.random.Generator) -> pd.DataFrame:
    """Choose type, size and centre of each cell, field by field."""
    kinds = rng.permutation(np.repeat(np.arange(len(table)), apportion([kind.share for kind in table], n_cells)))
    row, column = np.divmod(np.arange(n_cells), int(np.ceil(np.sqrt(1.25 * n_cells))))
    return pd.DataFrame(
        {
            "x": (column + 0.5) * FIELD + rng.uniform(-2, 2, n_cells),
            "y": (row + 0.5) * FIELD + rng.uniform(-2, 2, n_cells),
            "kind": kinds,
            "radius": np.array([kind.radius for kind in table])[kinds]
            * np.clip(rng.lognormal(0, 0.12, n_cells), 0.75, 1.25),
        }
    )


def _draw_row(
    cells: pd.DataFrame, table: Sequence[_CellType], staining: float, background: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Counts, uint16 (c, y, x), and labels, int32 (y, x), of a row of cells."""
    lobed = np.array([kind.lobed for kind in table])[cells["kind"]]
    depth, body = _shape(cells, lobed, rng)
    expected = _stain(cells, table, depth, body, staining, rng) + BACKGROUND
    if background:
        brightest = background * np.max([kind.counts for kind in table], axis=0)
        expected += (brightest * rng.lognormal(0, BACKGROUND_SPREAD, (len(cells), 5))).T[:, :, None, None]
    counts = np.minimum(rng.poisson(expected), MOST_COUNTS).astype(np.uint16)
    labels = np.where(depth < 1, cells.index.to_numpy()[:, None, None] + 1, 0).astype(np.int32)
    return np.concatenate(list(counts.swapaxes(0, 1)), axis=-1), np.concatenate(list(labels), axis=-1)


def _widen(row: np.ndarray, width: int) -> np.ndarray:
    """Pad the last row, which may have fewer cells, with zeros."""
    return np.pad(row, [(0, 0)] * (row.ndim - 1) + [(0, width - row.shape[-1])])


def _shape(cells: pd.DataFrame, lobed: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw nucleus and body of each cell in its field.

    Returns
    -------
    Depth of each pixel in the nucleus, 0 at the centre and 1 at the border, float (cells, y, x), and whether it is in
    the body, bool (cells, y, x).
    """
    radius = cells["radius"].to_numpy()[:, None, None]
    pixel = np.arange(FIELD) + 0.5
    x = pixel - (cells["x"].to_numpy() % FIELD)[:, None, None]
    y = pixel[:, None] - (cells["y"].to_numpy() % FIELD)[:, None, None]

    distance = np.hypot(x, y)
    angle = rng.uniform(0, 2 * np.pi, len(cells))[:, None, None] + np.radians([-105, 0, 105])[:, None, None, None]
    across, down = (0.7 * radius * (turn(angle) - turn(angle).mean(axis=0)) for turn in (np.cos, np.sin))
    to_lobe = np.hypot(x - across, y - down).min(axis=0)
    distance = np.where(lobed[:, None, None], to_lobe, distance)

    # The nucleus consists of as many of the nearest pixels as a disc, so lobed and round ones have the same area.
    nearest = distance.reshape(len(cells), -1).argsort(axis=1).argsort(axis=1).reshape(distance.shape)
    depth = np.sqrt((nearest + 0.5) / np.round(np.pi * radius**2))
    return depth, np.hypot(x, y) < 1.5 * radius


def _stain(
    cells: pd.DataFrame,
    table: Sequence[_CellType],
    depth: np.ndarray,
    body: np.ndarray,
    staining: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Expected counts without background, float (c, cells, y, x)."""
    nucleus = depth < 1
    places = {
        "nucleus": nucleus,
        "cell": body | nucleus,
        "centre": expit((0.5 - depth) / 0.05),
        "border": expit((depth - 0.8) / 0.05) * nucleus,
    }
    profiles = {name: place / place.mean(axis=(1, 2), where=nucleus, keepdims=True) for name, place in places.items()}
    chosen = np.array([kind.places for kind in table])[cells["kind"]]  # (cells, c)
    level = np.array([kind.counts for kind in table])[cells["kind"]] * rng.lognormal(0, staining, (len(cells), 5))
    expected = []
    for place, counts in zip(chosen.T, level.T, strict=True):
        placed = np.select([(place == name)[:, None, None] for name in profiles], list(profiles.values()))
        expected.append(counts[:, None, None] * placed)
    return np.stack(expected)
