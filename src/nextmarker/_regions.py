"""The only reader of SpatialData: images, channels, and cells with their positions in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from nextmarker import _keys
from nextmarker._backing import check_there, check_whole
from nextmarker._coordinates import (
    STATE_SIZE,
    apply,
    check_inside,
    full_resolution,
    pixel_size,
    scales,
    shared_systems,
    to_pixels,
)
from nextmarker._errors import check_each_once, listed, no_such
from nextmarker._table import get_table
from nextmarker._workers import reading_scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import geopandas as gpd
    import xarray as xr
    from spatialdata import SpatialData


LARGEST_SCALE = 50.0
"""Largest ratio between the pixel sizes of a model and an image."""


@dataclass(frozen=True)
class Region:
    """One image and the cells of the table that lie in it."""

    name: str
    """Element of `sdata.shapes` that holds the circles."""
    image: str
    """Element of `sdata.images`."""
    pixels: xr.DataArray
    """Raw counts at full resolution, lazy, (c, y, x), with channel names in `c`."""
    centres: np.ndarray
    """Centres (x, y) in pixels of the image at full resolution, float64 (cells, 2)."""
    rows: np.ndarray
    """Positions of the cells in the table, int (cells,)."""
    pixel_size: float | None
    """Micrometres per pixel, if known."""

    def scale(self, pixel_size: float | None) -> float:
        """Pixels of this image per pixel of `pixel_size` micrometres; 1 if that is None."""
        if pixel_size is None:
            return 1.0
        if self.pixel_size is None:
            msg = f"The model has pixels of {pixel_size:g} um; those of image {self.image!r} are unknown. {STATE_SIZE}"
            raise ValueError(msg)
        scale = pixel_size / self.pixel_size
        if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
            sizes = f"{pixel_size:g} um, and image {self.image!r} has pixels of {self.pixel_size:g} um"
            msg = f"The model has pixels of {sizes}; one must be wrong. {STATE_SIZE}"
            raise ValueError(msg)
        return scale

    def neighbour_distances(self) -> np.ndarray:
        """Distance of every centre to the nearest other, in pixels, float64 (cells,); empty if there is only one."""
        if len(self.centres) < 2:
            return np.empty(0)
        return KDTree(self.centres).query(self.centres, k=2)[0][:, 1]


def read_regions(sdata: SpatialData, table_key: str = _keys.TABLE) -> list[Region]:
    """Read the cells of the table in each image, with their positions in pixels.

    Every row of the table belongs to exactly one region.

    Raises
    ------
    KeyError
        If the table, its columns, or an element it names is missing.
    ValueError
        If the table has no cells, or cells without region, image or circle; if a centre is not finite or outside of its
        image; or if the transformations of an element and its image disagree.
    """
    regions = locate_cells(sdata, table_key)
    names = sdata.tables[table_key].obs_names
    fix = "Remove these cells: nm.pp.remove_outside_cells(sdata)."
    for region in regions:
        check_inside(region.image, region.pixels, region.centres, names[region.rows], fix)
    return regions


def locate_cells(sdata: SpatialData, table_key: str = _keys.TABLE) -> list[Region]:
    """Same as `read_regions`, without checking that the centres lie in their images."""
    obs = _table_obs(sdata, table_key)
    regions = []
    pairs = obs.groupby([_keys.REGION, _keys.IMAGE], observed=True, sort=False).indices
    for (name, image), rows in cast("dict[tuple[str, str], np.ndarray]", pairs).items():
        circles = _circles_of(sdata, name, obs[_keys.INSTANCE].to_numpy()[rows], table_key)
        there = _find_image(sdata, image, name, table_key)
        matrix = to_pixels(sdata, name, there)
        points = circles.geometry.centroid
        centres = apply(matrix, np.column_stack([points.x, points.y]).astype(np.float64))
        pixels = read_image(sdata, there)
        regions.append(Region(name, there, pixels, centres, np.asarray(rows), pixel_size(sdata, there)))
    return regions


def empty_region(sdata: SpatialData, image: str) -> Region:
    """Read an image that has no cells in the table, as a region without any.

    Raises
    ------
    KeyError
        If there is no such image.
    """
    return Region(
        "", image, read_image(sdata, image), np.empty((0, 2)), np.empty(0, dtype=int), pixel_size(sdata, image)
    )


def circle_radii(sdata: SpatialData, region: Region, table_key: str = _keys.TABLE) -> np.ndarray:
    """Read the radii of the circles of a region in pixels of its image, float64 (cells,).

    Raises
    ------
    KeyError
        If the shapes are not circles.
    """
    wanted = sdata.tables[table_key].obs[_keys.INSTANCE].to_numpy()[region.rows]
    circles = _circles_of(sdata, region.name, wanted, table_key)
    if "radius" not in circles:
        fix = f"Convert them: nm.pp.add_cells(sdata, {region.name!r}, key_added=..., table_key=...)."
        raise KeyError(no_such("column", "radius", f"sdata.shapes[{region.name!r}]", circles.columns, fix))
    scale = np.sqrt(abs(np.linalg.det(to_pixels(sdata, region.name, region.image)[:2, :2])))
    return circles["radius"].to_numpy(np.float64) * scale


def _circles_of(sdata: SpatialData, name: str, instances: np.ndarray, table_key: str) -> gpd.GeoDataFrame:
    """Look up the circles of some cells."""
    if name not in sdata.shapes:
        fix = f"If it was renamed: sdata.shapes[{name!r}] = sdata.shapes[...]."
        raise KeyError(no_such("element", name, f"sdata.shapes, which {table_key!r} annotates", sdata.shapes, fix))
    circles = sdata.shapes[name]
    if not circles.index.is_unique:
        repeated = circles.index[circles.index.duplicated()][0]
        msg = f"The index of sdata.shapes[{name!r}] repeats {repeated!r}. Make it unique."
        raise ValueError(msg)
    found = circles.index.get_indexer(instances)
    if (found < 0).any():
        lost = instances[found < 0]
        msg = (
            f"{len(lost)} cells of the table {table_key!r} are not in sdata.shapes[{name!r}], first {lost[0]!r}. "
            "Filter both, or call nm.pp.detect_cells again."
        )
        raise ValueError(msg)
    return circles.iloc[found]


def _find_image(sdata: SpatialData, image: str, region: str, table_key: str) -> str:
    """Find the image of a region; `spatialdata.concatenate` of a dict adds a suffix to both, but not in the table."""
    joined = [name for name in sdata.images if name.startswith(f"{image}-") and region.endswith(name[len(image) :])]
    if len(joined) > 1:  # one suffix ends with another
        joined = [name for name in joined if shared_systems(sdata, region, name)]
    if image not in sdata.images and len(joined) != 1:
        column = f"sdata[{table_key!r}].obs[{_keys.IMAGE!r}]"
        fix = f"If it was renamed: {column} = {column}.replace({{{image!r}: ...}})."
        raise KeyError(no_such("image", image, "sdata.images", sdata.images, fix))
    return image if image in sdata.images else joined[0]


def _table_obs(sdata: SpatialData, table_key: str) -> pd.DataFrame:
    require_images(sdata)
    obs = get_table(sdata, table_key).obs
    columns = [_keys.REGION, _keys.INSTANCE, _keys.IMAGE]
    lacking = [column for column in columns if column not in obs]
    if lacking:
        fix = "Import its cells: nm.pp.add_cells(sdata, ...)."
        raise KeyError(no_such("column", lacking, f".obs of the table {table_key!r}", obs, fix))
    if len(obs) == 0:
        msg = f"The table {table_key!r} has no cells. Detect them: nm.pp.detect_cells(sdata, nuclear_channels=[...])."
        raise ValueError(msg)
    check_linked(obs[columns], table_key)
    return obs


def check_linked(links: pd.DataFrame, table_key: str) -> None:
    """Raise an error for cells without region, circle or image."""
    empty = links.isna()
    for column in links.columns[empty.any()]:
        rows = empty[column].to_numpy()
        table, first = f"sdata[{table_key!r}]", links.index[rows][0]
        msg = (
            f"{rows.sum()} of {len(links)} cells of {table} have no value in .obs[{column!r}], first {first!r}. Remove "
            f"them: {table} = {table}[{table}.obs[{column!r}].notna()].copy()."
        )
        raise ValueError(msg)


def require_images(sdata: object) -> None:
    """Refuse a table, a path or anything else where an object with images is expected.

    Raises
    ------
    TypeError
        If it is not a SpatialData object.
    """
    if not hasattr(sdata, "images"):
        fix = "Pass sdata, as nm.io.read(paths) returns it, not its table."
        msg = f"Expected SpatialData with the images, got {type(sdata).__name__}. {fix}"
        raise TypeError(msg)


def choose_images(sdata: SpatialData, images: Sequence[str] | str | None) -> list[str]:
    """List the images to work on, all by default.

    Raises
    ------
    KeyError
        If an image does not exist.
    ValueError
        If there are no images, or one is named twice.
    TypeError
        If this is not a SpatialData object.
    """
    require_images(sdata)
    if not sdata.images:
        msg = "sdata.images is empty. Read images first: nm.io.read(paths)."
        raise ValueError(msg)
    chosen = as_list(images) if images is not None else list(sdata.images)
    check_each_once("images", chosen)
    for image in chosen:
        read_image(sdata, image)
    return chosen


def read_image(sdata: SpatialData, image: str) -> xr.DataArray:
    """Read an image at full resolution, lazily.

    Returns
    -------
    Raw counts, (c, y, x), with channel names as strings in `c`.

    Raises
    ------
    FileNotFoundError
        If its store was moved or removed, or has lost files.
    KeyError
        If there is no such image.
    ValueError
        If it has z-planes or time points, channel names repeat, or it was replaced on disk by another image.
    """
    if image not in sdata.images:
        raise KeyError(no_such("image", image, "sdata.images", sdata.images, "Choose among these."))
    element = full_resolution(sdata.images[image])
    if set(element.dims) != {"c", "y", "x"}:
        there = f"sdata[{image!r}]"
        if element is not sdata.images[image]:
            there = f"spatialdata.get_pyramid_levels({there}, n=0)"
        flat = f"Image2DModel.parse({there}.max('z'), c_coords={there}['c'].values)"
        msg = (
            f"Image {image!r} has the dimensions {element.dims} instead of (c, y, x). Choose others, images=[...], "
            f"or project it: sdata[{image + '_flat'!r}] = spatialdata.models.{flat}."
        )
        raise ValueError(msg)
    check_whole(image, element)
    names = [str(name) for name in element["c"].to_numpy()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = f"Image {image!r} repeats channels {listed(repeated)}. Rename them: sdata.set_channel_names(...)."
        raise ValueError(msg)
    return element.transpose("c", "y", "x").assign_coords(c=names)


def read_overview(sdata: SpatialData, image: str, most_pixels: int) -> tuple[xr.DataArray, float]:
    """Read an image lazily at its coarsest scale that is at least `most_pixels` wide or high, or else its finest.

    Returns
    -------
    Counts, as from `read_image`, and the width of one of its pixels in pixels at full resolution.
    """
    finest = read_image(sdata, image)
    large = [level for level in scales(sdata.images[image]) if max(level.sizes["y"], level.sizes["x"]) >= most_pixels]
    if len(large) < 2:
        return finest, 1.0
    coarse = large[-1].transpose("c", "y", "x").assign_coords(c=finest["c"].to_numpy())
    return coarse, finest.sizes["x"] / coarse.sizes["x"]


def read_pixels(image: str, pixels: xr.DataArray, rows: slice, columns: slice) -> np.ndarray:
    """Load a part of an image, (c, y, x), in the byte order of the machine.

    Raises
    ------
    FileNotFoundError
        If its store was moved or removed.
    ValueError
        If a pixel is not finite.
    """
    check_there(image, pixels)
    block = load(pixels.isel(y=rows, x=columns))
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        broken = pixels["c"].to_numpy()[~np.isfinite(block).all(axis=(1, 2))].tolist()
        there = f"sdata.images[{image!r}]"
        msg = f"Pixels of {there} are NaN or infinite in {listed(broken)}. Replace them: {there} = {there}.fillna(0)."
        raise ValueError(msg)
    return block.astype(block.dtype.newbyteorder("="), copy=False)  # torch requires it


def load(pixels: xr.DataArray) -> np.ndarray:
    """Load lazy pixels or labels in this process, even if there are workers for other computations."""
    return pixels.compute(scheduler=reading_scheduler()).to_numpy()


def read_panels(sdata: SpatialData, images: Sequence[str]) -> dict[str, list[str]]:
    """Read the names of the channels of each image."""
    return {image: read_image(sdata, image)["c"].to_numpy().tolist() for image in images}


def shared_markers(sdata: SpatialData, images: Sequence[str], markers: Sequence[str] | None = None) -> list[str]:
    """Choose the markers that every image has.

    Parameters
    ----------
    images
        Names of the images.
    markers
        The channels to keep, in this order; by default all channels of the first image.

    Raises
    ------
    ValueError
        If an image lacks one of the markers, or, without `markers`, has a different panel from the first.
    """
    panels = read_panels(sdata, images)
    if markers is not None:
        for image, panel in panels.items():
            lacking = [name for name in markers if name not in panel]
            if lacking:
                fix = f"Choose among these, or rename: sdata.set_channel_names({image!r}, [...])."
                raise ValueError(no_such("channel", lacking, f"image {image!r}", panel, fix))
        return list(markers)
    first, *_ = panels.values()
    for image, panel in panels.items():
        lacking = [name for name in first if name not in panel]
        extra = [name for name in panel if name not in first]
        if lacking or extra:
            common = [name for name in first if all(name in other for other in panels.values())]
            remedy = f"choose markers={common}" if common else f"choose images of one panel, images={[image]}"
            msg = (
                f"Image {image!r} has another panel: it lacks {listed(lacking)} and also has {listed(extra)}. Match "
                f"them, nm.pp.match_panels(sdata, aliases=...), or {remedy}."
            )
            raise ValueError(msg)
    return first


def as_list(names: Iterable[str] | str) -> list[str]:
    """Turn a single name into a list."""
    return [names] if isinstance(names, str) else list(names)
