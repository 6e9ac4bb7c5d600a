"""Markers of a model that are missing in the table or in an image."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING

import xarray as xr

from nextmarker import _keys
from nextmarker._errors import in_images, no_such
from nextmarker._record import read_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from nextmarker._regions import Region
    from nextmarker.nn.model import NeXtMarker


def lacking_markers(model: NeXtMarker, adata: AnnData, regions: Sequence[Region]) -> dict[str, list[str]]:
    """Find the markers of the model that the table or an image lacks, for each image.

    Raises
    ------
    ValueError
        If an image has none of the markers.
    """
    lacking = {}
    for region in regions:
        here = adata.var_names.intersection(region.pixels["c"].to_numpy())
        absent = [marker for marker in model.config.markers if marker not in here]
        if len(absent) == len(model.config.markers):
            there = region.pixels["c"].to_numpy()
            fix = "Train a model on this panel: nm.tl.train(sdata)."
            raise ValueError(no_such("marker", absent, f"image {region.image!r} and its table", there, fix))
        if absent:
            lacking[region.image] = absent
    return lacking


def refuse_lacking(
    lacking: Mapping[str, Sequence[str]], model: NeXtMarker, adata: AnnData, regions: Sequence[Region]
) -> None:
    """Raise an error for the first image that lacks markers.

    Raises
    ------
    ValueError
        If there is such an image.
    """
    for region in regions:
        absent = lacking.get(region.image)
        if not absent:
            continue
        unknown = [marker for marker in absent if marker not in adata.var_names]
        holder, names = ("the table", adata.var_names) if unknown else (f"image {region.image!r}", region.pixels["c"])
        fix = 'Train on this panel, nm.tl.train(sdata), rename channels, or take their counts as zero: missing="zero".'
        missing, taken = unknown or absent, model.config.markers
        raise ValueError(no_such("marker", missing, holder, names.to_numpy(), fix, taken=taken))


def warn_of_lacking(lacking: Mapping[str, Sequence[str]], model: NeXtMarker, regions: Sequence[Region]) -> None:
    """Warn of the markers whose counts are taken as zero."""
    if not lacking:
        return
    images = len({region.image for region in regions})
    times = Counter(marker for absent in lacking.values() for marker in absent)
    named = [f"{marker} {in_images(times[marker], images)}" for marker in model.config.markers if times[marker]]
    warnings.warn(f"Counts of missing markers are taken as zero: {', '.join(named)}.", stacklevel=3)


def fill_with_zero(pixels: xr.DataArray, absent: Sequence[str]) -> xr.DataArray:
    """Add channels of zero counts to an image, replacing any of these names, without reading pixels."""
    kept = pixels.sel(c=[name for name in pixels["c"].to_numpy() if name not in absent])
    zeros = xr.zeros_like(kept.isel(c=[0] * len(absent))).assign_coords(c=list(absent))
    return xr.concat([kept, zeros], "c") if absent else pixels


def newly_missing(adata: AnnData, reference: AnnData) -> dict[str, str]:
    """Find the markers that `nm.tl.embed` took as zero in new images, but not in all of the reference; say in how many.

    Types of a reference that always lacked a marker do not rest on it.
    """
    (lacking, total), (in_reference, of_reference) = _filled_with_zero(adata), _filled_with_zero(reference)
    shared = {marker for marker, number in in_reference.items() if number == of_reference}
    return {marker: f"{marker} {in_images(n, total)}" for marker, n in lacking.items() if marker not in shared}


def _filled_with_zero(adata: AnnData) -> tuple[Counter[str], int]:
    """Count the images of the table in which `nm.tl.embed` took each marker as zero, and all its images."""
    filled = read_record(adata, _keys.EMBED_STEP).get("filled_with_zero", {})
    images = adata.obs[_keys.IMAGE].astype(str).unique() if _keys.IMAGE in adata.obs else list(filled)
    return Counter(str(name) for image in images for name in filled.get(image, ())), len(images)
