"""Pixels in figures: which part of an image, from which counts black to bright, and in which colours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._record import read_record

if TYPE_CHECKING:
    import xarray as xr
    from anndata import AnnData

    from nextmarker._regions import Region

Limits: TypeAlias = tuple[float | str, float | str]
Frame: TypeAlias = tuple[int, int, int, int]  # left, top, right and bottom, in pixels

BRIGHTEST = 99.5
"""Percentile of the pixels that is shown at full brightness."""
AUTOMATIC: Limits = (0, f"p{BRIGHTEST}")


def check_channels(regions: Sequence[Region], channels: Sequence[str], argument: str) -> None:
    """Refuse channels that an image lacks."""
    for region in regions:
        panel = region.pixels["c"].to_numpy().tolist()
        lacking = [channel for channel in channels if channel not in panel]
        if lacking:
            fix = f"Choose others: {argument}=..."
            raise KeyError(no_such("channel", lacking, f"image {region.image!r}", panel, fix))


def choose_frame(region: Region, crop: tuple[float, float, float, float] | None) -> Frame:
    """Left, top, right and bottom of the crop (x, y, width, height), limited to the image."""
    width, height = region.pixels.sizes["x"], region.pixels.sizes["y"]
    if crop is None:
        return 0, 0, width, height
    x, y, crop_width, crop_height = crop
    left, top = max(int(x), 0), max(int(y), 0)
    right, bottom = min(round(x + crop_width), width), min(round(y + crop_height), height)
    if left >= right or top >= bottom:
        size = f"{width} pixels wide and {height} high"
        msg = f"crop={crop} is (x, y, width, height) and lies outside image {region.image!r}, {size}."
        raise ValueError(msg)
    return left, top, right, bottom


def read_frame(
    pixels: xr.DataArray, frame: Frame, most_pixels: int
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Read the pixels in a frame, averaged down if it is wider or higher than `most_pixels`.

    Returns
    -------
    Counts, (channels, height, width), and where they lie in the image: left, right, bottom, top.
    """
    left, top, right, bottom = frame
    step = -(-max(right - left, bottom - top) // most_pixels)
    part = pixels.isel(y=slice(top, bottom), x=slice(left, right))
    if step > 1:
        part = part.coarsen(y=step, x=step, boundary="trim").mean().astype(np.float32)
    _, height, width = part.shape
    return part.to_numpy(), (left, left + width * step, top + height * step, top)


def choose_limits(
    contrast: Limits | Mapping[str, Limits] | None, channels: Sequence[str], parts: Sequence[np.ndarray]
) -> np.ndarray:
    """Counts from which each channel is drawn black and bright, (channels, 2), the same in all parts.

    Parameters
    ----------
    contrast
        Limits of all channels, or by channel; each a number of counts, or a percentile such as "p99".
    parts
        Counts, each (channels, height, width).
    """
    contrast = AUTOMATIC if contrast is None else contrast
    given = contrast if isinstance(contrast, Mapping) else dict.fromkeys(channels, contrast)
    unknown = [name for name in given if name not in channels]
    if unknown:
        raise KeyError(no_such("channel", unknown, "this figure", channels, "Choose among these: contrast={...}."))
    counts = []
    for index, channel in enumerate(channels):
        limits = _check_limits(given.get(channel, AUTOMATIC))
        if any(isinstance(limit, str) for limit in limits):
            pixels = np.concatenate([part[index].ravel() for part in parts])
        counts.append(
            [np.percentile(pixels, float(limit[1:])) if isinstance(limit, str) else limit for limit in limits]
        )
    return np.array(counts, dtype=float).reshape(-1, 2)


def _check_limits(limits: Limits) -> Limits:
    valid = isinstance(limits, Sequence) and len(limits) == 2 and all(map(_is_limit, limits))
    counts = [limit for limit in limits if not isinstance(limit, str)] if valid else []
    if not valid or (len(counts) == 2 and counts[0] >= counts[1]):
        msg = f"contrast={limits!r} must be (low, high), each in counts or as a percentile: (0, 'p99.5')."
        raise ValueError(msg)
    return limits


def _is_limit(limit: object) -> bool:
    """Whether this is a number, or a percentile such as "p99.5"."""
    if isinstance(limit, str):
        return bool(re.fullmatch(r"p\d+(\.\d+)?", limit)) and float(limit[1:]) <= 100
    return isinstance(limit, Real) and isfinite(limit)


def scale(counts: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Scale the counts of each channel from its lower limit, 0, to its upper one, 1."""
    low, high = limits.astype(np.float32).T[:, :, None, None]
    return ((counts - low) / np.where(high > low, high - low, 1)).clip(0, 1)


def add_up(scaled: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Add up channels (channels, height, width), each in its colour (channels, 3) or its share of grey (channels,)."""
    return np.tensordot(scaled, colors.astype(np.float32), axes=(0, 0)).clip(0, 1)


def choose_patch_size(adata: AnnData, regions: Sequence[Region], size: int | None) -> tuple[int, list[float]]:
    """Choose the width of a patch and, for each image, the distance of its pixels in pixels of the image."""
    if size is not None:
        return size, [1.0] * len(regions)
    embedded = read_record(adata, _keys.EMBED_STEP)
    if not embedded:
        msg = "The patch size is unknown, since the cells are not embedded. Set it: size=..., in pixels."
        raise KeyError(msg)
    return int(embedded["patch_size"]), [region.scale(embedded.get("pixel_size")) for region in regions]
