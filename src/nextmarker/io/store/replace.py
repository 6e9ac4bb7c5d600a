"""Replaces a store by a finished one, so that an interruption at any moment leaves one of the two."""

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


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let only one process write to a target; if it dies, the system releases its lock."""
    path = target.with_name(f".{target.name}.lock")
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
