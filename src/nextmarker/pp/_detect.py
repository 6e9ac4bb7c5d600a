"""Detects cells in nuclear channels."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from nextmarker import _keys
from nextmarker._coordinates import pixel_size
from nextmarker._errors import check_each_once, check_option, check_value, listed, no_such
from nextmarker._images import Job, map_images
from nextmarker._logging import logger
from nextmarker._regions import as_list, choose_images, read_image
from nextmarker.pp._nuclei import (
    METHODS,
    Method,
    NuclearImage,
    contrast_to_noise,
    detail_by_width,
    estimate_diameter,
    find_nuclei,
)
from nextmarker.pp._write import check_target, write_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialdata import SpatialData

    from nextmarker._progress import Advance

MIN_DIAMETER = 2.0
USUAL_DIAMETERS = (3, 20)  # micrometres
LARGEST_ESTIMATE = 50  # pixels; close to the largest nuclei that can be estimated
LEAST_CONTRAST = 3.0  # standard deviations of the noise


def detect_cells(
    sdata: SpatialData,
    nuclear_channels: str | Sequence[str],
    *,
    method: Method = "maxima",
    diameter: float | None = None,
    images: Sequence[str] | str | None = None,
    markers: Sequence[str] | str | None = None,
    key_added: str = _keys.CELLS,
    table_key: str = _keys.TABLE,
    overwrite: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> None:
    """Detect cell centres in the nuclear channels, without segmentation.

    A centre must lie in the foreground, where the smoothed nuclear channel is above Otsu's threshold, computed on
    square roots for each image. Images are read in tiles, whose size does not change the result. If a client of dask is
    active, its workers read them, with the same result.

    Otsu's threshold divides even an empty image into foreground and background, so cells are found in noise as well. A
    warning names the images in which most cells barely stand out from the noise. These cells are kept, because dim
    nuclei can be real; check such images, and exclude them with `images` if necessary.

    Parameters
    ----------
    sdata
        Images with raw counts or other intensities that are not negative.
    nuclear_channels
        Name of the nuclear channel, or a list of names. One channel is used as it is; several are divided by the 99th
        percentile of their nonzero pixels and summed.
    method
        - `"maxima"`: local maxima after Gaussian smoothing with a standard deviation of a quarter of the diameter.
        - `"blobs"`: local maxima of the Laplacian of Gaussian for discs of this diameter. It separates touching nuclei
          more often, but also splits large ones more often.
        - `"threshold"`: centroids of connected foreground after smoothing with an eighth of the diameter, without
          pieces smaller than a quarter of a nucleus. Touching nuclei are not separated.

        With the first two, centres are at least half a diameter apart.
    diameter
        Diameter of a nucleus in pixels. By default it is estimated from the scale at which the images show most
        detail, together for all images of the same pixel size, and logged.
    images
        Images in which to detect cells; by default all.
    markers
        Channels of the table; by default all, which must then be the same in all images. Nuclear channels are of use:
        they show the size and shape of nuclei. Leave out those without an antibody.
    key_added
        Name of the circles.
    table_key
        Name of the table.
    overwrite
        Replace existing circles and tables of these names.
    checkpoint
        A folder in which centres and mean intensities of each image are kept as soon as they are finished. The same
        call after an interruption goes on from there, with the same result to the last bit. Kept results are used if
        the parameters and version are the same, and for each image its name, size, channels and the pixels in nine
        small windows. So another image, or one that was processed as a whole, is read again. A retouch outside of these
        windows is not noticed: then use another folder. The folder can be removed afterwards.
    progress
        Show progress bars, and log the estimated diameter.

    Returns
    -------
    None. Writes in place (if the object is backed by a store, only in memory):

    `sdata.shapes["cells"]`, or `sdata.shapes["cells_<image>"]` if there are several images
        Circles around the centres, in pixels, with the transformations of the image. Their radius is half the median
        distance between neighbouring centres.
    `sdata.tables["table"]`
        One table for all images. `X`: mean raw counts in the circle, float32 (cells, markers). `obs`: `region` (the
        circles), `instance_id`, `image`. `obsm["spatial"]`: (x, y), float64, in micrometres if the pixel size is known,
        otherwise in the coordinate system of the image. `uns["nextmarker"]["detect_cells"]`: the parameters.

    Raises
    ------
    KeyError
        If an image does not exist or lacks a nuclear channel. If other images have it, the error names them.
    TypeError
        If `nuclear_channels` contains numbers instead of names.
    ValueError
        If there are no images, no cells are found, pixels are not finite, panels differ, or `key_added` or `table_key`
        already exists. Nothing is changed then.

    Warns
    -----
    UserWarning
        If an image has no cells; if the cells of an image may be noise, because their median contrast to the
        surroundings is below three standard deviations of the pixel noise; or if the estimated diameter is unusual for
        nuclei (below 3 or above 20 micrometres or, if the pixel size is unknown, above 50 pixels or a third of the
        image).

    Examples
    --------
    >>> import numpy as np
    >>> import nextmarker as nm
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel
    >>> y, x = np.mgrid[:60, :80]
    >>> nuclei = sum(np.exp(-((y - 30) ** 2 + (x - cx) ** 2) / 18) for cx in (20, 45))
    >>> image = Image2DModel.parse(50 * nuclei[None], dims=("c", "y", "x"), c_coords=["DNA"])
    >>> sdata = SpatialData(images={"tissue": image})
    >>> nm.pp.detect_cells(sdata, nuclear_channels="DNA", diameter=12, progress=False)
    >>> sdata["table"].obsm["spatial"]
    array([[20.5, 30.5],
           [45.5, 30.5]])
    """
    channels = _names(nuclear_channels)
    _check_arguments(method, diameter, channels)
    pixels = {image: read_image(sdata, image) for image in choose_images(sdata, images)}
    _check_channels({image: array["c"].to_numpy().tolist() for image, array in pixels.items()}, channels)
    target = check_target(sdata, list(pixels), markers, key_added=key_added, table_key=table_key, overwrite=overwrite)

    nuclear_images = {image: NuclearImage(image, pixels[image], channels) for image in target.images}
    if diameter is None:
        diameters = _estimate_diameters(sdata, nuclear_images, progress=progress, checkpoint=checkpoint)
    else:
        diameters = dict.fromkeys(target.images, float(diameter))
    found = map_images(
        _find,
        [_job(image, method, diameters[name]) for name, image in nuclear_images.items()],
        step="detect_cells",
        title="detecting cells",
        unit="px",
        progress=progress,
        checkpoint=checkpoint,
    )
    cells = {target.images[number]: arrays for number, arrays in found}
    for image, nuclear_image in nuclear_images.items():
        _warn_of_noise(nuclear_image, cells[image]["centres"], cells[image]["contrast"])
    write_cells(
        sdata,
        target,
        {image: cells[image]["centres"] for image in target.images},
        step="detect_cells",
        parameters={"nuclear_channels": np.array(channels, dtype=object), "method": method, "diameter": diameters},
        lone_radius={image: size / 2 for image, size in diameters.items()},
        checkpoint=checkpoint,
        progress=progress,
    )


def _job(image: NuclearImage, *arguments: object) -> Job:
    pixels = image.pixels.sel(c=list(image.channels))
    return Job(image.name, pixels, lambda: (image, *arguments), pixels[0].size, lambda: {"arguments": arguments})


def _find(image: NuclearImage, method: Method, diameter: float, advance: Advance) -> dict[str, np.ndarray]:
    """Detect the cells of an image, and measure the contrast of some."""
    centres = find_nuclei(image, method, diameter, advance)
    return {
        "centres": centres,
        "contrast": contrast_to_noise(image, centres, diameter) if len(centres) else np.empty(0),
    }


def _names(nuclear_channels: str | Sequence[str]) -> list[str]:
    """List the names, and raise an error for channel numbers, which other programs use."""
    names = as_list(nuclear_channels) if isinstance(nuclear_channels, Iterable) else [nuclear_channels]
    if not all(isinstance(name, str) for name in names):
        msg = (
            f"nuclear_channels={nuclear_channels!r} must be a name or a list of names, such as ['DNA1', 'DNA2']. "
            "sdata[image]['c'] lists them."
        )
        raise TypeError(msg)
    return names


def _check_arguments(method: str, diameter: float | None, channels: Sequence[str]) -> None:
    check_option("method", method, METHODS)
    rule = f"the diameter of a nucleus in pixels, {MIN_DIAMETER:g} or more"
    check_value("diameter", diameter, diameter is None or MIN_DIAMETER <= diameter < np.inf, rule)
    check_each_once("nuclear_channels", channels)


def _check_channels(panels: Mapping[str, list[str]], channels: Sequence[str]) -> None:
    """Raise an error if an image lacks channels, and name the images that have them."""
    missing = {image: [name for name in channels if name not in panel] for image, panel in panels.items()}
    complete = [image for image in panels if not missing[image]]
    lacking = [image for image in panels if missing[image]]
    if not lacking:
        return
    image, fix = lacking[0], "Choose others: nuclear_channels=[...]."
    if complete:
        fix = f"Choose the images that have them: images={complete}."
    raise KeyError(no_such("channel", missing[image], f"image {image!r}", panels[image], fix))


def _detail(image: NuclearImage, advance: Advance) -> dict[str, np.ndarray]:
    return {"detail": detail_by_width(image, advance)}


def _estimate_diameters(
    sdata: SpatialData, images: Mapping[str, NuclearImage], *, progress: bool, checkpoint: str | Path | None
) -> dict[str, float]:
    """Estimate one diameter for all images of the same pixel size, and log it."""
    found = map_images(
        _detail,
        [_job(image) for image in images.values()],
        step="estimate_diameter",
        title="nuclear diameter",
        unit="px",
        progress=progress,
        checkpoint=checkpoint,
    )
    detail = {[*images][number]: arrays["detail"] for number, arrays in found}
    by_size = defaultdict(list)
    for name in images:
        by_size[pixel_size(sdata, name)].append(name)
    diameters: dict[str, float] = {}
    for um, names in by_size.items():
        diameter = estimate_diameter([detail[name] for name in names])
        if diameter is None:  # no signal, so no cells will be found
            diameters |= dict.fromkeys(names, MIN_DIAMETER)
            continue
        in_um = "" if um is None else f" ({diameter * um:.1f} um)"
        if progress:
            images_in_words = f"{len(names)} image{'s' * (len(names) > 1)}"
            logger.info(f"nuclear diameter: {diameter:g} pixels{in_um}, estimated from {images_in_words}")
        _warn_of_diameter(diameter, um, [images[name] for name in names])
        diameters |= dict.fromkeys(names, diameter)
    return diameters


def _warn_of_diameter(diameter: float, um: float | None, images: Sequence[NuclearImage]) -> None:
    """Warn if the estimate is unlikely to be the diameter of nuclei."""
    if um is not None:
        least, most = USUAL_DIAMETERS[0] / um, USUAL_DIAMETERS[1] / um
    else:
        shortest = min(min(image.pixels.sizes["y"], image.pixels.sizes["x"]) for image in images)
        least, most = MIN_DIAMETER, min(LARGEST_ESTIMATE, shortest / 3)
    if not least <= diameter <= most:
        names = listed(image.name for image in images)
        msg = (
            f"The estimated nuclear diameter, {diameter:g} pixels, is not between {least:.3g} and {most:.3g}. Check "
            f"{names}, or set it: diameter=..."
        )
        warnings.warn(msg, UserWarning, stacklevel=4)


def _warn_of_noise(image: NuclearImage, centres: np.ndarray, contrasts: np.ndarray) -> None:
    if not len(centres):
        return
    contrast = float(np.median(contrasts))
    if contrast < LEAST_CONTRAST:
        channels = list(image.channels)
        msg = (
            f"The {len(centres)} cells in image {image.name!r} may be noise in {channels}: their contrast is "
            f"{contrast:.1f}, below {LEAST_CONTRAST:g}. Check them, or choose images=[...]."
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
