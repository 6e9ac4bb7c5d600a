"""Put a finished store in the place of an old one, so that a stop at any moment leaves one of the two."""

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

_MARK = "nextmarker"  # a file that tells the folders made here from those of others
_REPLACED = "replaced"
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to write into; it is gone afterwards.

    The folder is new, with a name that nobody can foresee, and private: a link or a folder that somebody else put
    there is never written to. What killed writers left beside `target` is removed.

    Raises
    ------
    BlockingIOError
        If another process is writing to `target`.
    PermissionError
        If nothing can be written beside `target`.
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
    """Move `new`, in the folder given by `unfinished`, to `target`; an old store comes where `new` was.

    Raises
    ------
    FileExistsError
        If something came to be at `target` in the meantime that may not be replaced.
    """
    if not os.path.lexists(target):
        _move(new, target)
    elif not overwrite or target.is_symlink() or not is_store(target):
        raise _taken(target)
    elif not _exchange(new, target):
        target.rename(new.with_name(_REPLACED))
        _move(new, target)


def recover(target: Path) -> None:
    """Put a store back that a write, killed on a system that cannot exchange folders, had moved aside."""
    target = Path(os.path.realpath(target))
    if not os.path.lexists(target) and target.parent.is_dir() and any(_leftovers(target)):
        with suppress(OSError), unfinished(target):
            pass


def is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr store, of format 3 or 2."""
    return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Let one process at a time write to a target; the system releases the lock of one that dies."""
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    if path.is_symlink():
        msg = f"{str(path)!r} is a link, and would be the lock of {target.name!r}: remove it, or choose another path."
        raise PermissionError(msg)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        msg = f"{str(target)!r} is being written by another process: wait for it, or choose another name."
        raise BlockingIOError(msg) from error
    except OSError as error:
        raise not_writable(target.parent, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            if path.stat().st_size == 0:  # removed before it is released: who waits for it finds it gone, and stops
                path.unlink()
        lock.release()


def _clear_leftovers(target: Path) -> None:
    for folder in _leftovers(target):
        _put_back(folder, target)
        _empty(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _empty(folder: Path) -> None:
    """Remove all but the mark: whoever is killed on the way leaves a folder that is known again."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != _MARK:
            entry.unlink()


def _leftovers(target: Path) -> Iterator[Path]:
    """Folders made by `unfinished` for this target and user; with the lock held, their writers are dead."""
    name = re.compile(rf"\.{re.escape(target.name)}\.\w{{8}}{re.escape(SUFFIX)}")
    for entry in list(target.parent.iterdir()):
        if name.fullmatch(entry.name) and _is_ours(entry):
            yield entry


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    user = os.getuid() if hasattr(os, "getuid") else status.st_uid
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != user:
        return False
    return (folder / _MARK).is_file() or not any(folder.iterdir())  # killed before it could be marked


def _put_back(folder: Path, target: Path) -> None:
    """Undo the first of two moves where the second is missing."""
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
    """Let two folders swap their names in a single step, and tell whether the system could."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    paths = (_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other))
    return libc.renameat2(*paths, _EXCHANGE) == 0
