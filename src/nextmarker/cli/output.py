"""Results of a command: written into a hidden folder, and moved to their paths together when all are complete."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from nextmarker._files import replaced_files
from nextmarker._replace import put_in_place, unfinished
from nextmarker.cli import progress
from nextmarker.cli.checks import check_places
from nextmarker.cli.places import CLUSTERS, FIGURES, STORE, TRAINING, TYPES, shown


@contextmanager
def results_in(places: Mapping[str, Path], *, overwrite: bool, resume: bool | None = None) -> Iterator[Path]:
    """Provide a folder to write results into, by their names in `places`; move them there when all are complete.

    Unless `resume` is None, steps may keep their progress in `progress.folder_of` of the first place.

    Raises
    ------
    OSError
        If a path is taken or cannot be written to.
    """
    check_places(places, overwrite=overwrite)
    main, *_ = places.values()
    keeping = nullcontext() if resume is None else progress.kept(main, resume=resume, overwrite=overwrite)
    with unfinished(main) as folder, keeping:
        if FIGURES in places:
            (folder / FIGURES).mkdir()
        yield folder
        for number in (signal.SIGINT, signal.SIGTERM):  # the rest is quick and must not be interrupted
            signal.signal(number, signal.SIG_IGN)
        written = [name for name in places if (folder / name).exists()]
        for name in written:
            put(folder / name, places[name], overwrite=overwrite, outdated=(*TRAINING, *CLUSTERS, *TYPES))
    print(f"\nwritten: {', '.join(shown(places[name]) for name in written)}")


def put(draft: Path, target: Path, *, overwrite: bool, outdated: Iterable[str] = ()) -> None:
    """Move a store, a folder of figures, or a file to its path; remove figures that are outdated."""
    if draft.name == STORE:
        put_in_place(draft, target, overwrite=overwrite)
    elif draft.is_dir():
        target.mkdir(exist_ok=True)
        for figure in outdated:
            (target / f"{figure}.png").unlink(missing_ok=True)
        for file in draft.iterdir():
            file.replace(target / file.name)
    else:
        with replaced_files(target.parent) as drafts:  # perhaps on another disk
            shutil.copyfile(draft, drafts / target.name)
