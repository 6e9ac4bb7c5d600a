"""What all readers have in common: an image, its channels and its pixel size become a SpatialData object."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, Scale

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import dask.array as da
    import xarray as xr
    from spatialdata.transformations.transformations import BaseTransformation


@dataclass(frozen=True)
class Image:
    """An image as it was found in a file."""

    name: str
    pixels: da.Array | np.ndarray
    """Raw counts, (c, y, x)."""
    channels: tuple[str, ...]
    pixel_size: float | None
    """Micrometres per pixel, where known."""


def to_spatialdata(images: Sequence[Image]) -> SpatialData:
    """Join images, each with a coordinate system of its own."""
    images = unique_names(images)
    return SpatialData(
        images={image.name: _element(image) for image in images},
        attrs={_keys.PIXEL_SIZE: {image.name: image.pixel_size for image in images if image.pixel_size is not None}},
    )


def transformation(name: str, pixel_size: float | None) -> dict[str, BaseTransformation]:
    """Pixels of the image `name` to its coordinate system."""
    return {name: Identity() if pixel_size is None else Scale([pixel_size, pixel_size], axes=("x", "y"))}


def _element(image: Image) -> xr.DataArray:
    return Image2DModel.parse(
        image.pixels,
        dims=("c", "y", "x"),
        c_coords=list(image.channels),
        transformations=transformation(image.name, image.pixel_size),
    )


def unique_names(images: Sequence[Image]) -> list[Image]:
    """Make names that spatialdata can write: no blanks, slashes or brackets, and different in lower case too."""
    taken = {_keys.CELLS, _keys.TABLE}  # written by later steps, and spatialdata wants every element named apart
    renamed = []
    for image in images:
        stem = re.sub(r"[^\w.-]", "_", image.name).strip("_") or "image"
        name, count = stem, 1
        while name.lower() in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name.lower())
        renamed.append(replace(image, name=name))
    return renamed


def check_pixel_size(pixel_size: float | None) -> None:
    """Refuse what cannot be a length in micrometres."""
    if pixel_size is None:
        return
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, (int, float, np.number)):
        msg = f"pixel_size must be a number, in micrometres per pixel, not {pixel_size!r}."
        raise TypeError(msg)
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        msg = f"pixel_size must be positive, in micrometres per pixel, not {pixel_size!r}."
        raise ValueError(msg)


def check_channels(channels: Sequence[str], source: Path) -> None:
    """Refuse names that do not tell the channels apart."""
    repeated = sorted({name for name in channels if list(channels).count(name) > 1})
    if repeated:
        msg = f"{source} has several channels of one name: {repeated}. Name all {len(channels)}: channel_names=[...]."
        raise ValueError(msg)
    if not all(name.strip() for name in channels):
        msg = f"{source} has channels with an empty name: {list(channels)}. Name all: channel_names=[...]."
        raise ValueError(msg)
