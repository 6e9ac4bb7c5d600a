"""Imports cells from labels, shapes, points, tables and files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData

from nextmarker import _keys
from nextmarker._coordinates import (
    STATE_SIZE,
    apply,
    check_inside,
    from_system,
    is_micrometre,
    pixel_size,
    spatial_system,
)
from nextmarker._errors import check_option, no_such
from nextmarker._regions import choose_images, read_image
from nextmarker.pp._write import check_target, write_cells
from nextmarker.pp.sources.anndata import foreign_positions, is_own_table, own_positions
from nextmarker.pp.sources.elements import element_centroids, elements_by_image, spatial_elements
from nextmarker.pp.sources.outlines import Array, geojson_centroids, is_geojson, is_mask, mask_centroids
from nextmarker.pp.sources.tables import UNITS, Unit, read_cell_table, split_by_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from spatialdata import SpatialData

Source: TypeAlias = "str | Path | pd.DataFrame | AnnData | Array"

LONE_RADIUS = 5.0
ENOUGH_CELLS, CORNER = 20, 0.7  # at least so many cells, all within this fraction of width and height


def add_cells(
    sdata: SpatialData,
    cells: Source | Mapping[str, Source],
    *,
    unit: Unit | None = None,
    images: Sequence[str] | str | None = None,
    markers: Sequence[str] | str | None = None,
    key_added: str = _keys.CELLS,
    table_key: str = _keys.TABLE,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Import cell centres from a segmentation, masks, shapes, points, a table or a file.

    Parameters
    ----------
    sdata
        Images with raw counts.
    cells
        One of

        - the name of an element of `sdata.labels` or `sdata.shapes` (centroids) or `sdata.points`. Its coordinates are
          converted to pixels of the image through their common coordinate system;
        - the common part of such names, if each image has its own element: `"masks"` for `masks_a` and `b_masks`;
        - the name of a table in `sdata.tables`, or an AnnData object, with (x, y) in `obsm["spatial"]` and, if there
          are several images, their names in `obs["image"]`;
        - a DataFrame, or the path of a file with comma, semicolon or tab separated values, with columns `x` and `y` or
          in the format of one of the programs below. If there are several images, a column `image`, `Image`, `fov` or
          `imageid` names them, with or without the file extension;
        - a label mask of one image, with the same height and width: an array (y, x), a `.npy` file or a TIFF. Each cell
          has its own number, and the background is zero;
        - the path of a GeoJSON file of one image, as written by :func:`nextmarker.io.write_geojson` and QuPath, with
          polygons (centroids) or points. If it contains detections, annotations are left out with a warning;
        - a dict from image to one of these.
    unit
        Unit of the coordinates in a table, DataFrame or GeoJSON: `"pixel"` or `"micrometre"`. By default the unit in
        the header, otherwise pixels. Micrometres require the pixel size of the image, and are measured from its top
        left corner or, if the image was cropped with spatialdata, from that of the whole image.
    images
        Images that the cells belong to; by default those named in `cells`, otherwise all.
    markers
        Channels of the table; by default all, which must then be the same in all images. Nuclear channels are of use:
        they show the size and shape of nuclei. Leave out those without an antibody.
    key_added
        Name of the circles.
    table_key
        Name of the table.
    overwrite
        Replace existing circles and tables of these names.
    progress
        Show a progress bar.

    Returns
    -------
    None. Writes in place the same keys as :func:`nextmarker.pp.detect_cells`, and in `obs["source_id"]` the label or
    index of each cell in `cells`, int or str. The parameters are in `uns["nextmarker"]["add_cells"]`.

    Raises
    ------
    KeyError
        If an image, or the element or file named by `cells`, does not exist.
    TypeError
        If `cells` has another type.
    ValueError
        If there are no images or no cells, centres are NaN or outside their image, it is not clear which image an
        element, mask or file belongs to, a file cannot be read, a table has no known coordinate columns, `unit`
        contradicts the header, the pixel size is needed but unknown, a mask does not have the size of its image or does
        not number the cells, panels differ, or `key_added` or `table_key` already exists. Nothing is changed then.

    Warns
    -----
    UserWarning
        If an image has no cells; if all cells of a table without a unit are in the top left corner of the image, which
        suggests micrometres; if the only image has another name in the table; or if annotations in a GeoJSON file are
        left out.

    Notes
    -----
    Columns are recognised by their names. Programs count pixels differently: in SpatialData the centre of the first
    pixel is at (0.5, 0.5). The last column shows where other programs place it; coordinates are shifted accordingly.

    ===================================  ====================================  ===========  ============
    written by                           columns                               unit         first centre
    ===================================  ====================================  ===========  ============
    you; also `obsm["spatial"]`          `x`, `y`                              pixels       0
    QuPath                               `Centroid X µm` or `Centroid X px`    as named     0.5
    anything that names its unit         `x_um`, `Center Y (px)` and the like  as named     0.5
    mcquant, MCMICRO, scimap             `X_centroid`, `Y_centroid`            pixels       0
    regionprops_table, steinbock, ark    `centroid-1`, `centroid-0`            pixels       0
    CellProfiler                         `Location_Center_X`, `..._Y`          pixels       0
    CellProfiler                         `AreaShape_Center_X`, `..._Y`         pixels       0
    histoCAT                             `X_position`, `Y_position`            pixels       1
    Xenium, with `transcript_counts`     `x_centroid`, `y_centroid`            micrometres  0.5
    ===================================  ====================================  ===========  ============

    The names of the cells are taken from `label`, `CellID`, `Object ID`, `ObjectNumber`, `Object` or `cell_id`,
    otherwise from the index of the table; in GeoJSON, from `name`, otherwise `id`.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import nextmarker as nm
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel
    >>> image = Image2DModel.parse(np.ones((1, 60, 80)), dims=("c", "y", "x"), c_coords=["CD3"])
    >>> sdata = SpatialData(images={"tissue": image})
    >>> nm.pp.add_cells(sdata, pd.DataFrame({"x": [20, 45], "y": [30, 30]}, index=["a", "b"]), progress=False)
    >>> sdata["table"].obs[["image", "source_id"]]
                image source_id
    tissue_0   tissue         a
    tissue_1   tissue         b
    """
    if unit is not None:
        check_option("unit", unit, UNITS)
    if images is None and isinstance(cells, Mapping):
        images = list(cells)
    chosen = choose_images(sdata, images)
    centres = _read_centres(sdata, cells, chosen, unit, every=images is not None)
    target = check_target(sdata, list(centres), markers, key_added=key_added, table_key=table_key, overwrite=overwrite)
    for image, frame in centres.items():
        fix = 'Remove them, or pass x and y in pixels, or with unit="micrometre".'
        check_inside(image, read_image(sdata, image), frame[["x", "y"]].to_numpy(), frame.index.tolist(), fix)
    write_cells(
        sdata,
        target,
        {image: frame[["x", "y"]].to_numpy() for image, frame in centres.items()},
        step="add_cells",
        parameters={"cells": _described(cells)},
        lone_radius=dict.fromkeys(target.images, LONE_RADIUS),
        source_ids=_ids(centres),
        progress=progress,
    )


def _read_centres(
    sdata: SpatialData, cells: Source | Mapping[str, Source], images: list[str], unit: Unit | None, *, every: bool
) -> dict[str, pd.DataFrame]:
    """Read `x` and `y` of each image in its intrinsic coordinates, float64, with the index of the source.

    For a table, only the images that it names are returned, unless `every` is True.
    """
    if isinstance(cells, Mapping):
        missing = [image for image in images if image not in cells]
        if missing:
            there = sorted(cells)
            raise KeyError(no_such("image", missing, "cells", there, f"Choose from images={there}."))
        return {image: _from_one(sdata, cells[image], image, unit) for image in images}
    if isinstance(cells, str) and (elements := elements_by_image(sdata, cells, images, spatial_elements(sdata))):
        return {image: _from_one(sdata, name, image, unit) for image, name in elements.items()}
    source = _existing(sdata, cells)
    if is_mask(source) or is_geojson(source):
        if len(images) > 1:
            msg = f"One mask or file for {len(images)} images: nm.pp.add_cells(sdata, {{{images[0]!r}: ...}})."
            raise ValueError(msg)
        return {images[0]: _from_one(sdata, cells, images[0], unit)}
    frame, stated = _from_table(sdata, source, unit)
    parts = split_by_image(frame, images, [*sdata.images])
    wanted = [image for image in images if every or len(parts[image])] or images
    return {image: _in_pixels(sdata, image, parts[image], stated) for image in wanted}


def _from_one(sdata: SpatialData, cells: Source, image: str, unit: Unit | None) -> pd.DataFrame:
    """Read the cells of one image."""
    is_element = isinstance(cells, str) and cells in spatial_elements(sdata)
    source = cells if is_element else _existing(sdata, cells)
    if is_element or is_mask(source):
        _refuse_unit(unit)
    if isinstance(source, str):
        return element_centroids(sdata, source, image)
    if is_mask(source):
        pixels = read_image(sdata, image)
        return mask_centroids(source, image, (pixels.sizes["y"], pixels.sizes["x"]))
    if is_geojson(source):
        return _in_pixels(sdata, image, geojson_centroids(source), unit or "pixel")
    frame, stated = _from_table(sdata, source, unit)
    return _in_pixels(sdata, image, split_by_image(frame, [image], [*sdata.images])[image], stated)


def _refuse_unit(unit: Unit | None) -> None:
    if unit is not None:
        msg = f"unit={unit!r} is only for tables of other programs. Leave it out."
        raise ValueError(msg)


def _existing(sdata: SpatialData, source: Source) -> pd.DataFrame | AnnData | Array | Path:
    """Find the table or file with this name or path."""
    if isinstance(source, str) and source in sdata.tables:
        return sdata.tables[source]
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.is_file():
            there = sorted({*spatial_elements(sdata), *sdata.tables})
            raise KeyError(no_such("file or element", str(source), "sdata", there, "Choose another."))
        return path
    if not isinstance(source, pd.DataFrame | AnnData | Array):
        msg = f"cells is of type {type(source).__name__}. Pass a name, path, DataFrame, AnnData, array or dict."
        raise TypeError(msg)
    return source


def _from_table(
    sdata: SpatialData, source: pd.DataFrame | AnnData | Path, unit: Unit | None
) -> tuple[pd.DataFrame, Unit | None]:
    """Read `x` and `y` from the corner of the image, `image` if there is one, and the unit if it is stated."""
    if not isinstance(source, AnnData):
        return read_cell_table(source, unit)
    if is_own_table(source):
        _refuse_unit(unit)
        return own_positions(sdata, source), "pixel"
    frame = foreign_positions(source)
    shift = 0.0 if unit == "micrometre" else 0.5
    return frame.assign(x=frame["x"] + shift, y=frame["y"] + shift), unit


def _in_pixels(sdata: SpatialData, image: str, frame: pd.DataFrame, unit: Unit | None) -> pd.DataFrame:
    if unit is None:
        _warn_of_micrometres(read_image(sdata, image), image, frame)
    if unit != "micrometre":
        return frame
    um, system = pixel_size(sdata, image), spatial_system(sdata, image)
    if um is None:
        msg = f"The cells are in micrometres, but the pixel size of image {image!r} is unknown. {STATE_SIZE}"
        raise ValueError(msg)
    matrix = from_system(sdata, image, system) if is_micrometre(system) else np.diag([1 / um, 1 / um, 1])
    x, y = apply(matrix, frame[["x", "y"]].to_numpy()).T
    return frame.assign(x=x, y=y)


def _warn_of_micrometres(pixels: xr.DataArray, image: str, frame: pd.DataFrame) -> None:
    in_corner = all(frame[axis].max() < CORNER * pixels.sizes[axis] for axis in "xy")
    if len(frame) >= ENOUGH_CELLS and in_corner:
        msg = f'All cells are in the top left corner of image {image!r}. Set unit="pixel" or unit="micrometre".'
        warnings.warn(msg, UserWarning, stacklevel=6)


def _ids(centres: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Names of the cells in the source: integers if all are, otherwise strings, empty where missing."""
    if all(frame.index.dtype.kind in "iu" for frame in centres.values()):
        return {image: frame.index.to_numpy(np.int64) for image, frame in centres.items()}
    return {
        image: np.array(["" if pd.isna(name) else str(name) for name in frame.index], object)
        for image, frame in centres.items()
    }


def _described(cells: Source | Mapping[str, Source]) -> str | dict[str, str]:
    if isinstance(cells, Mapping):
        return {image: str(_described(source)) for image, source in cells.items()}
    return str(cells) if isinstance(cells, str | Path) else type(cells).__name__
