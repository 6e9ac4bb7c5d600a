"""Detects that a Zarr store was moved, removed or partly lost after it was opened; zarr itself returns zeros."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

CHUNK_FILES = "nextmarker_chunk_files"
"""Attribute of an array written by `nm.io.write`: its number of chunk files. zarr writes none for chunks of zeros."""

AGAIN = "Read the store again from its present path: spatialdata.read_zarr(path)."

METADATA = {2: ".zarray", 3: "zarr.json"}


def check_there(name: str, pixels: xr.DataArray) -> None:
    """Raise an error if a Zarr array from which an element is read does not exist. Fast enough to be called per tile.

    Raises
    ------
    FileNotFoundError
        If an array does not exist.
    """
    for array in _arrays(pixels):
        folder = _folder(array)
        if not (folder / METADATA[array.metadata.zarr_format]).is_file():
            msg = f"{name!r} is read from {str(folder)!r}, which was moved or removed. {AGAIN}"
            raise FileNotFoundError(msg)


def check_whole(name: str, pixels: xr.DataArray) -> None:
    """Raise an error if a Zarr array from which an element is read is missing, was replaced, or has lost chunks.

    Lost chunks are detected in arrays written by `nm.io.write`, which stores the number of their files.

    Raises
    ------
    FileNotFoundError
        If an array does not exist, or has fewer files than were written.
    ValueError
        If it was replaced by an array with another shape, type or chunks.
    """
    check_there(name, pixels)
    for array in _arrays(pixels):
        folder = _folder(array)
        if _stored_form(folder) != _form(array):
            msg = f"{name!r} is read from {str(folder)!r}, which was replaced since it was opened. {AGAIN}"
            raise ValueError(msg)
        written = int(array.attrs.get(CHUNK_FILES, 0))  # type: ignore[call-overload, arg-type]
        lost = written - count_chunk_files(folder) if written else 0
        if lost > 0:
            lack = f"lost {lost} of its {written} files"
            msg = f"{name!r} is read from {str(folder)!r}, which has {lack}. Copy the store again."
            raise FileNotFoundError(msg)


def count_chunk_files(folder: Path) -> int:
    """Count the files of an array that hold its chunks."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(name != METADATA[3] and not name.startswith(".") for name in names)


def _arrays(pixels: xr.DataArray) -> Iterator[zarr.Array]:
    """Local Zarr arrays from which lazy pixels are computed; dask has a layer for each."""
    layers = getattr(pixels.data, "dask", {})
    for layer, content in getattr(layers, "layers", {}).items():
        if layer.startswith("original-"):
            for value in content.values():
                array = getattr(value, "value", value)
                if isinstance(array, zarr.Array) and _root(array.store) is not None:
                    yield array


def _root(store: Any) -> Path | None:
    """Folder of a store; None if it is not on a local disk."""
    if isinstance(store, LocalStore):
        return store.root
    files = getattr(getattr(store, "fs", None), "sync_fs", None)  # the store that dask uses for a path
    return Path(store.path) if "file" in getattr(files, "protocol", ()) else None


def _folder(array: zarr.Array) -> Path:
    return Path(str(_root(array.store)), array.path).absolute()


def _stored_form(folder: Path) -> dict[str, object]:
    try:
        return _form(zarr.open_array(folder, mode="r"))
    except (ValueError, KeyError, TypeError):  # no longer an array, or damaged
        return {}


def _form(array: zarr.Array) -> dict[str, object]:
    """Metadata that determine how the chunks of an array are read."""
    return {key: value for key, value in array.metadata.to_dict().items() if key != "attributes"}
