"""The one reader of SpatialData: which images, which cells, where, in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from nextmarker import _keys
from nextmarker._backing import check_there, check_whole
from nextmarker._coordinates import (
    apply,
    check_inside,
    full_resolution,
    pixel_size,
    shared_systems,
    to_pixels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import geopandas as gpd
    import xarray as xr
    from spatialdata import SpatialData


LARGEST_STEP = 50.0
"""How many times as large as pixels of an image those of a model may be, or the other way round."""


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
    """Micrometres per pixel, where known."""

    def step(self, pixel_size: float | None) -> float:
        """Pixels of this image per pixel of `pixel_size` micrometres; 1 where that is None."""
        if pixel_size is None:
            return 1.0
        if self.pixel_size is None:
            msg = (
                f"The model sees pixels of {pixel_size} um, and the pixel size of image {self.image!r} is not known. "
                "State it: nm.pp.set_pixel_size(sdata, ...)."
            )
            raise ValueError(msg)
        step = pixel_size / self.pixel_size
        if not 1 / LARGEST_STEP <= step <= LARGEST_STEP:
            msg = (
                f"The model sees pixels of {pixel_size:g} um, and image {self.image!r} has pixels of "
                f"{self.pixel_size:g} um. One of the two is wrong: nm.pp.set_pixel_size(sdata, ...)."
            )
            raise ValueError(msg)
        return step

    def neighbour_distances(self) -> np.ndarray:
        """Distance of every centre to the next in pixels, float64 (cells,); empty if there is only one."""
        if len(self.centres) < 2:
            return np.empty(0)
        return KDTree(self.centres).query(self.centres, k=2)[0][:, 1]


def read_regions(sdata: SpatialData, table_key: str = _keys.TABLE) -> list[Region]:
    """Read which cells of the table lie in which image, and where in its pixels.

    Every row of the table belongs to exactly one region.

    Raises
    ------
    KeyError
        If the table, its columns, or an element it names is missing.
    ValueError
        If the table has no cells, cells without a region or image, or cells that their element does not hold; if a
        centre is not finite or outside of its image, or the transformations of an element and its image disagree.
    """
    regions = locate_cells(sdata, table_key)
    names = sdata.tables[table_key].obs_names
    mend = "Remove these cells, nm.pp.remove_outside_cells(sdata), or correct their centres."
    for region in regions:
        check_inside(region.image, region.pixels, region.centres, names[region.rows], mend)
    return regions


def locate_cells(sdata: SpatialData, table_key: str = _keys.TABLE) -> list[Region]:
    """Read the same without asking whether the centres lie in their images."""
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


def circle_radii(sdata: SpatialData, region: Region, table_key: str = _keys.TABLE) -> np.ndarray:
    """Read the radii of the circles of a region in pixels of its image, float64 (cells,).

    Raises
    ------
    KeyError
        If the element holds other shapes than circles.
    """
    wanted = sdata.tables[table_key].obs[_keys.INSTANCE].to_numpy()[region.rows]
    circles = _circles_of(sdata, region.name, wanted, table_key)
    if "radius" not in circles:
        msg = (
            f"sdata.shapes[{region.name!r}] has no column 'radius': its shapes are not circles. "
            f"Make circles of them: nm.pp.add_cells(sdata, {region.name!r}, key_added=..., table_key=...)."
        )
        raise KeyError(msg)
    scale = np.sqrt(abs(np.linalg.det(to_pixels(sdata, region.name, region.image)[:2, :2])))
    return circles["radius"].to_numpy(np.float64) * scale


def _circles_of(sdata: SpatialData, name: str, instances: np.ndarray, table_key: str) -> gpd.GeoDataFrame:
    """Look up the circles of some cells."""
    if name not in sdata.shapes:
        msg = (
            f"The table {table_key!r} annotates {name!r}, but sdata.shapes holds {_listed(sdata.shapes)}. If "
            f"the element was renamed, give it its old name back: sdata.shapes[{name!r}] = sdata.shapes[...]."
        )
        raise KeyError(msg)
    circles = sdata.shapes[name]
    if not circles.index.is_unique:
        repeated = circles.index[circles.index.duplicated()][0]
        msg = f"sdata.shapes[{name!r}] has several cells of one name in its index, first {repeated!r}. Make it unique."
        raise ValueError(msg)
    found = circles.index.get_indexer(instances)
    if (found < 0).any():
        lost = instances[found < 0]
        msg = (
            f"The table {table_key!r} and sdata.shapes[{name!r}] are out of step: {len(lost)} cells of the table "
            f"are not among the circles, first {lost[0]!r}. Filter both, or call nm.pp.detect_cells again."
        )
        raise ValueError(msg)
    return circles.iloc[found]


def _find_image(sdata: SpatialData, image: str, region: str, table_key: str) -> str:
    """Find the image of a region; `spatialdata.concatenate` of a dict gives both the same suffix, but not the table."""
    joined = [name for name in sdata.images if name.startswith(f"{image}-") and region.endswith(name[len(image) :])]
    if len(joined) > 1:  # suffixes that end alike
        joined = [name for name in joined if shared_systems(sdata, region, name)]
    if image not in sdata.images and len(joined) != 1:
        column = f"sdata[{table_key!r}].obs[{_keys.IMAGE!r}]"
        msg = (
            f"The table {table_key!r} has cells in image {image!r}, and sdata.images holds {_listed(sdata.images)}. "
            f"If the image was renamed, rename it there too: {column} = {column}.replace({{{image!r}: ...}})."
        )
        raise KeyError(msg)
    return image if image in sdata.images else joined[0]


def _table_obs(sdata: SpatialData, table_key: str) -> pd.DataFrame:
    if table_key not in sdata.tables:
        msg = (
            f"No table {table_key!r} in sdata.tables, which holds {_listed(sdata.tables)}. Make the cells first: "
            "nm.pp.detect_cells(sdata, nuclear=[...]) or nm.pp.add_cells(sdata, ...)."
        )
        raise KeyError(msg)
    obs = sdata.tables[table_key].obs
    columns = [_keys.REGION, _keys.INSTANCE, _keys.IMAGE]
    missing = [column for column in columns if column not in obs]
    if missing:
        msg = (
            f"The table {table_key!r} lacks the columns {missing} that link its cells to an image. Make it with "
            "nm.pp.add_cells(sdata, ...), which takes centres from labels, shapes, points or a table."
        )
        raise KeyError(msg)
    if len(obs) == 0:
        msg = f"The table {table_key!r} has no cells. Detect them again: nm.pp.detect_cells(sdata, nuclear=[...])."
        raise ValueError(msg)
    _check_linked(obs[columns], table_key)
    return obs


def _check_linked(links: pd.DataFrame, table_key: str) -> None:
    """Refuse cells of which it is not known where they lie."""
    empty = links.isna()
    for column in links.columns[empty.any()]:
        rows = empty[column].to_numpy()
        table = f"sdata[{table_key!r}]"
        msg = (
            f"{rows.sum()} of {len(links)} cells of the table {table_key!r} have no value in .obs[{column!r}], first "
            f"{links.index[rows][0]!r}. Fill it in, or leave them out: "
            f"{table} = {table}[{table}.obs[{column!r}].notna()].copy()."
        )
        raise ValueError(msg)


def choose_images(sdata: SpatialData, images: Sequence[str] | str | None) -> list[str]:
    """List the images to work on, all by default.

    Raises
    ------
    KeyError
        If an image does not exist.
    ValueError
        If there are no images, or one is named twice.
    """
    if not sdata.images:
        msg = "sdata.images is empty: there is nothing to find cells in. Read images first: nm.io.read(paths)."
        raise ValueError(msg)
    chosen = as_list(images) if images is not None else list(sdata.images)
    if not chosen or len(set(chosen)) < len(chosen):
        msg = f"images={chosen} must name one image or more, each once; sdata.images holds {sorted(sdata.images)}."
        raise ValueError(msg)
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
        If the store that it is read from is not there any more, or has lost files.
    KeyError
        If there is no such image.
    ValueError
        If it is not flat, channel names repeat, or another image is in the place of this one.
    """
    if image not in sdata.images:
        msg = f"No image {image!r} in sdata.images, which holds {_listed(sdata.images)}."
        raise KeyError(msg)
    element = full_resolution(sdata.images[image])
    if set(element.dims) != {"c", "y", "x"}:
        there = f"sdata[{image!r}]"
        if element is not sdata.images[image]:
            there = f"spatialdata.get_pyramid_levels({there}, n=0)"
        msg = (
            f"Image {image!r} has the dimensions {element.dims}, and only flat images (c, y, x) are supported. Name "
            f"others with images=[...], or project it: sdata[{image + '_flat'!r}] = spatialdata.models.Image2DModel"
            f".parse({there}.max('z'), c_coords={there}['c'].values)."
        )
        raise ValueError(msg)
    check_whole(image, element)
    names = [str(name) for name in element["c"].to_numpy()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = (
            f"Image {image!r} has several channels of one name: {repeated}. Rename them: sdata.set_channel_names(...)."
        )
        raise ValueError(msg)
    return element.transpose("c", "y", "x").assign_coords(c=names)


def read_pixels(image: str, pixels: xr.DataArray, rows: slice, columns: slice) -> np.ndarray:
    """Load a part of an image, (c, y, x), in the byte order of the machine.

    Raises
    ------
    FileNotFoundError
        If the store that it is read from is not there any more.
    ValueError
        If a pixel is not finite.
    """
    check_there(image, pixels)
    block = pixels.isel(y=rows, x=columns).to_numpy()
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        broken = pixels["c"].to_numpy()[~np.isfinite(block).all(axis=(1, 2))].tolist()
        msg = (
            f"Image {image!r} holds pixels that are not finite (NaN or infinite) in the channels {broken}. "
            f"Replace them, for example by zero: sdata.images[{image!r}] = sdata.images[{image!r}].fillna(0)."
        )
        raise ValueError(msg)
    return block.astype(block.dtype.newbyteorder("="), copy=False)  # torch knows no other


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
        If an image lacks one of the markers, or, without `markers`, has another panel than the first.
    """
    panels = read_panels(sdata, images)
    if markers is not None:
        for image, panel in panels.items():
            missing = [name for name in markers if name not in panel]
            if missing:
                msg = (
                    f"Image {image!r} has no channels {missing}; its channels are {panel}. Choose among these, or "
                    f"rename them: sdata.set_channel_names({image!r}, [...])."
                )
                raise ValueError(msg)
        return list(markers)
    first, *_ = panels.values()
    for image, panel in panels.items():
        missing = [name for name in first if name not in panel]
        extra = [name for name in panel if name not in first]
        if missing or extra:
            common = [name for name in first if all(name in other for other in panels.values())]
            remedy = (
                f"name the markers to use, for example markers={common}"
                if common
                else f"as they share no marker, choose images of one panel, for example images={[image]}"
            )
            msg = (
                f"Image {image!r} has another panel: it lacks {missing} and has {extra} besides; "
                f"its channels are {panel}. Match the panels, nm.pp.match_panels(sdata), with aliases=... where "
                f"spellings differ, or {remedy}."
            )
            raise ValueError(msg)
    return first


def as_list(names: Sequence[str] | str) -> list[str]:
    """Take one name for a list of one."""
    return [names] if isinstance(names, str) else list(names)


def _listed(elements: object) -> str:
    return str(sorted(elements)) if elements else "nothing"  # type: ignore[call-overload]
