"""Outlines of cells from other programs: label masks in memory or files, and GeoJSON."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from shapely import get_parts
from shapely.errors import ShapelyError
from shapely.geometry import shape

from nextmarker.io.tiff.file import open_file
from nextmarker.pp._labels import label_centroids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shapely.geometry.base import BaseGeometry

Array: TypeAlias = np.ndarray | da.Array | xr.DataArray

GEOJSON = (".geojson", ".json")
MASKS = (".npy", ".tif", ".tiff", ".btf")


def is_mask(source: object) -> TypeGuard[Array | Path]:
    """Whether this is an array, or a file with an array."""
    return isinstance(source, Array) or (isinstance(source, Path) and source.suffix.lower() in MASKS)


def is_geojson(source: object) -> TypeGuard[Path]:
    """Whether this is a GeoJSON file, by its name."""
    return isinstance(source, Path) and source.suffix.lower() in GEOJSON


def open_mask(source: Array | Path, image: str, size: tuple[int, int]) -> xr.DataArray:
    """Open a label mask of an image, (y, x), lazy if it is in a file.

    Parameters
    ----------
    source
        Integers, (y, x), one label per cell and zero elsewhere, or a .npy file or TIFF with these.
    image
        Name of the image, for error messages.
    size
        Height and width of the image.

    Raises
    ------
    ValueError
        If the file cannot be read, or the mask does not have the size of the image or a type that can number cells.
    """
    labels = _open_array(source) if isinstance(source, Path) else source
    labels = labels.squeeze() if labels.ndim > 2 else labels
    if labels.ndim == 2 and labels.shape[1] == 2 < size[1]:
        msg = "This array is not a mask. For coordinates: pandas.DataFrame(array, columns=['x', 'y'])."
        raise ValueError(msg)
    if labels.shape != size:
        found = " x ".join(map(str, labels.shape))
        expected = f"and the image {size[0]} x {size[1]}"
        msg = f"{mask_name(image)} has {found} pixels, {expected}. Add it to sdata.labels, with its scale."
        raise ValueError(msg)
    if labels.dtype.kind not in "uif":
        msg = f"{mask_name(image)} has values of type {labels.dtype}. Number the cells: skimage.measure.label(mask)."
        raise ValueError(msg)
    return xr.DataArray(labels.data if isinstance(labels, xr.DataArray) else labels, dims=("y", "x"))


def mask_name(image: str) -> str:
    """How error messages call the mask of an image."""
    return f"The mask of image {image!r}"


def mask_centroids(source: Array | Path, image: str, size: tuple[int, int]) -> pd.DataFrame:
    """Compute the centroids of the cells in a label mask, see `open_mask`, tile by tile.

    Returns
    -------
    `x` and `y` in pixels from the top left corner, float64, with the labels as the index.

    Raises
    ------
    ValueError
        If the mask cannot be opened, or does not number the cells.
    """
    ids, _, xy = label_centroids(open_mask(source, image, size), name=mask_name(image))
    return pd.DataFrame(xy, index=ids, columns=["x", "y"])


def _open_array(path: Path) -> np.ndarray | da.Array:
    if path.suffix.lower() == ".npy":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            msg = f"{str(path)!r} is not a readable NumPy array ({error}). Save one with numpy.save."
            raise ValueError(msg) from error
    stacks, _ = open_file(path)
    planes = sum(stack.n_channels for stack in stacks)
    if planes != 1:
        msg = f"{str(path)!r} has {planes} planes; a mask has one. Pass the plane as an array."
        raise ValueError(msg)
    return stacks[0].pixels()[0]


def geojson_centroids(path: Path) -> pd.DataFrame:
    """Read the centroids of the cells in a GeoJSON file from QuPath or :func:`nextmarker.io.write_geojson`.

    Every polygon, multipolygon and point is a cell. If there are detections, annotations are regions, not cells, and
    are left out with a warning.

    Returns
    -------
    `x` and `y` in the coordinates of the file, float64, with the names of the cells as the index.

    Raises
    ------
    ValueError
        If the file is not GeoJSON, or contains anything but polygons and points.
    """
    features = _cells_among(_read_features(path), path)
    names: list[Any] = []
    points = []
    for number, feature in enumerate(features):
        for centroid in _centroids(feature, path, number):
            names.append(_name(feature))
            points.append((centroid.x, centroid.y))
    index = pd.Index(names if any(name is not None for name in names) else range(len(names)))
    return pd.DataFrame(np.array(points, np.float64).reshape(-1, 2), index=index, columns=["x", "y"])


def _read_features(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"{str(path)!r} cannot be read as GeoJSON: {error}"
        raise ValueError(msg) from error
    if isinstance(content, dict):
        content = content.get("features", [content])
    if not isinstance(content, list) or not all(isinstance(f, dict) and f.get("type") == "Feature" for f in content):
        msg = f"{str(path)!r} is not GeoJSON: neither a FeatureCollection nor a list of features."
        raise ValueError(msg)
    return content


def _cells_among(features: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    cells = [feature for feature in features if not re.search("annotation|tma|root", _kind(feature), re.IGNORECASE)]
    if not cells:  # cells were annotated by hand
        return features
    if len(cells) < len(features):
        n_regions = len(features) - len(cells)
        warnings.warn(f"{n_regions} annotations in {str(path)!r} are not imported as cells.", UserWarning, stacklevel=6)
    return cells


def _properties(feature: dict[str, Any]) -> dict[str, Any]:
    properties = feature.get("properties")
    return properties if isinstance(properties, dict) else {}


def _kind(feature: dict[str, Any]) -> str:
    """Object type according to QuPath; old versions store it as the identifier."""
    properties = _properties(feature)
    return str(properties.get("objectType") or properties.get("object_type") or feature.get("id"))


def _name(feature: dict[str, Any]) -> Any:
    return _properties(feature).get("name") or feature.get("id")


def _centroids(feature: dict[str, Any], path: Path, number: int) -> Iterator[BaseGeometry]:
    try:
        geometry = shape(feature["geometry"])
    except (LookupError, TypeError, ValueError, AttributeError, ShapelyError) as error:
        msg = f"Feature {number} of {str(path)!r} has no readable geometry: {error!r}"
        raise ValueError(msg) from error
    if geometry.is_empty or geometry.geom_type not in ("Polygon", "MultiPolygon", "Point", "MultiPoint"):
        found = f"{'an empty ' * geometry.is_empty}{geometry.geom_type}"
        msg = f"Feature {number} of {str(path)!r} is {found}. Cells are polygons or points: remove it."
        raise ValueError(msg)
    if geometry.geom_type == "MultiPoint":  # the points tool of QuPath
        yield from get_parts(geometry)
    else:
        yield geometry.centroid
