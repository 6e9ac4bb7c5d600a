"""Positions of cells in elements of the object: labels, shapes and points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker._backing import check_whole
from nextmarker._coordinates import apply, full_resolution, is_micrometre, shared_systems, to_pixels
from nextmarker._errors import listed
from nextmarker.pp._labels import label_centroids

if TYPE_CHECKING:
    import xarray as xr
    from spatialdata import SpatialData


def spatial_elements(sdata: SpatialData) -> set[str]:
    """Names of the elements that can contain cells."""
    return {*sdata.labels, *sdata.shapes, *sdata.points}


def elements_by_image(sdata: SpatialData, name: str, images: list[str]) -> dict[str, str]:
    """Match images to an element, or to elements with a common part in their names; empty if there is none.

    Raises
    ------
    ValueError
        If it is not clear which image an element belongs to.
    """
    elements = spatial_elements(sdata)
    if name in elements:
        return {_image_of(sdata, name, images): name}
    matches = {image: [e for e in (f"{name}_{image}", f"{image}_{name}") if e in elements] for image in images}
    if not any(matches.values()):
        return {}
    unclear = {image: found for image, found in matches.items() if len(found) != 1}
    if unclear:
        call = f"nm.pp.add_cells(sdata, {{{images[0]!r}: ...}})"
        msg = f"{name!r} does not name one element for each image: {unclear}. Name them, {call}, or set images=[...]."
        raise ValueError(msg)
    return {image: found for image, (found,) in matches.items()}


def _image_of(sdata: SpatialData, element: str, images: list[str]) -> str:
    """Find the image that shares a coordinate system with an element; if several do, the one in its name."""
    shared = {image: shared_systems(sdata, element, image) for image in images}
    # the micrometre system is common to all images, so it does not identify one
    candidates = [image for image in images if not all(map(is_micrometre, shared[image]))]
    candidates = candidates or [image for image in images if shared[image]]
    if len(candidates) > 1:
        candidates = [i for i in candidates if element.startswith(f"{i}_") or element.endswith(f"_{i}")]
    if len(candidates) != 1:
        call = f"nm.pp.add_cells(sdata, {{{images[0]!r}: {element!r}}})"
        msg = f"Which of the images {listed(images)} do the cells of {element!r} belong to? Name it: {call}."
        raise ValueError(msg)
    return candidates[0]


def element_centroids(sdata: SpatialData, name: str, image: str) -> pd.DataFrame:
    """Read the centres of labels, shapes or points, in pixels of an image."""
    matrix = to_pixels(sdata, name, image)
    if name in sdata.labels:
        ids, xy = label_centroids(_flat(sdata.labels[name], name))
    elif name in sdata.shapes:
        centroids = sdata.shapes[name].geometry.centroid
        ids, xy = centroids.index, np.column_stack([centroids.x, centroids.y])
    else:
        points = sdata.points[name][["x", "y"]].compute()
        ids, xy = points.index, points.to_numpy()
    return pd.DataFrame(apply(matrix, xy), index=ids, columns=["x", "y"], dtype=np.float64)


def _flat(element: xr.DataArray | xr.DataTree, name: str) -> xr.DataArray:
    labels = full_resolution(element)
    if set(labels.dims) != {"y", "x"}:
        call = f"nm.pp.add_cells(sdata, sdata[{name!r}].max('z'), images=...)"
        msg = f"The labels {name!r} have the dimensions {labels.dims} instead of (y, x). Pass a mask: {call}."
        raise ValueError(msg)
    check_whole(name, labels)
    return labels.transpose("y", "x")
