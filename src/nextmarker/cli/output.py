"""Store and figures of a command: their paths are checked first, and written last."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def results_in(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Provide a folder to write `store` and `figures` into; move both to their paths when they are complete."""
    from nextmarker._replace import check_place, put_in_place, resolved, unfinished

    store = resolved(path)
    figures = resolved(store.parent / f"{store.stem}_figures")
    check_place(store, overwrite=overwrite, path="-o", replace="--overwrite")
    _check_figures(figures, store, overwrite=overwrite)
    with unfinished(store) as folder:
        (folder / "figures").mkdir()
        yield folder
        for number in (signal.SIGINT, signal.SIGTERM):  # the rest is quick and must not be interrupted
            signal.signal(number, signal.SIG_IGN)
        put_in_place(folder / "store", store, overwrite=overwrite)
        figures.mkdir(exist_ok=True)
        for figure in (folder / "figures").iterdir():
            figure.replace(figures / figure.name)
    print(f"\nwritten: {store} and {figures}")


def _check_figures(figures: Path, store: Path, *, overwrite: bool) -> None:
    """Raise an error if the figures cannot be moved to this folder."""
    if figures.is_dir():
        if figures.stat().st_dev != store.parent.stat().st_dev or not os.access(figures, os.W_OK):
            msg = f"{str(figures)!r} is read-only or on a different disk from {str(store)!r}: choose another -o."
            raise PermissionError(msg)
        if not overwrite:
            msg = f"{str(figures)!r} exists already: choose another -o, or replace it with --overwrite."
            raise FileExistsError(msg)
    elif os.path.lexists(figures) or not figures.parent.is_dir():
        msg = f"{str(figures)!r} is not a folder: choose another -o."
        raise FileExistsError(msg)
