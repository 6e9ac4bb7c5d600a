"""Measures the mean intensity of each marker in segmented objects."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from nextmarker import _keys
from nextmarker._coordinates import SET, TOLERANCE, apply, spatial_system, to_pixels
from nextmarker._errors import check_each_once, check_option, check_value, listed, no_such
from nextmarker._images import Job, map_images
from nextmarker._objects import check_integers, read_label_image
from nextmarker._record import write_results
from nextmarker._regions import as_list, choose_images, read_image
from nextmarker.pp._labels import label_centroids
from nextmarker.pp._new_table import Part, check_markers, check_names, make_table
from nextmarker.pp._object_values import sum_objects
from nextmarker.pp.sources.elements import elements_by_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from spatialdata import SpatialData

    from nextmarker._progress import Advance

Statistic = Literal["mean", "median", "sum"]
STATISTICS = get_args(Statistic)

COFACTOR = 5.0
TILE_SIZE = 1024
BRIGHT = 99
"""Percentile of the objects that stands for those bright in a marker."""
LINEAR = 0.5
"""Fraction of the cofactor below which the inverse hyperbolic sine is linear, within 4 %."""


def integrate(
    sdata: SpatialData,
    labels: str | Mapping[str, str],
    *,
    images: Sequence[str] | str | None = None,
    markers: Sequence[str] | str | None = None,
    statistics: Statistic | Sequence[Statistic] = "mean",
    cofactor: float = COFACTOR,
    key_added: str = _keys.INTENSITY,
    overwrite: bool = False,
    tile_size: int = TILE_SIZE,
    progress: bool = True,
) -> None:
    """Measure the mean intensity of each marker in segmented objects, in one table for all images.

    This is the usual workflow with segmentation masks, and a baseline for :func:`nextmarker.tl.embed`. Images are read
    tile by tile, each chunk once. Objects that several tiles share are measured as a whole, so for images of integers
    the tile size does not change the result. If a client of dask is active, its workers read the images, with the same
    result.

    Parameters
    ----------
    sdata
        Images with raw counts, and label images in which each object has its own number and the background is zero.
        The same numbers may occur in several images. If labels and image differ in resolution, each pixel of the image
        belongs to the object at its centre; both must cover the same area.
    labels
        One of

        - the name of an element of `sdata.labels`;
        - the common part of such names, if each image has its own element: `"masks"` for `masks_a` and `b_masks`;
        - a dict from image to the name of its element.
    images
        Images to measure; by default those named in `labels`, otherwise all.
    markers
        Channels of the table; by default all, which must then be the same in all images.
    statistics
        `"mean"`, `"median"` or `"sum"` of the pixels of an object, or a list of these. The first becomes `X`, the
        others layers.
    cofactor
        Counts by which `X` is divided before the inverse hyperbolic sine. With 5, as is usual for mass cytometry, the
        scale is linear up to about 5 counts and logarithmic above. Where means are below one count, as in MIBI, take 1.
    key_added
        Name of the table.
    overwrite
        Replace an existing table of this name.
    tile_size
        Minimum width of a tile in pixels. A tile consists of whole chunks of the image.
    progress
        Show a progress bar.

    Returns
    -------
    None. Writes in place (if the object is backed by a store, only in memory):

    `sdata.tables["intensity"]`
        One table for all images, which annotates the labels.

        - `X`: mean raw counts, float32 (objects, markers). `layers["arcsinh"]`: ``arcsinh(X / cofactor)``.
          `layers["sqrt"]`: ``sqrt(X)``, with negative values as zero. Other `statistics`: layers of these names,
          float32, or float64 for `"sum"`.
        - `obs`: `region` (the labels element), `instance_id` (the label), `image`, and `area` in pixels of the image;
          also `sample` and `acquisition` where known.
        - `obsm["spatial"]`: centroids (x, y), float64, in micrometres if the pixel size is known, otherwise in the
          coordinate system of the image.
        - `uns["nextmarker"]["integrate"]`: the parameters.

    Raises
    ------
    KeyError
        If an image or element does not exist.
    ValueError
        If no image has an object, labels are not integers or do not cover the same area as their image, it is not
        clear which image an element belongs to, few labels are in many pieces, pixels are not finite, a marker does not
        exist, panels differ, or `key_added` already exists. Nothing is changed then.

    Warns
    -----
    UserWarning
        If an image has no objects, or most markers lie so far below the cofactor that `layers["arcsinh"]` is linear.

    See Also
    --------
    nextmarker.pp.match_cells : match cell centres to these objects.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.dense_tissue(n_images=2, n_cells=100)
    >>> nm.pp.integrate(sdata, "masks", progress=False)
    >>> sdata["intensity"].shape
    (200, 12)
    >>> sdata["intensity"].obs.head(2)
                      region  instance_id    image  area
    dense_1_1  masks_dense_1            1  dense_1    43
    dense_1_2  masks_dense_1            2  dense_1    54
    """
    wanted = _check_statistics(statistics)
    check_value("cofactor", cofactor, 0 < cofactor < np.inf, "a number above 0")
    check_value("tile_size", tile_size, tile_size >= 1, "at least 1 pixel")
    names = _choose_labels(sdata, labels, images)
    chosen = check_markers(sdata, list(names), markers)
    check_names(sdata, {key_added: "tables"}, "key_added=...", overwrite=overwrite)
    sources = [_open(sdata, image, name, chosen) for image, name in names.items()]

    found = dict(
        map_images(
            _measure,
            [_job(source, wanted, tile_size) for source in sources],
            step=_keys.INTEGRATE_STEP,
            title="measuring objects",
            unit="px",
            progress=progress,
        )
    )
    measured = [(source, found[number]) for number, source in enumerate(sources) if len(found[number]["instances"])]
    parts = [_part(source, arrays, wanted[0]) for source, arrays in measured]
    _check_found(names, [part.image for part in parts])
    systems = {part.image: spatial_system(sdata, part.image) for part in parts}
    adata = make_table(sdata, chosen, parts, systems)
    results = {f"layers/{name}": np.concatenate([arrays[name] for _, arrays in measured]) for name in wanted[1:]}
    results[f"layers/{_keys.ARCSINH}"] = np.arcsinh(adata.X / np.float32(cofactor))
    results[f"layers/{_keys.SQRT}"] = np.sqrt(np.maximum(adata.X, 0))
    results[f"obsm/{_keys.SPATIAL}"] = adata.obsm[_keys.SPATIAL]
    parameters = {
        "labels": {part.image: part.element for part in parts},
        "markers": np.array(chosen, dtype=object),
        "statistics": np.array(wanted, dtype=object),
        "cofactor": float(cofactor),
        "coordinate_system": systems,
    }
    write_results(adata, _keys.INTEGRATE_STEP, results, parameters)
    if key_added in sdata.tables:
        del sdata.tables[key_added]
    sdata.tables[key_added] = adata
    _warn_of_linear(adata.X, cofactor)


class _Source(NamedTuple):
    """An image and its labels."""

    image: str
    name: str
    pixels: xr.DataArray
    labels: xr.DataArray


def _check_statistics(statistics: Statistic | Sequence[Statistic]) -> list[str]:
    wanted = as_list(statistics)
    check_each_once("statistics", wanted)
    for statistic in wanted:
        check_option("statistics", statistic, STATISTICS)
    return wanted


def _choose_labels(
    sdata: SpatialData, labels: str | Mapping[str, str], images: Sequence[str] | str | None
) -> dict[str, str]:
    """Choose the labels element of each image."""
    if images is None and isinstance(labels, Mapping):
        images = list(labels)
    chosen = choose_images(sdata, images)
    if not isinstance(labels, Mapping):
        found = elements_by_image(sdata, labels, chosen, set(sdata.labels), "integrate")
        if not found:
            raise KeyError(_no_labels(sdata, labels))
        return found
    missing = [image for image in chosen if image not in labels]
    if missing:
        there = sorted(labels)
        raise KeyError(no_such("image", missing, "labels", there, f"Choose from images={there}."))
    unknown = [labels[image] for image in chosen if labels[image] not in sdata.labels]
    if unknown:
        raise KeyError(_no_labels(sdata, *unknown))
    return {image: labels[image] for image in chosen}


def _no_labels(sdata: SpatialData, *names: str) -> str:
    fix = "Name others, or add masks: nm.pp.add_masks(sdata, {image: path})."
    return no_such("labels", names, "sdata.labels", sdata.labels, fix)


def _open(sdata: SpatialData, image: str, name: str, markers: Sequence[str]) -> _Source:
    """Open an image, and its labels at the same pixels."""
    pixels, labels = read_image(sdata, image), read_label_image(sdata, name)
    check_integers(name, labels)
    matrix = to_pixels(sdata, name, image)
    apart = np.abs(apply(matrix, _corners(labels)) - _corners(pixels)).max()
    if apart > 1:
        sizes = [f"({array.sizes['x']} x {array.sizes['y']} pixels)" for array in (labels, pixels)]
        fix = f"Crop both alike, or set where the labels lie: {SET}(...)."
        msg = f"The labels {name!r} {sizes[0]} and image {image!r} {sizes[1]} do not cover the same area. {fix}"
        raise ValueError(msg)
    if labels.shape != pixels.shape[1:] or apart > TOLERANCE:
        labels = _at_pixels(labels, matrix, pixels)
    return _Source(image, name, pixels.sel(c=list(markers)), labels)


def _corners(pixels: xr.DataArray) -> np.ndarray:
    width, height = pixels.sizes["x"], pixels.sizes["y"]
    return np.array([[0, 0], [width, 0], [0, height], [width, height]], float)


def _at_pixels(labels: xr.DataArray, matrix: np.ndarray, pixels: xr.DataArray) -> xr.DataArray:
    """Take the label at the centre of each pixel of an image, lazily; the two differ by scale and shift only."""
    inverse = np.linalg.inv(matrix)
    places = {}
    for axis, name in enumerate("xy"):
        centres = np.arange(pixels.sizes[name]) + 0.5
        index = np.floor(inverse[axis, axis] * centres + inverse[axis, 2]).astype(int)
        places[name] = index.clip(0, labels.sizes[name] - 1)  # at the edge, which may differ by part of a pixel
    return labels.isel(places)


def _job(source: _Source, statistics: Sequence[str], tile_size: int) -> Job:
    return Job(source.image, source.pixels, lambda: (source, statistics, tile_size), source.labels.size, dict)


def _measure(source: _Source, statistics: Sequence[str], tile_size: int, advance: Advance) -> dict[str, np.ndarray]:
    """Measure the objects of an image: labels, areas, centres, and each statistic."""
    objects = label_centroids(source.labels, name=f"The label image {source.name!r}")
    sums, medians = sum_objects(
        source.image,
        source.pixels,
        source.labels,
        objects,
        medians="median" in statistics,
        tile_size=tile_size,
        advance=advance,
    )
    values = {"sum": sums, "mean": sums / objects.area[:, None], "median": medians}
    return {
        "instances": objects.names,
        "area": objects.area,
        "centres": objects.centres,
        **{name: _typed(name, values[name]) for name in statistics},
    }


def _part(source: _Source, arrays: Mapping[str, np.ndarray], statistic: str) -> Part:
    columns = {_keys.AREA: arrays["area"]}
    return Part(source.name, source.image, arrays["instances"], arrays["centres"], arrays[statistic], columns)


def _typed(statistic: str, values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64 if statistic == "sum" else np.float32)


def _check_found(names: Mapping[str, str], found: Sequence[str]) -> None:
    """Warn of images without objects, and raise an error if none has any."""
    if not found:
        fix = "Number the objects: skimage.measure.label(mask)."
        msg = f"No object in the labels {listed(names.values())}: all pixels are zero. {fix}"
        raise ValueError(msg)
    for image, name in names.items():
        if image not in found:
            msg = f"No object in the labels {name!r}, so image {image!r} is not in the table."
            warnings.warn(msg, UserWarning, stacklevel=3)


def _warn_of_linear(values: np.ndarray, cofactor: float) -> None:
    """Warn if most markers with signal are below the cofactor even where they are bright."""
    bright = np.percentile(values, BRIGHT, axis=0)
    typical = np.median(bright[bright > 0]) if (bright > 0).any() else np.inf
    if typical < LINEAR * cofactor:
        rounded, better = (float(f"{typical:.{digits}g}") for digits in (2, 1))
        msg = (
            f"Bright objects have {rounded:g} counts in a typical marker, far below cofactor={cofactor:g}, so "
            f"arcsinh is linear. Lower it: nm.pp.integrate(sdata, labels, cofactor={better:g})."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
