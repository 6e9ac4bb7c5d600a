"""Take cells from labels, shapes, points, tables and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from anndata import AnnData

from nextmarker import _keys
from nextmarker._cells import is_own_table, read_image, read_positions
from nextmarker._centres import label_centroids
from nextmarker._coordinates import apply, is_micrometre, shared_systems, to_pixels
from nextmarker._write_cells import check_target, choose_images, write_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

Source: TypeAlias = "str | Path | pd.DataFrame | AnnData"

LONE_RADIUS = 5.0


def add_cells(
    sdata: SpatialData,
    cells: Source | Mapping[str, Source],
    *,
    images: Sequence[str] | str | None = None,
    markers: Sequence[str] | str | None = None,
    key_added: str = _keys.CELLS,
    table_key: str = _keys.TABLE,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Take cell centres from what is there already: a segmentation, other shapes, points, a table or a CSV file.

    Parameters
    ----------
    sdata
        Images of raw counts.
    cells
        One of

        - the name of an element of `sdata.labels` or `sdata.shapes` (centroids) or `sdata.points`, which is brought
          into the pixels of its image by the coordinate system that both are in;
        - what such names have in common, if each image has an element: `"masks"` for `masks_a` and `b_masks`;
        - the name of a table in `sdata.tables`, or an AnnData object, with (x, y) in `obsm["spatial"]` and, if there
          are several images, their names in `obs["image"]`;
        - a DataFrame, or the path of a CSV file, with columns `x`, `y` and, if there are several images, `image`;
        - a dict of these, by image.

        Tables, DataFrames and files hold pixels as scikit-image's `regionprops` gives them, where (0, 0) is the
        middle of the first pixel. SpatialData has (0.5, 0.5) there, so half a pixel is added.
    images
        Images that the cells belong to; by default those that `cells` names, or else all.
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
    Nothing; writes in place what :func:`nextmarker.pp.detect_cells` writes, and in `obs["source_id"]` the label or the
    index that each cell had in `cells`, int or str. The record is `uns["nextmarker"]["add_cells"]`.

    Raises
    ------
    KeyError
        If an image, or what `cells` names, does not exist.
    TypeError
        If `cells` is something else.
    ValueError
        If there are no images or no cells, centres are NaN or outside of their image, it is not clear which image an
        element belongs to, panels differ, or the names are taken. Nothing is changed then.

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
    if images is None and isinstance(cells, Mapping):
        images = list(cells)
    chosen = choose_images(sdata, images)
    centres = _read_centres(sdata, cells, chosen)
    target = check_target(sdata, list(centres), markers, key_added=key_added, table_key=table_key, overwrite=overwrite)
    for image, frame in centres.items():
        _check_inside(read_image(sdata, image), image, frame)
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
    sdata: SpatialData, cells: Source | Mapping[str, Source], images: list[str]
) -> dict[str, pd.DataFrame]:
    """Read `x` and `y` of each image in its intrinsic coordinates, float64, with the index they have at the source."""
    if not isinstance(cells, Mapping):
        if isinstance(cells, str) and (elements := _elements_by_image(sdata, cells, images)):
            return {image: _from_element(sdata, name, image) for image, name in elements.items()}
        return _split(_from_table(sdata, cells), images)
    missing = [image for image in images if image not in cells]
    if missing:
        msg = (
            f"cells has no entry for the images {missing}; it has {sorted(cells)}. Choose with images={sorted(cells)}."
        )
        raise KeyError(msg)
    return {image: _from_one(sdata, cells[image], image) for image in images}


def _from_one(sdata: SpatialData, source: Source, image: str) -> pd.DataFrame:
    if isinstance(source, str) and source in _spatial_elements(sdata):
        return _from_element(sdata, source, image)
    return _from_table(sdata, source)


def _spatial_elements(sdata: SpatialData) -> set[str]:
    return {*sdata.labels, *sdata.shapes, *sdata.points}


def _elements_by_image(sdata: SpatialData, name: str, images: list[str]) -> dict[str, str]:
    """Match images to an element, or to the elements that share a part of their names; empty if there is none."""
    elements = _spatial_elements(sdata)
    if name in elements:
        return {_image_of(sdata, name, images): name}
    matches = {image: [e for e in (f"{name}_{image}", f"{image}_{name}") if e in elements] for image in images}
    if not any(matches.values()):
        return {}
    unclear = {image: found for image, found in matches.items() if len(found) != 1}
    if unclear:
        msg = (
            f"{name!r} does not name one element for each image: {unclear}. Name them, "
            f"nm.pp.add_cells(sdata, {{{images[0]!r}: ...}}), or choose images with images=[...]."
        )
        raise ValueError(msg)
    return {image: found for image, (found,) in matches.items()}


def _image_of(sdata: SpatialData, element: str, images: list[str]) -> str:
    """Find the one image that shares a coordinate system with an element, or, of several, the one in its name."""
    shared = {image: shared_systems(sdata, element, image) for image in images}
    # all images are in the system in micrometres, which relates an element to none in particular
    candidates = [image for image in images if not all(map(is_micrometre, shared[image]))]
    candidates = candidates or [image for image in images if shared[image]]
    if len(candidates) > 1:
        candidates = [i for i in candidates if element.startswith(f"{i}_") or element.endswith(f"_{i}")]
    if len(candidates) != 1:
        msg = (
            f"It is not clear which of the images {images} the cells of {element!r} belong to. "
            f"Say it: nm.pp.add_cells(sdata, {{{images[0]!r}: {element!r}}})."
        )
        raise ValueError(msg)
    return candidates[0]


def _from_element(sdata: SpatialData, name: str, image: str) -> pd.DataFrame:
    """Read the centres of labels, shapes or points, and bring them into the pixels of an image."""
    matrix = to_pixels(sdata, name, image)
    if name in sdata.labels:
        ids, xy = label_centroids(_full_resolution(sdata.labels[name], name))
    elif name in sdata.shapes:
        centroids = sdata.shapes[name].geometry.centroid
        ids, xy = centroids.index, np.column_stack([centroids.x, centroids.y])
    else:
        points = sdata.points[name][["x", "y"]].compute()
        ids, xy = points.index, points.to_numpy()
    return pd.DataFrame(apply(matrix, xy), index=ids, columns=["x", "y"], dtype=np.float64)


def _full_resolution(labels: xr.DataArray | xr.DataTree, name: str) -> xr.DataArray:
    if isinstance(labels, xr.DataTree):
        labels = next(iter(labels["scale0"].data_vars.values()))
    if set(labels.dims) != {"y", "x"}:
        msg = f"The labels {name!r} have the dimensions {labels.dims}; cells need labels in y and x."
        raise ValueError(msg)
    return labels.transpose("y", "x")


def _from_table(sdata: SpatialData, source: Source) -> pd.DataFrame:
    """Read `x` and `y`, pixels from the middle of the first pixel, and `image` where there is one."""
    if isinstance(source, str) and source in sdata.tables:
        source = sdata.tables[source]
    if isinstance(source, str | Path):
        source = _read_csv(sdata, source)
    if isinstance(source, AnnData) and is_own_table(source):
        return read_positions(sdata, source)
    if isinstance(source, AnnData):
        source = _positions(source)
    if not isinstance(source, pd.DataFrame):
        kind = type(source).__name__
        msg = f"cells must be a name, a path, a DataFrame, AnnData or a dict of these by image, not {kind}."
        raise TypeError(msg)
    missing = [column for column in ("x", "y") if column not in source]
    if missing:
        msg = f"The table of cells lacks the columns {missing}; it has {list(source.columns)}. Rename its columns."
        raise ValueError(msg)
    index = source["label"] if "label" in source else source.index
    frame = source[["x", "y"]].apply(pd.to_numeric, errors="coerce").astype(np.float64) + 0.5
    return frame.assign(**{_keys.IMAGE: source[_keys.IMAGE]} if _keys.IMAGE in source else {}).set_axis(index)


def _read_csv(sdata: SpatialData, path: str | Path) -> pd.DataFrame:
    if not Path(path).is_file():
        there = sorted({*_spatial_elements(sdata), *sdata.tables}) or "nothing"
        msg = f"No {str(path)!r}: neither a file, nor among the labels, shapes, points and tables, which are {there}."
        raise KeyError(msg)
    try:
        return pd.read_csv(path)
    except ValueError as error:  # pandas' own errors for files that are no tables, and for other encodings, are these
        msg = f"{str(path)!r} cannot be read as a CSV file: {error}"
        raise ValueError(msg) from error


def _positions(adata: AnnData) -> pd.DataFrame:
    if _keys.SPATIAL not in adata.obsm:
        msg = f"No 'spatial' in .obsm of the table of cells, which holds {sorted(adata.obsm) or 'nothing'}."
        raise KeyError(msg)
    frame = pd.DataFrame(np.asarray(adata.obsm[_keys.SPATIAL])[:, :2], index=adata.obs_names, columns=["x", "y"])
    return frame.assign(image=adata.obs[_keys.IMAGE]) if _keys.IMAGE in adata.obs else frame


def _split(frame: pd.DataFrame, images: list[str]) -> dict[str, pd.DataFrame]:
    """Divide the cells of a table by image."""
    if _keys.IMAGE not in frame:
        if len(images) == 1:
            return {images[0]: frame}
        msg = (
            f"The table of cells has no column 'image', and there are several images: {images}. Add the column, "
            f"or name one image: nm.pp.add_cells(sdata, ..., images={images[0]!r})."
        )
        raise ValueError(msg)
    unknown = sorted(set(frame[_keys.IMAGE].astype(str)) - set(images))
    if unknown:
        msg = (
            f"The table of cells names the images {unknown}, which are not among {images}. Correct its column 'image'."
        )
        raise ValueError(msg)
    return {image: frame[frame[_keys.IMAGE] == image] for image in images}


def _check_inside(pixels: xr.DataArray, image: str, frame: pd.DataFrame) -> None:
    width, height = pixels.sizes["x"], pixels.sizes["y"]
    inside = (frame["x"] >= 0) & (frame["x"] < width) & (frame["y"] >= 0) & (frame["y"] < height)
    if not inside.all():
        first = frame.index[~inside][0]
        msg = (
            f"{(~inside).sum()} of {len(frame)} centres are NaN or outside of image {image!r}, which is {width} pixels "
            f"wide and {height} high; the first is {first}. Remove them, or give x and y in pixels."
        )
        raise ValueError(msg)


def _ids(centres: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Names of the cells at their source: integers where all of them are, else strings."""
    if all(frame.index.dtype.kind in "iu" for frame in centres.values()):
        return {image: frame.index.to_numpy(np.int64) for image, frame in centres.items()}
    return {image: frame.index.map(str).to_numpy(object) for image, frame in centres.items()}


def _described(cells: Source | Mapping[str, Source]) -> str | dict[str, str]:
    if isinstance(cells, Mapping):
        return {image: str(_described(source)) for image, source in cells.items()}
    return str(cells) if isinstance(cells, str | Path) else type(cells).__name__
