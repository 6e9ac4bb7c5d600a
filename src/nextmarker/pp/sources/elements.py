"""Positions of cells in elements of the object: labels, shapes and points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker._coordinates import apply, to_pixels
from nextmarker._objects import image_of, read_label_image
from nextmarker.pp._labels import label_centroids

if TYPE_CHECKING:
    from collections.abc import Collection

    from spatialdata import SpatialData


def spatial_elements(sdata: SpatialData) -> set[str]:
    """Names of the elements that can contain cells."""
    return {*sdata.labels, *sdata.shapes, *sdata.points}


def elements_by_image(
    sdata: SpatialData, name: str, images: list[str], elements: Collection[str], step: str = "add_cells"
) -> dict[str, str]:
    """Match images to an element, or to elements with a common part in their names; empty if there is none.

    Parameters
    ----------
    elements
        Names to choose from.
    step
        Function of `nm.pp` that the user called, for the error message.

    Raises
    ------
    ValueError
        If it is not clear which image an element belongs to.
    """
    if name in elements:
        return {image_of(sdata, name, images, f"nm.pp.{step}(sdata, {{{images[0]!r}: {name!r}}})"): name}
    matches = {image: [e for e in (f"{name}_{image}", f"{image}_{name}") if e in elements] for image in images}
    if not any(matches.values()):
        return {}
    unclear = {image: found for image, found in matches.items() if len(found) != 1}
    if unclear:
        call = f"nm.pp.{step}(sdata, {{{images[0]!r}: ...}})"
        msg = f"{name!r} does not name one element for each image: {unclear}. Name them, {call}, or set images=[...]."
        raise ValueError(msg)
    return {image: found for image, (found,) in matches.items()}


def element_centroids(sdata: SpatialData, name: str, image: str) -> pd.DataFrame:
    """Read the centres of labels, shapes or points, in pixels of an image."""
    matrix = to_pixels(sdata, name, image)
    if name in sdata.labels:
        fix = f"Pass a mask: nm.pp.add_cells(sdata, sdata[{name!r}].max('z'), images=...)."
        ids, _, xy = label_centroids(read_label_image(sdata, name, fix))
    elif name in sdata.shapes:
        centroids = sdata.shapes[name].geometry.centroid
        ids, xy = centroids.index, np.column_stack([centroids.x, centroids.y])
    else:
        points = sdata.points[name][["x", "y"]].compute()
        ids, xy = points.index, points.to_numpy()
    return pd.DataFrame(apply(matrix, xy), index=ids, columns=["x", "y"], dtype=np.float64)
