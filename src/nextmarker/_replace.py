"""Checks the place of a store, and replaces it so that an interruption at any moment leaves the old or the new one."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from nextmarker._files import SUFFIX, full_disk_told, not_writable, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "nextmarker"  # a file that marks the folders made here
_REPLACED = "replaced"
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def resolved(path: str | Path) -> Path:
    """Resolve links in a path.

    Raises
    ------
    TypeError
        If it is not a path.
    """
    if not isinstance(path, (str, Path)):
        msg = f"path is of type {type(path).__name__}: nm.io.write(sdata, 'slides.zarr')."
        raise TypeError(msg)
    return Path(os.path.realpath(Path(path).expanduser()))  # circular links


def check_place(target: Path, *, overwrite: bool, path: str = "path", replace: str = "overwrite=True") -> None:
    """Raise an error if a store cannot be written here; first put back what a killed write moved aside.

    Parameters
    ----------
    target
        Path from `resolved`.
    overwrite
        Whether an existing store may be replaced.
    path, replace
        Names of the path and of the option to replace it, for messages.

    Raises
    ------
    FileExistsError
        If something exists there that may not be replaced.
    FileNotFoundError
        If its folder does not exist.
    PermissionError
        If the existing store cannot be replaced.
    ValueError
        If the path is inside a store.
    """
    if not target.parent.is_dir():
        msg = f"No folder {str(target.parent)!r}: create it, or choose another {path}."
        raise FileNotFoundError(msg)
    around = next((folder for folder in target.parents if is_store(folder)), None)
    if around is not None:
        msg = f"{str(target)!r} is inside the Zarr store {str(around)!r}: choose another {path}."
        raise ValueError(msg)
    recover(target)
    if not os.path.lexists(target):
        return
    if not is_store(target):
        msg = f"{str(target)!r} exists and is not a Zarr store: choose another {path}."
        raise FileExistsError(msg)
    if not overwrite:
        msg = f"{str(target)!r} exists already: choose another {path}, or replace it with {replace}."
        raise FileExistsError(msg)
    if os.path.ismount(target) or not os.access(target, os.W_OK):
        msg = f"{str(target)!r} is read-only or a mount point: choose another {path}."
        raise PermissionError(msg)


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Provide an empty folder next to `target` to write into, and remove it afterwards.

    The folder is new and private, with a name that cannot be guessed, so links or folders of others are never written
    to. Folders left by killed writers are removed.

    Raises
    ------
    BlockingIOError
        If another process is writing to `target`.
    PermissionError
        If the folder of `target` is not writable.
    OSError
        If the disk is full.
    """
    with full_disk_told(target.parent), _locked(target):
        _clear_leftovers(target)
        with private_folder(target.parent, f".{target.name}.") as folder:
            try:
                (folder / _MARK).touch()
                yield folder
            finally:
                _put_back(folder, target)
                _empty(folder)


def put_in_place(new: Path, target: Path, *, overwrite: bool) -> None:
    """Move `new`, from the folder of `unfinished`, to `target`; an old store takes the place of `new`.

    Raises
    ------
    FileExistsError
        If something has appeared at `target` that may not be replaced.
    """
    if not os.path.lexists(target):
        _move(new, target)
    elif not overwrite or target.is_symlink() or not is_store(target):
        raise _taken(target)
    elif not _exchange(new, target):
        target.rename(new.with_name(_REPLACED))
        _move(new, target)


def recover(target: Path) -> None:
    """Put back a store that a killed write had moved aside, on a system that cannot exchange folders."""
    target = Path(os.path.realpath(target))
    if not os.path.lexists(target) and target.parent.is_dir() and any(_leftovers(target)):
        with suppress(OSError), unfinished(target):
            pass


def is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr store, of format 3 or 2."""
    return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()


def is_being_written(target: Path) -> bool:
    """Whether a process is writing to a target."""
    path = _lock_of(target)
    if not path.is_file() or path.is_symlink():
        return False
    try:
        with FileLock(path, blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to lock
        return False


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let only one process write to a target; if it dies, the system releases its lock."""
    path = _lock_of(target)
    lock = FileLock(path)
    if path.is_symlink():
        msg = f"{str(path)!r} is a link in the place of our lock: remove it, or choose another path."
        raise PermissionError(msg)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        msg = f"Another process is writing {str(target)!r}: wait, or choose another path."
        raise BlockingIOError(msg) from error
    except OSError as error:
        raise not_writable(target.parent, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if path.stat().st_size == 0:  # removed before release, so a waiting process finds it missing and stops
                path.unlink()
        lock.release()


def _clear_leftovers(target: Path) -> None:
    for folder in _leftovers(target):
        _put_back(folder, target)
        _empty(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove everything but the mark, so that a folder left by a kill can still be recognised."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _MARK:
            entry.unlink()


def _leftovers(target: Path) -> Iterator[Path]:
    """Find folders made by `unfinished` for this target and user. Since the lock is held, their writers are dead."""
    name = re.compile(rf"\.{re.escape(target.name)}\.\w{{8}}{re.escape(SUFFIX)}")
    for entry in list(target.parent.iterdir()):
        if name.fullmatch(entry.name) and _is_ours(entry):
            yield entry


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
        return False
    return (folder / _MARK).is_file() or not any(folder.iterdir())  # killed before it was marked


def _put_back(folder: Path, target: Path) -> None:
    """Undo the first of two moves if the second was not made."""
    if (folder / _REPLACED).exists() and not os.path.lexists(target):
        (folder / _REPLACED).rename(target)


def _move(new: Path, target: Path) -> None:
    try:
        new.rename(target)
    except OSError as error:
        if not os.path.lexists(target):
            raise
        raise _taken(target) from error


def _taken(target: Path) -> FileExistsError:
    return FileExistsError(
        f"{str(target)!r} is there by now: choose another path, or replace it with overwrite=True if it is a store."
    )


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step; return whether the system can do so."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    paths = (_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other))
    return libc.renameat2(*paths, _EXCHANGE) == 0
