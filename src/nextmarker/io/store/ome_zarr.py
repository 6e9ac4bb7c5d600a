"""Reads OME-Zarr images. The error for a plate or a collection lists its images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import zarr

from nextmarker.io._image import Image, Skipped
from nextmarker.io._names import name_channels
from nextmarker.io._pixel_size import Stated, check_square, stated_size
from nextmarker.io.store.pixels import FAULTS, METADATA, lazy_array, missing_chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OLD_AXES = "tczyx"  # default before format 0.3, which does not name the axes
AXES = {"t": "time points", "z": "z-planes"}


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store or part of one."""
    return path.is_dir() and (path.suffix == ".zarr" or any((path / name).is_file() for name in METADATA))


def is_spatialdata(path: Path) -> bool:
    """Whether a Zarr store holds a SpatialData object."""
    try:
        known = _attributes(path)
    except ValueError:
        return False
    return "multiscales" not in known and ("spatialdata_attrs" in known or (path / "images").is_dir())


def zarr_images(
    path: Path, channel_names: Sequence[str] | None, pixel_size: float | None
) -> tuple[list[Image], list[Skipped]]:
    """Read an OME-Zarr image, lazily.

    Raises
    ------
    ValueError
        If it is another kind of store, is damaged, or has time points or z-planes.
    """
    if is_spatialdata(path):
        msg = f"{path} is a Zarr store of SpatialData: spatialdata.read_zarr({str(path)!r})."
        raise ValueError(msg)
    known = _attributes(path)
    only = _images_in(path) if "bioformats2raw.layout" in known else []
    if len(only) == 1:
        known = _attributes(only[0])
    where = only[0] if len(only) == 1 else path
    _check_kind(where, known)
    try:
        image, skipped = _image(where, known, channel_names, pixel_size)
    except FAULTS as error:
        raise ValueError(_explained(where, error)) from error
    return [replace(image, name=_name(path), source=str(path))], skipped


def _attributes(path: Path) -> Mapping[str, Any]:
    """Read the metadata of a group; since format 0.5 in "ome"."""
    if not any((path / name).is_file() for name in METADATA):
        msg = f"{path} is not complete: it lacks {' or '.join(METADATA[:3])}. Copy it again."
        raise ValueError(msg)
    try:
        node = zarr.open(path, mode="r")
    except FAULTS as error:
        raise ValueError(_explained(path, error)) from error
    if isinstance(node, zarr.Array):
        msg = f"{path} is one resolution of an image: read {str(path.parent)!r}."
        raise ValueError(msg)
    known = node.attrs.asdict()
    inner = known.get("ome")
    return {**known, **inner} if isinstance(inner, dict) else known


def _explained(path: Path, error: Exception) -> str:
    ours = type(error) is ValueError and str(error).startswith(str(path))
    return str(error) if ours else f"{path} is damaged: its metadata cannot be read ({error!r})."


def _check_kind(path: Path, known: Mapping[str, Any]) -> None:
    """Raise an error if this is not an image, and list the images in it."""
    if "image-label" in known:
        kind = "masks, not an image"
    elif "multiscales" in known:
        return
    elif "plate" in known:
        kind = "a plate of several wells"
    elif "well" in known:
        kind = "a well with several fields of view"
    elif "bioformats2raw.layout" in known:
        kind = "a collection of several images"
    elif "labels" in known:
        kind = "a group of masks, not an image"
    else:
        kind = "a Zarr store, but not an OME-Zarr image"
    parts = _images_in(path, depth=3)[:3]
    way = f"Name the images in it: nm.io.read({[str(part) for part in parts]})." if parts else "Name the image itself."
    msg = f"{path} is {kind}. {way}"
    raise ValueError(msg)


def _images_in(path: Path, depth: int = 1) -> list[Path]:
    """Find the images in a collection (one level down) or a plate (up to three)."""
    found: list[Path] = []
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and is_zarr(entry)):
        try:
            known = _attributes(folder)
        except ValueError:
            continue
        if "multiscales" in known and "image-label" not in known:
            found.append(folder)
        elif depth > 1:
            found += _images_in(folder, depth - 1)
    return found


def _image(
    path: Path, known: Mapping[str, Any], channel_names: Sequence[str] | None, pixel_size: float | None
) -> tuple[Image, list[Skipped]]:
    multiscale = known["multiscales"][0]
    level = multiscale["datasets"][0]  # full resolution first
    folder = _within(path, str(level["path"]))
    array = lazy_array(folder)
    axes = _axes(path, multiscale, array.ndim)
    pixels = _flat(path, array, [name for name, _ in axes])
    size, remarks = _pixel_size(path, axes, [multiscale, level], pixel_size)
    empty = missing_chunks(folder)
    labels = _labels(known)
    image = Image(
        path.name,
        pixels,
        name_channels(str(path), len(pixels), labels, channel_names),
        size,
        originals=labels if channel_names is not None and labels and len(labels) == len(pixels) else None,
        source=str(path),
        remarks=(*remarks, *([empty] if empty else [])),
    )
    return image, _left_out(path, known)


def _left_out(path: Path, known: Mapping[str, Any]) -> list[Skipped]:
    skipped = []
    if len(known["multiscales"]) > 1:
        skipped.append(Skipped(f"{path}: further multiscales", "only the first image of a group is read"))
    if (path / "labels").is_dir():
        skipped.append(Skipped(str(path / "labels"), "masks: not read with the image", expected=True))
    return skipped


def _within(path: Path, part: str) -> Path:
    if not part or ".." in Path(part).parts or Path(part).is_absolute():
        msg = f"{path} has its pixels outside of the store, in {part!r}, which is not allowed."
        raise ValueError(msg)
    return path / part


def _axes(path: Path, multiscale: Mapping[str, Any], ndim: int) -> list[tuple[str, str | None]]:
    """Name and unit of each axis."""
    axes = multiscale.get("axes") or list(OLD_AXES)
    found = [(axis, None) if isinstance(axis, str) else (str(axis["name"]), axis.get("unit")) for axis in axes]
    names = [name.lower() for name, _ in found]
    if len(names) != ndim or len(set(names)) != ndim or not {"y", "x"} <= set(names):
        msg = f"{path} has the axes {names} for {ndim} dimensions; c, y and x are needed."
        raise ValueError(msg)
    return [(name, unit if isinstance(unit, str) else None) for name, (_, unit) in zip(names, found, strict=True)]


def _flat(path: Path, array: da.Array, names: Sequence[str]) -> da.Array:
    """Pixels as (c, y, x); other axes must have the length 1."""
    longer = [
        f"{n} {AXES.get(name, name)}" for name, n in zip(names, array.shape, strict=True) if n > 1 and name not in "cyx"
    ]
    if longer:
        msg = f"{path} has {' x '.join(longer)}, not only c, y and x. Save one plane or a projection."
        raise ValueError(msg)
    kept = [name for name in names if name in ("c", "y", "x")]
    pixels = array[tuple(slice(None) if name in kept else 0 for name in names)]
    if "c" not in kept:
        kept, pixels = ["c", *kept], pixels[None]
    return pixels.transpose([kept.index(name) for name in "cyx"])


def _pixel_size(
    path: Path, axes: Sequence[tuple[str, str | None]], parts: Sequence[Mapping[str, Any]], pixel_size: float | None
) -> tuple[float | None, tuple[str, ...]]:
    if pixel_size is not None:
        return float(pixel_size), ()
    stated = _stated(axes, parts)
    return check_square(stated.size, path) if stated.size else None, (stated.note,) if stated.note else ()


def _stated(axes: Sequence[tuple[str, str | None]], parts: Sequence[Mapping[str, Any]]) -> Stated:
    """Pixel size: the scale of the image times that of its full resolution, in the units of the axes."""
    scale = [1.0] * len(axes)
    for part in parts:
        for step in part.get("coordinateTransformations") or []:
            if step.get("type") == "scale" and len(step.get("scale", ())) == len(axes):
                scale = [size * float(factor) for size, factor in zip(scale, step["scale"], strict=True)]
    sizes = {name: size for size, (name, _) in zip(scale, axes, strict=True)}
    units = dict(axes)
    if not units["x"] and not units["y"]:
        unused = (sizes["x"], sizes["y"]) != (1, 1)
        return Stated(note="the pixel size in its metadata is not used: it has no unit") if unused else Stated()
    return stated_size((str(sizes["x"]), str(sizes["y"])), (units["x"], units["y"]))


def _labels(known: Mapping[str, Any]) -> tuple[str, ...] | None:
    omero = known.get("omero")
    channels = omero.get("channels", []) if isinstance(omero, dict) else []
    labels = tuple(str(channel.get("label", "")).strip() for channel in channels)
    return labels if any(labels) else None


def _name(path: Path) -> str:
    """Name of the store and of the part in it."""
    path = path.resolve()
    root = next((folder for folder in (path, *path.parents) if folder.suffix == ".zarr"), path)
    stem = root.name.removesuffix(".zarr").removesuffix(".ome")
    return "_".join([stem, *path.relative_to(root).parts])
