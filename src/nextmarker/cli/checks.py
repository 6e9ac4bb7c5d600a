"""Checks before any work, without loading a large library: files, the name of the device, paths of results."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nextmarker._errors import check_value, no_path
from nextmarker._files import check_file_path
from nextmarker._replace import check_place, is_store, recover
from nextmarker.cli.places import STORE, places_of

DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


def check_images(images: Iterable[str]) -> None:
    """Raise an error for images that do not exist; first put back stores that a killed write moved aside.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    """
    for image in images:
        path = Path(image).expanduser()
        recover(path)
        if not path.exists():
            name_of_channel = not path.suffix and path.name == image
            fix = "If it is a channel, join names by commas: DNA1,DNA2." if name_of_channel else "Correct the path."
            raise no_path(path, "file or folder", fix)


def check_files(**files: str | None) -> None:
    """Raise an error for files of options that do not exist.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    for option, path in files.items():
        if path is not None and not Path(path).expanduser().is_file():
            raise no_path(Path(path).expanduser(), fix=f"Correct the path: --{option}.")


def check_device_name(device: str | None) -> None:
    """Raise an error for what cannot be a device; whether it exists is known after torch is loaded."""
    check_value("device", device, device is None or bool(DEVICE.fullmatch(device)), "cpu, cuda, cuda:1 or mps")


def check_store(path: str) -> Path:
    """Return the path of a store that exists; its ending may be left out.

    Raises
    ------
    FileNotFoundError
        If there is no store.
    """
    store = places_of(path, STORE)[STORE]
    recover(store)
    if not is_store(store):
        msg = f"{path!r} is not a store: make one with nextmarker run, or nextmarker embed."
        raise FileNotFoundError(msg)
    return store


def check_places(places: Mapping[str, Path], *, overwrite: bool) -> None:
    """Raise an error if results cannot be written to their paths.

    Parameters
    ----------
    places
        Path of each result, the main one first. `"store"` is a Zarr store, `"figures"` a folder on the same disk, all
        others files.

    Raises
    ------
    FileExistsError
        If something is there that may not be replaced.
    FileNotFoundError
        If a folder does not exist.
    IsADirectoryError
        If a folder is in the place of a file.
    PermissionError
        If a place is read-only, or the figures are on another disk.
    ValueError
        If the store would be inside another.
    """
    main, *_ = places.values()
    for name, path in places.items():
        if name == "store":
            check_place(path, overwrite=overwrite, path="-o", replace="--overwrite")
        elif name == "figures":
            _check_figures(path, main, overwrite=overwrite)
        else:
            _check_file(path, overwrite=overwrite)


def _check_figures(figures: Path, main: Path, *, overwrite: bool) -> None:
    """Raise an error if the figures cannot be moved to this folder."""
    if figures.is_dir():
        if figures.stat().st_dev != main.parent.stat().st_dev or not os.access(figures, os.W_OK):
            msg = f"{str(figures)!r} is read-only or on a different disk from {str(main)!r}: choose another -o."
            raise PermissionError(msg)
        if not overwrite:
            raise _exists(figures)
    elif os.path.lexists(figures) or not figures.parent.is_dir():
        msg = f"{str(figures)!r} is not a folder: choose another -o."
        raise FileExistsError(msg)


def _check_file(path: Path, *, overwrite: bool) -> None:
    """Raise an error if a file cannot be written here."""
    check_file_path(path)
    if os.path.lexists(path) and not overwrite:
        raise _exists(path)
    if not os.access(path.parent, os.W_OK):
        msg = f"Cannot write to {str(path.parent)!r}: choose another path."
        raise PermissionError(msg)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(f"{str(path)!r} exists already: choose another -o, or replace it with --overwrite.")
