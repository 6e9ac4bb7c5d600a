"""Writes files completely or not at all: in a private folder next to the target, then moved into place."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replaced_files(folder: Path) -> Iterator[Path]:
    """Provide a private folder to write files into, and move them into `folder` when all are complete.

    Raises
    ------
    PermissionError
        If `folder` is not writable.
    OSError
        If the disk is full.
    """
    with full_disk_told(folder), private_folder(folder, ".nextmarker.") as drafts:
        yield drafts
        for draft in drafts.iterdir():
            draft.replace(folder / draft.name)


def check_file_path(path: Path) -> None:
    """Raise an error for a path that cannot be that of a file.

    Raises
    ------
    FileNotFoundError
        If its folder does not exist.
    IsADirectoryError
        If it is a folder.
    """
    if not path.parent.is_dir():
        msg = f"No folder {str(path.parent)!r}: create it, or choose another path."
        raise FileNotFoundError(msg)
    if path.is_dir():
        msg = f"{str(path)!r} is a folder: choose another path, of a file."
        raise IsADirectoryError(msg)


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder that only this user can open, with a name that cannot be guessed, and remove it at the end.

    Raises
    ------
    PermissionError
        If `parent` is not writable.
    """
    try:
        folder = Path(tempfile.mkdtemp(suffix=SUFFIX, prefix=prefix, dir=parent))
    except OSError as error:
        raise not_writable(parent, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def not_writable(folder: Path, error: OSError) -> OSError:
    """The error to raise if a folder is not writable."""
    if error.errno in _FULL:
        return error
    return PermissionError(f"Cannot write to {str(folder)!r} ({error.strerror}): choose another folder.")


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """If an error was caused by a full disk, raise one that names the folder instead.

    Raises
    ------
    OSError
        If the disk is full.
    """
    try:
        yield
    except Exception as error:
        code = next((cause.errno for cause in _causes(error) if isinstance(cause, OSError) and cause.errno in _FULL), 0)
        if not code:
            raise
        msg = f"{os.strerror(code)}: the disk of {str(folder)!r} is full, and nothing was written. Choose another path."
        raise OSError(code, msg) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
