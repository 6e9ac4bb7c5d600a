"""Adds segmentation masks of other programs to the images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from spatialdata.models import Labels2DModel
from spatialdata.transformations import get_transformation

from nextmarker import _keys
from nextmarker._errors import check_value, no_such
from nextmarker._regions import choose_images, read_image
from nextmarker.pp._labels import label_centroids
from nextmarker.pp.sources.outlines import MASKS, Array, is_mask, mask_name, open_mask

if TYPE_CHECKING:
    import xarray as xr
    from spatialdata import SpatialData

Mask: TypeAlias = "str | Path | Array"


def add_masks(
    sdata: SpatialData, masks: Mask | Mapping[str, Mask], *, key_added: str = _keys.MASKS, overwrite: bool = False
) -> None:
    """Add the label masks of a segmentation, from files or arrays.

    Nextmarker needs no masks. Add them to compare its cells with those of a segmentation, by
    :func:`nextmarker.pp.integrate` and :func:`nextmarker.pp.match_cells`, or to use their centroids as cell centres:
    `nm.pp.add_cells(sdata, "masks")`.

    Parameters
    ----------
    sdata
        Images.
    masks
        A dict from image to its mask, or the mask of the only image. A mask is an array (y, x), a `.npy` file or a
        TIFF, with the height and width of its image. Each cell has its own number, and the background is zero. Files
        are read lazily.
    key_added
        First part of the names of the masks.
    overwrite
        Replace existing masks of these names.

    Returns
    -------
    None. Writes for each image `sdata.labels["<key_added>_<image>"]`, unsigned or signed integers (y, x), with the
    transformations of the image.

    Raises
    ------
    KeyError
        If an image or file does not exist.
    TypeError
        If a mask has another type.
    ValueError
        If one mask is given for several images, a file cannot be read, a mask does not have the size of its image or
        does not number the cells, or the name exists already. Nothing is changed then.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> mask = sdata["masks_tissue_1"].to_numpy()
    >>> nm.pp.add_masks(sdata, {"tissue_1": mask}, key_added="cellpose")
    >>> sdata["cellpose_tissue_1"].dims
    ('y', 'x')
    """
    if isinstance(masks, Mapping):
        by_image = {image: masks[image] for image in choose_images(sdata, list(masks))}
    else:
        images = choose_images(sdata, None)
        check_value("masks", type(masks).__name__, len(images) == 1, f"a dict with a mask for each of {images}")
        by_image = {images[0]: masks}
    names = {image: f"{key_added}_{image}" for image in by_image}
    _check_names(sdata, list(names.values()), overwrite=overwrite)
    elements = {names[image]: _read(sdata, image, mask) for image, mask in by_image.items()}
    for name, element in elements.items():
        sdata.labels[name] = element


def _check_names(sdata: SpatialData, names: list[str], *, overwrite: bool) -> None:
    """Raise an error for names of existing elements, except masks that may be replaced."""
    for name in names:
        if name in sdata and not (overwrite and name in sdata.labels):
            msg = f"sdata[{name!r}] exists already. Choose another name, key_added=..., or replace it: overwrite=True."
            raise ValueError(msg)


def _read(sdata: SpatialData, image: str, mask: Mask) -> xr.DataArray:
    pixels = read_image(sdata, image)
    labels = open_mask(_source(mask), image, (pixels.sizes["y"], pixels.sizes["x"]))
    label_centroids(labels, name=mask_name(image))  # raises an error unless it numbers the cells
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int32)
    return Labels2DModel.parse(
        labels.data, dims=("y", "x"), transformations=get_transformation(sdata.images[image], get_all=True)
    )


def _source(mask: Mask) -> Array | Path:
    source = Path(mask).expanduser() if isinstance(mask, str | Path) else mask
    if not is_mask(source):
        what = repr(str(mask)) if isinstance(source, Path) else f"A mask of type {type(mask).__name__}"
        msg = f"{what} cannot be read. Pass an array, or a file of type {', '.join(MASKS)}."
        raise TypeError(msg)
    if isinstance(source, Path) and not source.is_file():
        there = sorted(path.name for path in source.parent.glob(f"*{source.suffix}"))
        raise KeyError(no_such("file", source.name, f"{str(source.parent)!r}", there, "Choose another."))
    return source
