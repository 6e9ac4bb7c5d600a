"""Shared by all readers: images with channels and pixel sizes become a SpatialData object."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, Labels2DModel
from spatialdata.transformations import Identity, Scale

from nextmarker import _keys
from nextmarker._coordinates import LARGEST_PIXEL, SMALLEST_PIXEL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import dask.array as da
    import xarray as xr
    from spatialdata.transformations.transformations import BaseTransformation


@dataclass(frozen=True)
class Image:
    """An image in a file."""

    name: str
    pixels: da.Array | np.ndarray
    """Raw counts, (c, y, x)."""
    channels: tuple[str, ...]
    pixel_size: float | None
    """Micrometres per pixel, if known."""
    originals: tuple[str, ...] | None = None
    """Names of the channels in the file, if they differ from `channels`."""
    metals: tuple[str, ...] | None = None
    """Metal of each channel, "" for none."""
    metadata: Mapping[str, str | float | int] = field(default_factory=dict)
    """Information on the acquisition in the file."""
    labels: da.Array | np.ndarray | None = None
    """Segmentation masks, int (y, x), 0 for the background."""
    source: str = ""
    """File or folder, and the part of it."""
    notes: tuple[str, ...] = ()
    """What was changed or left out while reading."""
    remarks: tuple[str, ...] = ()
    """Other notes for the report, without a warning."""


@dataclass(frozen=True)
class Skipped:
    """Something that was found but not read."""

    source: str
    reason: str
    expected: bool = False
    """Whether such parts belong to the format, like thumbnails: reported without a warning."""


def to_spatialdata(images: Sequence[Image], skipped: Sequence[Skipped] = ()) -> SpatialData:
    """Combine images in one object, each with its own coordinate system, and record what was read.

    Must be called by a public reader, so that the warning about skipped or renamed parts points to the user's code.

    Raises
    ------
    ValueError
        If there is no image.
    """
    if not images:
        reasons = "\n".join(f"  {part.source}: {part.reason}" for part in skipped)
        msg = f"Nothing could be read.\n{reasons}" if reasons else "Nothing could be read: no images."
        raise ValueError(msg)
    images = [_with_distinct_channels(image) for image in unique_names(images)]
    _warn_about(images, skipped)
    masks = {_masks_name(image.name): _masks(image) for image in images if image.labels is not None}
    return SpatialData(
        images={image.name: _element(image) for image in images},
        labels=masks,
        attrs={
            _keys.PIXEL_SIZE: {image.name: image.pixel_size for image in images if image.pixel_size is not None},
            _keys.CHANNELS: {image.name: known for image in images if (known := _channel_names(image))},
            _keys.ACQUISITIONS: {image.name: _writable(image.metadata) for image in images if image.metadata},
            _keys.REPORT: _report(images, skipped),
        },
    )


def transformation(name: str, pixel_size: float | None) -> dict[str, BaseTransformation]:
    """Transformations of an image to its own coordinate system, and to "micrometre" if the pixel size is known."""
    if pixel_size is None:
        return {name: Identity()}
    return {system: Scale([pixel_size, pixel_size], axes=("x", "y")) for system in (name, _keys.MICROMETRE)}


def _element(image: Image) -> xr.DataArray:
    return Image2DModel.parse(
        image.pixels,
        dims=("c", "y", "x"),
        c_coords=list(image.channels),
        transformations=transformation(image.name, image.pixel_size),
    )


def _masks(image: Image) -> xr.DataArray:
    return Labels2DModel.parse(
        image.labels, dims=("y", "x"), transformations=transformation(image.name, image.pixel_size)
    )


def _masks_name(image: str) -> str:
    return f"{_keys.MASKS}_{image}"


def unique_names(images: Sequence[Image]) -> list[Image]:
    """Make names that spatialdata can write: no blanks, slashes or brackets, and not differing only in case."""
    # names of later elements and coordinate systems; spatialdata requires unique names of elements
    taken = {_keys.CELLS, _keys.TABLE, _keys.MICROMETRE}
    renamed = []
    for image in images:
        stem = re.sub(r"[^\w.-]", "_", image.name).strip("_") or "image"
        name, count = stem, 1
        while taken & {name.lower(), _masks_name(name).lower()}:
            count += 1
            name = f"{stem}_{count}"
        taken |= {name.lower(), _masks_name(name).lower()}
        renamed.append(replace(image, name=name))
    return renamed


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Number repeated names, and name empty ones by their position, counted from 1."""
    named = [name.strip() or f"channel_{place}" for place, name in enumerate(names, start=1)]
    seen: set[str] = set()
    result = []
    for name in named:
        unique, count = name, 1
        while unique in seen or (count > 1 and unique in named):
            count += 1
            unique = f"{name}_{count}"
        seen.add(unique)
        result.append(unique)
    return tuple(result)


def _with_distinct_channels(image: Image) -> Image:
    channels = distinct(image.channels)
    if channels == image.channels:
        return image
    changed = [f"{old!r} -> {new!r}" for old, new in zip(image.channels, channels, strict=True) if old != new]
    note = f"renamed repeated or unnamed channels: {', '.join(changed)}"
    return replace(image, channels=channels, originals=image.originals or image.channels, notes=(*image.notes, note))


def _warn_about(images: Iterable[Image], skipped: Iterable[Skipped]) -> None:
    """Warn of everything that was skipped or renamed, at the line that called the public reader."""
    lines = [f"{part.source}: skipped, {part.reason}" for part in skipped if not part.expected]
    sources: dict[str, list[str]] = {}
    for image in images:
        for note in image.notes:
            sources.setdefault(note, []).append(image.source or image.name)
    lines += [
        f"{found[0]}{f' and {len(found) - 1} more' * (len(found) > 1)}: {note}" for note, found in sources.items()
    ]
    if lines:
        warnings.warn("\n".join(["While reading (see nm.io.report):", *lines]), stacklevel=4)


def _channel_names(image: Image) -> dict[str, list[str]]:
    known = {"original_name": image.originals, "metal": image.metals}
    columns = {column: list(names) for column, names in known.items() if names is not None}
    return {"name": list(image.channels), **columns} if columns else {}


def _writable(metadata: Mapping[str, str | float | int]) -> dict[str, str | float | int]:
    """Keep values that JSON can hold."""
    plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in metadata.items()}
    return {key: v for key, v in plain.items() if not isinstance(v, float) or math.isfinite(v)}


def _report(images: Iterable[Image], skipped: Iterable[Skipped]) -> dict[str, dict[str, str]]:
    rows = [
        (
            image.source or image.name,
            {"status": "read", "image": image.name, "note": "; ".join([*image.notes, *image.remarks])},
        )
        for image in images
    ]
    rows += [(part.source, {"status": "skipped", "image": "", "note": part.reason}) for part in skipped]
    count: Counter[str] = Counter()
    report = {}
    for source, row in rows:
        count[source] += 1
        report[source if count[source] == 1 else f"{source} ({count[source]})"] = row
    return report


def check_pixel_size(pixel_size: float | None) -> None:
    """Raise an error if this cannot be a length in micrometres."""
    if pixel_size is None:
        return
    if isinstance(pixel_size, bool) or not isinstance(pixel_size, (int, float, np.number)):
        msg = f"pixel_size={pixel_size!r} must be a number, in micrometres per pixel."
        raise TypeError(msg)
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        msg = f"pixel_size={pixel_size!r} must be positive, in micrometres per pixel."
        raise ValueError(msg)
    if not SMALLEST_PIXEL <= pixel_size <= LARGEST_PIXEL:
        msg = f"pixel_size={pixel_size!r} must be {SMALLEST_PIXEL:g} to {LARGEST_PIXEL:g}, in micrometres per pixel."
        raise ValueError(msg)


def check_channels(channels: Sequence[str], source: str) -> None:
    """Raise an error if given names are empty or repeat."""
    repeated = sorted({name for name in channels if list(channels).count(name) > 1})
    if repeated:
        msg = f"{source} has repeated channel names: {repeated}. Name all {len(channels)}: channel_names=[...]."
        raise ValueError(msg)
    if not all(name.strip() for name in channels):
        msg = f"{source} has empty channel names: {list(channels)}. Name all: channel_names=[...]."
        raise ValueError(msg)
