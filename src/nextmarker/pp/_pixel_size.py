"""Sets the pixel size of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from spatialdata.transformations import Affine, Scale, get_transformation, remove_transformation, set_transformation

from nextmarker import _keys
from nextmarker._coordinates import between, check_plausible, is_micrometre, shared_systems
from nextmarker._regions import choose_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


def set_pixel_size(
    sdata: SpatialData, pixel_size: float | Mapping[str, float], *, images: Sequence[str] | str | None = None
) -> None:
    """Set the pixel size of images that were not read with `nm.io.read`, or correct it.

    Readers of other packages place an image in a coordinate system without stating whether it is in micrometres. All
    steps take the pixel size from the coordinate system `"micrometre"`, which this function adds to the images.
    spatialdata keeps it when images are cropped, joined, renamed or saved.

    Parameters
    ----------
    sdata
        Images.
    pixel_size
        Micrometres per pixel: a number, or a dict from image to number.
    images
        Images to which a single number applies; by default all.

    Returns
    -------
    None. Writes in place (if the object is backed by a store, only in memory until it is saved):

    `sdata.images[image]`
        The transformation to the coordinate system `"micrometre"`. Cells and masks of the image, if there are any, get
        it too. Pixels and other coordinate systems are not changed.
    `sdata.attrs["nextmarker_pixel_size"]`
        Micrometres per pixel, by image.

    Raises
    ------
    KeyError
        If an image does not exist.
    TypeError
        If a size is not a number.
    ValueError
        If a size is not between 0.01 and 100 micrometres. Nothing is changed then.

    Examples
    --------
    >>> import numpy as np, nextmarker as nm
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel
    >>> image = Image2DModel.parse(np.ones((1, 60, 80)), dims=("c", "y", "x"), c_coords=["DNA"])
    >>> sdata = SpatialData(images={"core": image})
    >>> nm.pp.set_pixel_size(sdata, 0.5)
    >>> sorted(sdata.coordinate_systems)
    ['global', 'micrometre']
    """
    sizes = _sizes(sdata, pixel_size, images)
    relations = {image: {name: _relation(sdata, name, image) for name in _parts(sdata, image)} for image in sizes}
    for image, size in sizes.items():
        _set(sdata, image, size, relations[image])
    sdata.attrs[_keys.PIXEL_SIZE] = {**sdata.attrs.get(_keys.PIXEL_SIZE, {}), **sizes}


def _sizes(
    sdata: SpatialData, pixel_size: float | Mapping[str, float], images: Sequence[str] | str | None
) -> dict[str, float]:
    if isinstance(pixel_size, Mapping):
        chosen = choose_images(sdata, list(pixel_size))
        given = {image: pixel_size[image] for image in chosen}
    else:
        given = dict.fromkeys(choose_images(sdata, images), pixel_size)
    for image, size in given.items():
        if isinstance(size, bool) or not isinstance(size, (int, float, np.number)):
            msg = f"The pixel size {size!r} of image {image!r} must be a number, in micrometres per pixel."
            raise TypeError(msg)
        check_plausible(size, f"image {image!r}", "as one number or one for each image")
    return {image: float(size) for image, size in given.items()}


def _set(sdata: SpatialData, image: str, size: float, relations: Mapping[str, np.ndarray]) -> None:
    scale = Scale([size, size], axes=("x", "y"))
    to_micrometre = {name: matrix * size for name, matrix in relations.items()}
    for name in (image, *to_micrometre):
        for system in list(filter(is_micrometre, get_transformation(sdata[name], get_all=True))):
            remove_transformation(sdata[name], system)
    set_transformation(sdata[image], scale, _keys.MICROMETRE)
    for name, matrix in to_micrometre.items():
        matrix[2, 2] = 1
        set_transformation(sdata[name], Affine(matrix, ("x", "y"), ("x", "y")), _keys.MICROMETRE)


def _relation(sdata: SpatialData, element: str, image: str) -> np.ndarray:
    """Affine matrix from an element to the pixels of its image, through the micrometre system only if necessary."""
    return between(sdata[element], sdata[image], shared_systems(sdata, element, image)[0])


def _parts(sdata: SpatialData, image: str) -> list[str]:
    """Masks, circles and other elements that belong only to this image, by name or coordinate system."""
    names = {f"{_keys.MASKS}_{image}"}
    for table in sdata.tables.values():
        if {_keys.REGION, _keys.IMAGE} <= set(table.obs):
            names |= set(table.obs.loc[table.obs[_keys.IMAGE] == image, _keys.REGION].dropna())
    elements = [*sdata.labels, *sdata.shapes, *sdata.points]
    return [
        name
        for name in elements
        if image in _images_of(sdata, name) and (name in names or len(_images_of(sdata, name)) == 1)
    ]


def _images_of(sdata: SpatialData, element: str) -> list[str]:
    """Images that share a coordinate system with an element, other than micrometres."""
    return [image for image in sdata.images if not all(map(is_micrometre, shared_systems(sdata, element, image)))]
