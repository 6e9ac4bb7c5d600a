"""Find cells in nuclear channels."""

from __future__ import annotations

from collections import defaultdict
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from nextmarker import _keys
from nextmarker._cells import pixel_size, read_image
from nextmarker._centres import METHODS, Method, NuclearImage, estimate_diameter, find_nuclei
from nextmarker._write_cells import as_list, check_target, choose_images, write_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData

MIN_DIAMETER = 2.0


def detect_cells(
    sdata: SpatialData,
    nuclear: str | Sequence[str],
    *,
    method: Method = "maxima",
    diameter: float | None = None,
    images: Sequence[str] | str | None = None,
    markers: Sequence[str] | str | None = None,
    key_added: str = _keys.CELLS,
    table_key: str = _keys.TABLE,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Find cell centres in the nuclear channels, without segmentation.

    A centre must lie in the foreground: where the smoothed nuclear channel exceeds Otsu's threshold of its square
    roots, chosen for each image. The image is read in tiles; the result does not depend on their size.

    Parameters
    ----------
    sdata
        Images of raw counts, or of any other intensities from 0 upwards.
    nuclear
        One nuclear channel, used as it is, or several, which are divided by the 99th percentile of their nonzero
        pixels and summed.
    method
        - `"maxima"`: local maxima of the nuclear channel, smoothed by a Gaussian of a quarter of the diameter.
        - `"blobs"`: local maxima of the Laplacian of Gaussian that answers most to discs of this diameter; separates
          touching nuclei more often, and splits large ones more often.
        - `"threshold"`: centroids of the connected foreground, smoothed by an eighth of the diameter, without pieces
          smaller than a quarter of a nucleus. Nuclei that touch remain one.

        Centres of the first two are half a diameter apart or more.
    diameter
        Diameter of a nucleus in pixels. By default it is estimated from the scale at which the images show most
        detail, once for all images of one pixel size, and printed.
    images
        Images to look into; all by default.
    markers
        Channels of the table; by default all, and then all images must have the same.
    key_added
        Name of the circles.
    table_key
        Name of the table.
    overwrite
        Replace circles and table of these names.
    progress
        Show a bar.

    Returns
    -------
    Nothing; writes in place (a backed object is changed in memory only):

    `sdata.shapes["cells"]`, or `sdata.shapes["cells_<image>"]` if there are several images
        Circles around the centres, in pixels, with the transformations of the image. The radius is half the median
        distance between neighbouring centres.
    `sdata.tables["table"]`
        One table for all images. `X`: mean raw counts in the circle, float32 (cells, markers). `obs`: `region` (the
        circles), `instance_id`, `image`. `obsm["spatial"]`: (x, y), float64, in the coordinate system of the image,
        which is in micrometres where the pixel size is known. `uns["nextmarker"]["detect_cells"]`: the parameters.

    Raises
    ------
    KeyError
        If an image or a nuclear channel does not exist.
    ValueError
        If there are no images, no image has a cell, pixels are not finite, panels differ, or the names are taken.
        Nothing is changed then.

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
    >>> nm.pp.detect_cells(sdata, nuclear="DNA", diameter=12, progress=False)
    >>> sdata["table"].obsm["spatial"]
    array([[20.5, 30.5],
           [45.5, 30.5]])
    """
    chosen = choose_images(sdata, images)
    target = check_target(sdata, chosen, markers, key_added=key_added, table_key=table_key, overwrite=overwrite)
    channels = as_list(nuclear)
    _check_arguments(method, diameter, channels)
    pixels = {image: read_image(sdata, image) for image in target.images}
    for image in target.images:
        _check_channels(image, pixels[image]["c"].to_numpy().tolist(), channels)

    nuclear_images = {image: NuclearImage(image, pixels[image], channels) for image in target.images}
    if diameter is None:
        diameters = _estimate_diameters(sdata, nuclear_images)
    else:
        diameters = dict.fromkeys(target.images, float(diameter))
    centres = {
        image: find_nuclei(nuclear_images[image], method, diameters[image])
        for image in tqdm(target.images, desc="detecting cells", unit="image", disable=not progress)
    }
    write_cells(
        sdata,
        target,
        centres,
        step="detect_cells",
        parameters={"nuclear": np.array(channels, dtype=object), "method": method, "diameter": diameters},
        lone_radius={image: size / 2 for image, size in diameters.items()},
        progress=progress,
    )


def _check_arguments(method: str, diameter: float | None, channels: Sequence[str]) -> None:
    if method not in METHODS:
        msg = f"method={method!r} is none of {list(METHODS)}."
        raise ValueError(msg)
    if diameter is not None and not MIN_DIAMETER <= diameter < np.inf:
        msg = f"diameter={diameter} must be the diameter of a nucleus in pixels, {MIN_DIAMETER:g} or more."
        raise ValueError(msg)
    if not channels or len(set(channels)) < len(channels):
        msg = f"nuclear={channels} must name one channel or more, each once."
        raise ValueError(msg)


def _check_channels(image: str, panel: list[str], channels: Sequence[str]) -> None:
    for channel in channels:
        if channel not in panel:
            close = get_close_matches(channel, panel)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            msg = f"No channel {channel!r} in image {image!r}, which has {panel}.{hint}"
            raise KeyError(msg)


def _estimate_diameters(sdata: SpatialData, images: Mapping[str, NuclearImage]) -> dict[str, float]:
    """Estimate one diameter for all images of one pixel size, and print it."""
    by_size = defaultdict(list)
    for name in images:
        by_size[pixel_size(sdata, name)].append(name)
    diameters: dict[str, float] = {}
    for um, names in by_size.items():
        diameter = estimate_diameter([images[name] for name in names])
        if diameter is None:  # no signal: no cells will be found, whatever their size
            diameters |= dict.fromkeys(names, MIN_DIAMETER)
            continue
        in_um = "" if um is None else f" ({diameter * um:.1f} um)"
        print(f"nuclear diameter: {diameter:g} pixels{in_um}, estimated from {len(names)} image(s)")
        diameters |= dict.fromkeys(names, diameter)
    return diameters
