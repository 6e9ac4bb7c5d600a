"""Writes SpatialData to a Zarr store: checked first, written next to the target, and then moved into place."""

from __future__ import annotations

import asyncio
import os
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import spatialdata
import zarr
from dask.base import tokenize
from dask.system import CPU_COUNT
from spatialdata import SpatialData, get_dask_backing_files
from spatialdata.models import get_axes_names
from spatialdata.transformations import get_transformation
from xarray import DataArray, DataTree
from zarr.core.sync import sync

from nextmarker._backing import CHUNK_FILES, check_whole, count_chunk_files
from nextmarker._progress import progress_bar
from nextmarker._replace import check_place, is_store, put_in_place, resolved, unfinished
from nextmarker.io.store.channels import describe_channels
from nextmarker.io.store.writable import any_text, check_writable

if TYPE_CHECKING:
    from collections.abc import Iterator

LAZY = ("images", "labels", "points")  # read lazily by spatialdata
KINDS = ("tables", "shapes", "points", "labels", "images")  # fast ones first


def write(sdata: SpatialData, path: str | Path, *, overwrite: bool = False, progress: bool = True) -> None:
    """Write a SpatialData object to a Zarr store, completely or not at all.

    Anything that spatialdata and anndata would reject or silently change is reported before writing starts. The store
    is written to a hidden, private folder next to the target, ``.<name>.<random>.unfinished``, and moved into place at
    the end. So an interruption at any moment, even a kill, leaves either the old store or the new one. A killed process
    leaves the hidden folder, which the next write to the same path removes. If `path` is a symbolic link, its target is
    written.

    With ``overwrite=True``, `sdata` can be written to the store from which it was read. Images, labels and points that
    have not changed are linked instead of copied, so saving new results takes seconds.

    Parameters
    ----------
    sdata
        Object to write.
    path
        Path of the store, usually ``*.zarr``.
    overwrite
        Replace an existing store.
    progress
        Show a progress bar.

    Returns
    -------
    None. Afterwards ``sdata`` is backed by ``path``, as after ``sdata.write``. Its elements do not change: those read
    lazily from image files are still read from there. Only elements that are lazily computed from the replaced store
    are read from the new one.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist, or a store or file from which elements are read is missing.
    FileExistsError
        If `path` exists and `overwrite` is not set, or if it is not a Zarr store.
    OSError
        If the folder is not writable, the disk is full, or another process is writing the same store.
    TypeError
        If `sdata` is not a SpatialData object, or `path` is not a path.
    ValueError
        If something cannot be written: values or names that the format does not support, or a table that does not match
        its shapes. All problems are listed, with their location and solution. Also if `path` is inside a store, or if
        `sdata` was read from it without all of its images, labels and points, which would be lost.

    Notes
    -----
    Each image that is written has the names of its channels, with colours and limits, in the place where OME-Zarr keeps
    them, so that viewers such as vizarr, Avivator and napari show them. spatialdata writes only the names.

    Examples
    --------
    >>> import tempfile, nextmarker as nm, spatialdata
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=50)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=6, progress=False)
    >>> folder = tempfile.TemporaryDirectory()
    >>> nm.io.write(sdata, f"{folder.name}/tissue.zarr", progress=False)
    >>> stored = spatialdata.read_zarr(f"{folder.name}/tissue.zarr")
    >>> stored["table"].obs["patient"] = "A"
    >>> nm.io.write(stored, f"{folder.name}/tissue.zarr", overwrite=True, progress=False)
    >>> folder.cleanup()
    """
    target = resolved(path)
    check_writable(sdata)
    check_place(target, overwrite=overwrite)
    _check_complete(sdata, target)
    _check_sources(sdata)
    with unfinished(target) as folder, _threads_ended():
        stale = _build(sdata, folder / "store", target, progress=progress)
        put_in_place(folder / "store", target, overwrite=overwrite)
    sdata.path = target
    _read_again(sdata, stale)


def _check_complete(sdata: SpatialData, target: Path) -> None:
    """Raise an error if elements of the old store, which were not read, would be lost."""
    if sdata.path is None or Path(sdata.path).resolve() != target or not is_store(target):
        return
    held = {f"{kind}/{name}" for kind in LAZY for name in getattr(sdata, kind)}
    lost = [place for place in sdata.elements_paths_on_disk() if place.split("/")[0] in LAZY and place not in held]
    if lost:
        msg = (
            f"{str(target)!r} has {sorted(lost)}, which sdata lacks. Read all of it, spatialdata.read_zarr(path), or "
            f"remove them: sdata.delete_element_from_disk({lost[0].split('/')[1]!r})."
        )
        raise ValueError(msg)


def _check_sources(sdata: SpatialData) -> None:
    """Raise an error for elements whose files are missing: zeros would be written instead."""
    for _, name, element in _lazy_elements(sdata):
        for pixels in _arrays(element):
            check_whole(name, pixels)
        gone = [file for file in get_dask_backing_files(element) if not Path(file).exists()]
        if gone:
            msg = f"{name!r} is read from {gone[0]!r}, which does not exist. Read it again from its present path."
            raise FileNotFoundError(msg)


def _build(sdata: SpatialData, store: Path, target: Path, *, progress: bool) -> list[tuple[str, str]]:
    """Write a complete store, and list the elements (kind and name) that are computed from the old one."""
    backed = [(kind, name) for kind, name, element in _lazy_elements(sdata) if _is_backed(element, target)]
    with warnings.catch_warnings(), any_text():
        warnings.filterwarnings("ignore", "zarr v3 autosharding")  # notes of anndata for developers, for each array
        SpatialData(attrs=sdata.attrs).write(store, consolidate_metadata=False)
        kept = _unchanged(sdata, target, backed) if _version(store) == _version(target) else []
        elements = {kind: dict(getattr(sdata, kind)) for kind in KINDS}
        # while writing, spatialdata removes the transformations from shapes, and loses them after an error
        elements["shapes"] = {name: frame.copy(deep=False) for name, frame in sdata.shapes.items()}
        new = SpatialData(**elements, attrs=sdata.attrs)
        new.path = store
        written = [(kind, name) for kind in KINDS for name in elements[kind] if (kind, name) not in kept]
        with progress_bar(len(written), "writing", "element", shown=progress) as bar:
            for kind, name in written:
                new.write_element(name)
                if kind in ("images", "labels"):
                    _note_chunk_files(store / kind / name)
                if kind == "images":
                    describe_channels(store / kind / name)
                bar.update()
        for kind, name in kept:
            _link(target / kind / name, store / kind / name)
        _list_labels(store, list(sdata.labels))
        new.write_consolidated_metadata()
    return [element for element in backed if element not in kept]


@contextmanager
def _threads_ended() -> Iterator[None]:
    """Wait for the threads of dask and zarr, which continue to write other chunks after an error in one."""
    try:
        with ThreadPoolExecutor(CPU_COUNT) as pool, dask.config.set(pool=pool):
            yield
    finally:
        sync(_tasks_ended())


async def _tasks_ended() -> None:
    """Wait for all tasks of zarr, in its event loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


def _lazy_elements(sdata: SpatialData) -> Iterator[tuple[str, str, Any]]:
    for kind in LAZY:
        for name, element in getattr(sdata, kind).items():
            yield kind, name, element


def _is_backed(element: Any, store: Path) -> bool:
    return any(Path(file).is_relative_to(store) for file in get_dask_backing_files(element))


def _unchanged(sdata: SpatialData, store: Path, backed: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of the elements read from a store, find those that have not changed."""
    if not backed:
        return []
    stored = _read_lazily(store)
    return [
        (kind, name)
        for kind, name in backed
        if name in getattr(stored, kind)
        and _fingerprint(getattr(stored, kind)[name]) == _fingerprint(getattr(sdata, kind)[name])
    ]


def _read_lazily(store: Path) -> SpatialData:
    """Read the lazy elements of a store, except damaged ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spatialdata.read_zarr(store, selection=LAZY, on_bad_files="warn")  # type: ignore[arg-type]


def _fingerprint(element: Any) -> tuple[Any, ...]:
    """Everything that a file stores of a lazy element; the name of a dask array identifies file and computation."""
    axes = tuple(axis for axis in get_axes_names(element) if axis != "c")
    transformations = {  # as matrices: spatialdata cannot compare scales of two and three axes
        system: transformation.to_affine_matrix(axes, axes).tolist()
        for system, transformation in get_transformation(element, get_all=True).items()
    }
    arrays = _arrays(element)
    if not arrays:
        return transformations, tokenize(element), element.attrs.get("spatialdata_attrs")
    channels = [array.coords["c"].to_numpy().tolist() for array in arrays if "c" in array.coords]
    return transformations, channels, [(array.dims, array.shape, tokenize(array.data)) for array in arrays]


def _arrays(element: Any) -> list[DataArray]:
    """Pixels of an image or of labels at each scale; empty for points."""
    if isinstance(element, DataTree):
        return [scale.ds[variable] for scale in element.children.values() for variable in scale.ds]
    return [element] if isinstance(element, DataArray) else []


def _version(store: Path) -> str | None:
    """Version of the spatialdata format; None if this is not a Zarr 3 store."""
    if not (store / "zarr.json").is_file():
        return None
    return zarr.open_group(store, mode="r").attrs.asdict().get("spatialdata_attrs", {}).get("version")  # type: ignore


def _link(source: Path, target: Path) -> None:
    zarr.open_group(target.parents[1], mode="r+", use_consolidated=False).require_group(target.parent.name)
    shutil.copytree(source, target, copy_function=_link_file)


def _link_file(source: str, target: str) -> None:
    """Make a hard link; metadata are copied, since they may be changed in place later."""
    if not source.endswith(".json"):
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            pass
        else:
            return
    shutil.copy2(source, target)


def _note_chunk_files(folder: Path) -> None:
    """Note in each array of an element how many files it has, so that a loss is noticed: see `_backing`."""
    for path in folder.glob("*/zarr.json"):
        zarr.open_array(path.parent, mode="r+").attrs[CHUNK_FILES] = count_chunk_files(path.parent)


def _list_labels(store: Path, names: list[str]) -> None:
    """OME-Zarr lists the labels of a store in their group; those that were linked are missing there."""
    if names:
        group = zarr.open_group(store / "labels", mode="r+", use_consolidated=False)
        group.attrs["ome"] = {**group.attrs.asdict().get("ome", {}), "labels": names}  # type: ignore[dict-item]


def _read_again(sdata: SpatialData, stale: list[tuple[str, str]]) -> None:
    """Let elements that were computed from the replaced store be read from the new one, where the result lies."""
    if not stale:
        return
    stored = _read_lazily(Path(sdata.path))  # type: ignore[arg-type]
    for kind, name in stale:
        getattr(sdata, kind)[name] = getattr(stored, kind)[name]
