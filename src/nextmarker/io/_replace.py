"""Put a finished file or folder in the place of an old one, so that a stop at any moment leaves one of the two."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator

_REPLACED = "replaced"
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target` to write into, ``.<name>.unfinished``; it is gone afterwards.

    What a killed writer left there is removed.

    Raises
    ------
    BlockingIOError
        If another process is writing to `target`.
    PermissionError
        If nothing can be written beside `target`.
    """
    folder = target.with_name(f".{target.name}.unfinished")
    lock = FileLock(folder / "lock")
    try:
        folder.mkdir(exist_ok=True)
        lock.acquire(blocking=False)  # the system releases it when its process dies
    except Timeout as error:
        msg = f"{str(target)!r} is being written by another process: wait for it, or choose another name."
        raise BlockingIOError(msg) from error
    except OSError as error:
        msg = f"Cannot write into {str(target.parent)!r} ({error.strerror}): choose another folder."
        raise PermissionError(msg) from error
    try:
        _clear(folder, target)
        yield folder
    finally:
        _clear(folder, target)
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def put_in_place(new: Path, target: Path, *, overwrite: bool) -> None:
    """Move `new`, in the folder given by `unfinished`, to `target`; an old one comes where `new` was.

    Raises
    ------
    FileExistsError
        If something came to be at `target` in the meantime, and `overwrite` is not set.
    """
    if not target.exists():
        new.rename(target)
    elif not overwrite:
        msg = f"{str(target)!r} is there by now: choose another path, or replace it with overwrite=True."
        raise FileExistsError(msg)
    elif not _exchange(new, target):
        target.rename(new.with_name(_REPLACED))
        new.rename(target)


def _clear(folder: Path, target: Path) -> None:
    if (folder / _REPLACED).exists() and not target.exists():  # stopped between the two moves
        (folder / _REPLACED).rename(target)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders swap their names in a single step, and tell whether the system could."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "renameat2"):
        return False
    paths = (_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other))
    return libc.renameat2(*paths, _EXCHANGE) == 0


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write, and move it to `path` once it is complete."""
    draft = path.with_name(f".{path.name}.unfinished")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
