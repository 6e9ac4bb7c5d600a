"""Writes cells: circles and their table, from centres."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
from anndata import AnnData
from shapely import points
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation
from tqdm import tqdm

from nextmarker import _keys
from nextmarker._coordinates import apply, pixel_size, spatial_system
from nextmarker._errors import check_each_once, listed
from nextmarker._regions import Region, as_list, read_image, shared_markers
from nextmarker._table import write_results
from nextmarker.pp._intensity import circle_means

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData


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
    wanted = as_list(markers) if markers is not None else None
    if wanted is not None:
        check_each_once("markers", wanted)
    target = Target(images, shared_markers(sdata, images, wanted), key_added, table_key)
    for image in images:
        pixel_size(sdata, image)  # an error if contradictory
    _check_names(sdata, target, overwrite)
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
    adata = _table(sdata, target, regions, radius, systems, source_ids, progress)
    record = {
        **parameters,
        "markers": np.array(target.markers, dtype=object),
        "radius": radius,
        "coordinate_system": systems,
    }
    write_results(adata, step, {f"obsm/{_keys.SPATIAL}": adata.obsm[_keys.SPATIAL]}, record)
    _assign(sdata, target, circles, adata)


def _check_names(sdata: SpatialData, target: Target, overwrite: bool) -> None:
    places = {target.element(image): "shapes" for image in target.images}
    if target.table_key in places:
        msg = f"key_added and table_key both give {target.table_key!r}. Choose different names."
        raise ValueError(msg)
    places[target.table_key] = "tables"
    taken = {
        name.lower(): (name, kind) for kind, name, _ in sdata.gen_elements()
    }  # names must differ by more than case
    own: list[str] = []
    foreign: list[str] = []
    for name, kind in places.items():
        if not re.fullmatch(r"(?!__)[\w.-]+", name) or set(name) == {"."}:
            msg = f"{name!r} cannot name an element. Use letters, digits, '_', '-', '.' in key_added and table_key."
            raise ValueError(msg)
        if name.lower() in taken:
            there, its_kind = taken[name.lower()]
            (own if (there, its_kind) == (name, kind) else foreign).append(f"sdata.{its_kind}[{there!r}]")
    if foreign or (own and not overwrite):
        fix = "choose others with key_added=... and table_key=..." + (", or overwrite=True" if not foreign else "")
        msg = f"These elements exist already: {', '.join(foreign or own)}; {fix}."
        raise ValueError(msg)


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


def _table(
    sdata: SpatialData,
    target: Target,
    regions: Sequence[Region],
    radius: Mapping[str, float],
    systems: Mapping[str, str],
    source_ids: Mapping[str, np.ndarray] | None,
    progress: bool,
) -> AnnData:
    X, obs, spatial = [], [], []
    for region in tqdm(regions, desc="mean intensity", unit="image", disable=not progress):
        X.append(circle_means(region, target.markers, radius[region.image]))
        obs.append(_obs(sdata, region, source_ids))
        transformation = get_transformation(sdata.images[region.image], systems[region.image])
        spatial.append(apply(transformation.to_affine_matrix(("x", "y"), ("x", "y")), region.centres))
    joined = pd.concat(obs)
    for column in joined.columns.intersection([_keys.REGION, _keys.IMAGE, _keys.SAMPLE, _keys.ACQUISITION]):
        joined[column] = pd.Categorical(joined[column], categories=pd.unique(joined[column].dropna()))
    adata = AnnData(
        np.concatenate(X), obs=joined, var=_var(sdata, target.markers, [region.image for region in regions])
    )
    adata.obsm[_keys.SPATIAL] = np.concatenate(spatial)
    names = [region.name for region in regions]
    return TableModel.parse(adata, region=names, region_key=_keys.REGION, instance_key=_keys.INSTANCE)


def _obs(sdata: SpatialData, region: Region, source_ids: Mapping[str, np.ndarray] | None) -> pd.DataFrame:
    columns = {_keys.REGION: region.name, _keys.INSTANCE: region.rows, _keys.IMAGE: region.image}
    acquisition = sdata.attrs.get(_keys.ACQUISITIONS, {}).get(region.image, {})
    columns |= {key: str(acquisition[key]) for key in (_keys.SAMPLE, _keys.ACQUISITION) if key in acquisition}
    if source_ids is not None:
        columns[_keys.SOURCE] = source_ids[region.image]
    return pd.DataFrame(columns, index=[f"{region.image}_{row}" for row in region.rows])


def _var(sdata: SpatialData, markers: Sequence[str], images: Sequence[str]) -> pd.DataFrame:
    """Original names and metals of the markers; several where images differ."""
    known = sdata.attrs.get(_keys.CHANNELS, {})
    var = pd.DataFrame(index=list(markers))
    for column in (_keys.ORIGINAL_NAME, _keys.METAL):
        named = [
            dict(zip(known[image]["name"], known[image][column], strict=True))
            for image in images
            if column in known.get(image, {})
        ]
        if named:
            values = [dict.fromkeys(names[marker] for names in named if marker in names) for marker in markers]
            var[column] = ["; ".join(filter(None, value)) for value in values]
    return var


def _assign(sdata: SpatialData, target: Target, circles: Mapping[str, gpd.GeoDataFrame], adata: AnnData) -> None:
    for image in target.images:  # an image without cells must not keep its old circles
        if target.element(image) in sdata.shapes:
            del sdata.shapes[target.element(image)]
    if target.table_key in sdata.tables:
        del sdata.tables[target.table_key]
    for name, frame in circles.items():
        sdata.shapes[name] = frame
    sdata.tables[target.table_key] = adata
