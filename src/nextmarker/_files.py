"""Files that are complete or not there: written in a private folder beside their place, and moved once whole."""

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
    """Give a private folder to write files into, and move them into `folder` once all of them are complete.

    Raises
    ------
    PermissionError
        If nothing can be written into `folder`.
    OSError
        If the disk is full.
    """
    with full_disk_told(folder), private_folder(folder, ".nextmarker.") as drafts:
        yield drafts
        for draft in drafts.iterdir():
            draft.replace(folder / draft.name)


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder that only this user can open, with a name that nobody can foresee, and remove it in the end.

    Raises
    ------
    PermissionError
        If nothing can be written into `parent`.
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
    """The error to raise where nothing can be written into a folder."""
    if error.errno in _FULL:
        return error
    return PermissionError(f"Cannot write into {str(folder)!r} ({error.strerror}): choose another folder.")


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """Name the folder to write into where an error, or whatever led to it, means that there is no space left.

    Raises
    ------
    OSError
        Instead of that error.
    """
    try:
        yield
    except Exception as error:
        code = next((cause.errno for cause in _causes(error) if isinstance(cause, OSError) and cause.errno in _FULL), 0)
        if not code:
            raise
        msg = (
            f"{os.strerror(code)}. The disk of {str(folder)!r} is full, and nothing was written: make room, or "
            "choose another path."
        )
        raise OSError(code, msg) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
