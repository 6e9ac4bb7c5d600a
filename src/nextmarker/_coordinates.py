"""Computes the position of elements in the pixels of an image, and the pixel size, from the transformations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import get_transformation

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import xarray as xr
    from spatialdata import SpatialData

SMALLEST_PIXEL, LARGEST_PIXEL = 0.01, 100.0
"""Micrometres, from super-resolution microscopy to imaging mass spectrometry."""
TOLERANCE = 0.05
"""Maximum distance in pixels between the positions of a point according to two coordinate systems."""
STATE_SIZE = "State the pixel size: nm.pp.set_pixel_size(sdata, ...)."
SET = "spatialdata.transformations.set_transformation"
SAME, SQUARE = 1e-3, 0.01
"""Maximum relative difference between two stated pixel sizes, and between the two sides of a pixel."""


def is_micrometre(system: str) -> bool:
    """Whether a coordinate system is `"micrometre"`, perhaps with a suffix from `spatialdata.concatenate`."""
    return system.split("-")[0] == _keys.MICROMETRE


def spatial_system(sdata: SpatialData, image: str) -> str:
    """Choose the coordinate system for `obsm["spatial"]`: micrometres if known, or the image's own, or its first."""
    systems = get_transformation(sdata.images[image], get_all=True)
    return min(systems, key=lambda name: (not is_micrometre(name), name != image))


def pixel_size(sdata: SpatialData, image: str) -> float | None:
    """Micrometres per pixel of an image, from its transformation to the system "micrometre"; None if it has none.

    Raises
    ------
    ValueError
        If the pixels are not square or not of a plausible size, or if `sdata.attrs` and the transformations contradict
        each other, since some tools change only one of them.
    """
    transformations = get_transformation(sdata.images[image], get_all=True)
    sides = {name: _sides(transformation) for name, transformation in transformations.items()}
    known = {name: _size(image, name, side) for name, side in sides.items() if is_micrometre(name)}
    stated = sdata.attrs.get(_keys.PIXEL_SIZE, {}).get(image)
    claims = [*known.values(), *([] if stated is None else [float(stated)])]
    if not claims:
        return None
    confirmed = known or [side for side in sides.values() if np.allclose(side, stated, rtol=SAME)]
    if confirmed and np.allclose(claims, claims[0], rtol=SAME):
        return claims[0]
    claims_by = f"sdata.attrs says {stated}, its transformations {_listed(sides)}"
    msg = f"The pixel size of image {image!r} is contradictory: {claims_by}. {STATE_SIZE}"
    raise ValueError(msg)


def _sides(transformation: Any) -> np.ndarray:
    """Width and height of a pixel in a coordinate system, which may also shift, rotate or flip the image."""
    return np.linalg.norm(transformation.to_affine_matrix(("x", "y"), ("x", "y"))[:2, :2], axis=0)


def _listed(sides: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{x:g} (to {name!r})" for name, (x, _) in sides.items())


def _size(image: str, system: str, sides: np.ndarray) -> float:
    x, y = sides
    if not (np.isfinite(sides).all() and abs(x - y) <= SQUARE * max(x, y)):
        msg = f"Pixels of {image!r} are not square in {system!r}: {x:g} x {y:g} um. {STATE_SIZE}"
        raise ValueError(msg)
    size = float(np.sqrt(x * y))
    check_plausible(size, f"image {image!r}", "nm.pp.set_pixel_size(sdata, ...)")
    return size


def check_plausible(size: float, owner: str, fix: str) -> None:
    """Raise an error for a pixel size that must be in another unit."""
    if not SMALLEST_PIXEL <= size <= LARGEST_PIXEL:
        msg = f"Pixels of {size:g} micrometres ({owner}) are implausible. State the size in micrometres, {fix}."
        raise ValueError(msg)


def shared_systems(sdata: SpatialData, element: str, image: str) -> list[str]:
    """Coordinate systems that an element shares with an image; `"micrometre"`, which all images share, is last."""
    of_element = get_transformation(sdata[element], get_all=True)
    shared = [name for name in get_transformation(sdata.images[image], get_all=True) if name in of_element]
    return sorted(shared, key=is_micrometre)


def to_pixels(sdata: SpatialData, element: str, image: str) -> np.ndarray:
    """Affine matrix, (3, 3), from the intrinsic coordinates (x, y) of an element to the pixels of an image.

    Raises
    ------
    ValueError
        If the two share no coordinate system, or if two shared systems disagree on the position of the element.
    """
    systems = shared_systems(sdata, element, image)
    if not systems:
        msg = f"{element!r} and image {image!r} share no coordinate system. Relate them: {SET}(...)."
        raise ValueError(msg)
    matrices = [between(sdata[element], sdata.images[image], system) for system in systems]
    _check_agreement(sdata, element, image, dict(zip(systems, matrices, strict=True)))
    return matrices[0]


def apply(matrix: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Move points (x, y), float64 (points, 2), by an affine matrix (3, 3)."""
    return xy @ matrix[:2, :2].T + matrix[:2, 2]


def from_system(sdata: SpatialData, image: str, system: str) -> np.ndarray:
    """Affine matrix, (3, 3), from a coordinate system of an image to its pixels."""
    return np.linalg.inv(_matrix(sdata.images[image], system))


def _matrix(element: Any, system: str) -> np.ndarray:
    matrix = get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))
    if not (np.isfinite(matrix).all() and np.linalg.det(matrix)):
        msg = f"The transformation to {system!r} is singular or not finite. Set another: {SET}(...)."
        raise ValueError(msg)
    return matrix


def between(element: Any, image: Any, system: str) -> np.ndarray:
    """Affine matrix, (3, 3), from an element to the pixels of an image, through one coordinate system."""
    return np.linalg.inv(_matrix(image, system)) @ _matrix(element, system)


def _check_agreement(sdata: SpatialData, element: str, image: str, matrices: dict[str, np.ndarray]) -> None:
    """Check that all shared systems give the same position; a transformation may have been set on one element only."""
    height, width = full_resolution(sdata.images[image]).shape[-2:]
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    first, *others = matrices
    here = apply(np.linalg.inv(matrices[first]), corners)
    for system in others:
        if np.abs(apply(matrices[system], here) - corners).max() > TOLERANCE:
            places = f"has different positions in image {image!r} by {first!r} and by {system!r}"
            call = f"{SET}(sdata[{element!r}], ..., {system!r})"
            msg = f"{element!r} {places}. Set the missing transformation: {call}."
            raise ValueError(msg)


def full_resolution(element: Any) -> xr.DataArray:
    """Take the first scale of a pyramid."""
    if hasattr(element, "children"):
        return next(iter(element["scale0"].data_vars.values()))
    return element


def scales(element: Any) -> list[xr.DataArray]:
    """List the scales of a pyramid from the finest; an image without others is its only one."""
    if not hasattr(element, "children"):
        return [element]
    levels = [next(iter(level.data_vars.values())) for level in element.children.values()]
    return sorted(levels, key=lambda level: -level.sizes["x"])


def outside(pixels: xr.DataArray, centres: np.ndarray) -> np.ndarray:
    """Find the centres (x, y) that are not finite or outside of an image, bool (cells,)."""
    inside = (centres >= 0) & (centres < (pixels.sizes["x"], pixels.sizes["y"]))
    return np.asarray(~inside.all(axis=1))


def check_inside(image: str, pixels: xr.DataArray, centres: np.ndarray, names: Sequence[Hashable], fix: str) -> None:
    """Raise an error for centres that are not finite or outside of their image, with their number and the first."""
    wrong = outside(pixels, centres)
    if wrong.any():
        first = int(np.argmax(wrong))
        x, y = centres[first]
        size = f"{pixels.sizes['x']} pixels wide and {pixels.sizes['y']} high"
        msg = (
            f"{wrong.sum()} of {len(centres)} centres are NaN or outside of image {image!r} ({size}), first "
            f"{names[first]} at x = {x:.1f}, y = {y:.1f}. {fix}"
        )
        raise ValueError(msg)
