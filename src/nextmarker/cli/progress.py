"""Progress of a command, kept beside its output until that is complete, so that it goes on after an interruption."""

from __future__ import annotations

import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextmarker.cli import options_file
from nextmarker.cli.places import beside, typed

OPTIONS = "options.toml"


def folder_of(main: Path) -> Path:
    """Folder of the progress of a command, named after its output."""
    return beside(main, "progress")


def is_progress(folder: Path) -> bool:
    """Whether this is the progress of a command."""
    return (folder / OPTIONS).is_file() and not folder.is_symlink()


def how_to_go_on(folder: Path, *, overwrite: bool = False) -> str:
    """Write the command that goes on from here."""
    command = options_file.command_of(folder / OPTIONS)
    return f"nextmarker {command} --options {typed(folder / OPTIONS)} --resume{' --overwrite' * overwrite}"


@contextmanager
def kept(main: Path, *, resume: bool, overwrite: bool) -> Iterator[Path]:
    """Provide the folder in which steps keep their results; remove it at the end, or if nothing of use was computed.

    Raises
    ------
    FileExistsError
        If there is progress of an earlier call and neither `resume` nor `overwrite` is set, or something else.
    """
    folder = folder_of(main)
    _check(folder, resume=resume, overwrite=overwrite)
    try:
        folder.mkdir(exist_ok=True)
        options_file.write(folder / OPTIONS)
        yield folder
    except BaseException as error:
        from nextmarker._checkpoint import found_no_cells

        if not any(folder.rglob("*.npz")) or found_no_cells(folder):
            shutil.rmtree(folder, ignore_errors=True)
        elif isinstance(error, KeyboardInterrupt):
            error.add_note(f"next: {how_to_go_on(folder, overwrite=overwrite)}")
        else:  # options may have to change
            error.add_note("What was computed is kept: go on with --resume.")
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _check(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse progress of an earlier call that is neither to be resumed nor replaced; remove it if replaced."""
    if not os.path.lexists(folder):
        return
    if not is_progress(folder):
        msg = f"{str(folder)!r} is in the place of the progress of this command: choose another -o."
        raise FileExistsError(msg)
    if resume:
        _warn_of_other_options(folder)
    elif overwrite:
        shutil.rmtree(folder)
    else:
        msg = f"{str(folder)!r} is the progress of an earlier call: go on with --resume, or start anew by --overwrite."
        raise FileExistsError(msg)


def _warn_of_other_options(folder: Path) -> None:
    """Name the options that have changed; results of others are not used, so going on is safe."""
    then = tomllib.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    now = tomllib.loads(options_file.as_toml())
    changed = [
        f"{key} ({then.get(key, 'none')}, now {now.get(key, 'none')})"
        for key in {**then, **now}
        if then.get(key) != now.get(key)
    ]
    if changed:
        msg = f"The progress is of other options: {', '.join(changed)}. What depends on them is computed again."
        print(f"warning: {msg}", file=sys.stderr)
