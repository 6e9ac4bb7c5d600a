"""The store and the figures that a command leaves: their places are checked first, and filled last."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def results_in(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write `store` and `figures` into, and move them to their places once both are complete."""
    from nextmarker.io import _replace, _write

    store = _write.resolved(path)
    figures = _write.resolved(store.parent / f"{store.stem}_figures")
    _write.check_place(store, overwrite=overwrite, path="-o", replace="--overwrite")
    _check_figures(figures, store, overwrite=overwrite)
    with _replace.unfinished(store) as unfinished:
        (unfinished / "figures").mkdir()
        yield unfinished
        for number in (signal.SIGINT, signal.SIGTERM):  # what follows takes moments, and is not to be left half done
            signal.signal(number, signal.SIG_IGN)
        _replace.put_in_place(unfinished / "store", store, overwrite=overwrite)
        figures.mkdir(exist_ok=True)
        for figure in (unfinished / "figures").iterdir():
            figure.replace(figures / figure.name)
    print(f"\nwritten: {store} and {figures}")


def _check_figures(figures: Path, store: Path, *, overwrite: bool) -> None:
    """Refuse a folder that figures cannot be moved into."""
    if figures.is_dir():
        if figures.stat().st_dev != store.parent.stat().st_dev or not os.access(figures, os.W_OK):
            msg = f"{str(figures)!r} is read-only or on another disk than {str(store)!r}: choose another -o."
            raise PermissionError(msg)
        if not overwrite:
            msg = f"{str(figures)!r} is there already: choose another -o, or replace it with --overwrite."
            raise FileExistsError(msg)
    elif os.path.lexists(figures) or not figures.parent.is_dir():
        msg = f"{str(figures)!r} is no folder, and the figures need one of this name: choose another -o."
        raise FileExistsError(msg)
