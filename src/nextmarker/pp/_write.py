"""Writes cells: circles and their table, from centres."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
from shapely import points
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from nextmarker import _keys
from nextmarker._coordinates import pixel_size, spatial_system
from nextmarker._errors import listed
from nextmarker._images import Job, map_images
from nextmarker._record import write_results
from nextmarker._regions import Region, read_image
from nextmarker.pp._intensity import circle_means
from nextmarker.pp._new_table import Part, check_markers, check_names, make_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._progress import Advance


@dataclass(frozen=True)
class Target:
    """Where cells will be written; checked before anything is computed."""

    images: list[str]
    markers: list[str]
    key_added: str
    table_key: str

    def element(self, image: str) -> str:
        """Name of the circles of an image; a single image needs no suffix."""
        return self.key_added if len(self.images) == 1 else f"{self.key_added}_{image}"


def check_target(
    sdata: SpatialData,
    images: list[str],
    markers: Sequence[str] | str | None,
    *,
    key_added: str,
    table_key: str,
    overwrite: bool,
) -> Target:
    """Check that cells can be written, before they are computed.

    Raises
    ------
    ValueError
        If the panels of the images differ, a pixel size is contradictory, or an element of this name exists already.
    """
    target = Target(images, check_markers(sdata, images, markers), key_added, table_key)
    places = {target.element(image): "shapes" for image in images}
    if table_key in places:
        msg = f"key_added and table_key both give {table_key!r}. Choose different names."
        raise ValueError(msg)
    check_names(sdata, places | {table_key: "tables"}, "key_added=... and table_key=...", overwrite=overwrite)
    return target


def write_cells(
    sdata: SpatialData,
    target: Target,
    centres: Mapping[str, np.ndarray],
    *,
    step: str,
    parameters: Mapping[str, Any],
    lone_radius: Mapping[str, float],
    source_ids: Mapping[str, np.ndarray] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> None:
    """Write the circles of each image, and one table for all of them.

    Parameters
    ----------
    target
        From :func:`check_target`.
    centres
        Centres (x, y) in intrinsic coordinates, float64 (cells, 2), by image.
    step
        Name of the record.
    parameters
        Parameters to record, besides markers, radius and coordinate systems.
    lone_radius
        Radius in pixels for each image if no image has two cells.
    source_ids
        Names of the cells in their source, by image.
    checkpoint
        Folder in which the mean intensities of each image are kept.

    Raises
    ------
    ValueError
        If no image has a cell, or pixels are not finite. Nothing is written then.
    """
    found = [image for image in target.images if len(centres[image])]
    if not found:
        fix = "Choose other channels, nuclear_channels=[...], or nm.pp.add_cells(...)."
        msg = f"No cells in {listed(target.images)}. {fix}"
        raise ValueError(msg)
    for image in target.images:
        if image not in found:
            warnings.warn(f"No cells in image {image!r}, so it gets no circles.", UserWarning, stacklevel=3)
    regions = _regions(sdata, target, {image: centres[image] for image in found})
    radius = _radii(regions, lone_radius)
    systems = {image: spatial_system(sdata, image) for image in found}
    circles = {region.name: _circles(sdata, region, radius[region.image]) for region in regions}
    means = _measure(regions, target.markers, radius, progress, checkpoint)
    parts = [
        Part(
            region.name,
            region.image,
            region.rows,
            region.centres,
            means[region.image],
            {} if source_ids is None else {_keys.SOURCE: source_ids[region.image]},
        )
        for region in regions
    ]
    adata = make_table(sdata, target.markers, parts, systems)
    record = {
        **parameters,
        "markers": np.array(target.markers, dtype=object),
        "radius": radius,
        "coordinate_system": systems,
    }
    write_results(adata, step, {f"obsm/{_keys.SPATIAL}": adata.obsm[_keys.SPATIAL]}, record)
    _assign(sdata, target, circles, adata)


def _regions(sdata: SpatialData, target: Target, centres: Mapping[str, np.ndarray]) -> list[Region]:
    regions = []
    for image, xy in centres.items():
        rows = np.arange(len(xy))
        regions.append(
            Region(target.element(image), image, read_image(sdata, image), xy, rows, pixel_size(sdata, image))
        )
    return regions


def _radii(regions: Sequence[Region], lone_radius: Mapping[str, float]) -> dict[str, float]:
    """Half the median distance between nearest neighbours, in pixels of each image: neighbouring circles touch.

    The median is over all images, in micrometres if all pixel sizes are known. The radius is at least one pixel.
    """
    known = all(region.pixel_size is not None for region in regions)
    units = {region.image: (region.pixel_size or 1.0) if known else 1.0 for region in regions}
    distances = np.concatenate([region.neighbour_distances() * units[region.image] for region in regions])
    if not distances.size:
        return {region.image: float(max(lone_radius[region.image], 1)) for region in regions}
    radius = np.median(distances) / 2
    return {image: float(max(radius / unit, 1)) for image, unit in units.items()}


def _circles(sdata: SpatialData, region: Region, radius: float) -> gpd.GeoDataFrame:
    frame = gpd.GeoDataFrame({"radius": np.full(len(region.rows), radius)}, geometry=points(region.centres))
    transformations = get_transformation(sdata.images[region.image], get_all=True)
    return ShapesModel.parse(frame, transformations=dict(transformations))


def _measure(
    regions: Sequence[Region],
    markers: Sequence[str],
    radius: Mapping[str, float],
    progress: bool,
    checkpoint: str | Path | None,
) -> dict[str, np.ndarray]:
    """Average the markers in the circles of each image."""
    found = map_images(
        _means,
        [_job(region, markers, radius[region.image]) for region in regions],
        step="mean_intensity",
        title="mean intensity",
        unit="cell",
        progress=progress,
        checkpoint=checkpoint,
    )
    return {regions[number].image: arrays["means"] for number, arrays in found}


def _job(region: Region, markers: Sequence[str], radius: float) -> Job:
    pixels = region.pixels.sel(c=list(markers))
    depends_on = {"centres": region.centres, "radius": radius}
    return Job(region.image, pixels, lambda: (region, markers, radius), len(region.rows), lambda: depends_on)


def _means(region: Region, markers: Sequence[str], radius: float, advance: Advance) -> dict[str, np.ndarray]:
    return {"means": circle_means(region, markers, radius, advance)}


def _assign(sdata: SpatialData, target: Target, circles: Mapping[str, gpd.GeoDataFrame], adata: AnnData) -> None:
    for image in target.images:  # an image without cells must not keep its old circles
        if target.element(image) in sdata.shapes:
            del sdata.shapes[target.element(image)]
    if target.table_key in sdata.tables:
        del sdata.tables[target.table_key]
    for name, frame in circles.items():
        sdata.shapes[name] = frame
    sdata.tables[target.table_key] = adata
