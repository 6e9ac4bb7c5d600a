"""Names and paths of results."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from nextmarker._replace import resolved

STORE, FIGURES, MODEL, OPTIONS, REPORT = "store", "figures", "model.safetensors", "options.toml", "report.html"

TRAINING = ("training", "normalization")
CLUSTERS = ("cells", "marker_attribution", "patches")
TYPES = ("cell_types", "annotation")
"""Figures, by what they show."""


def places_of(output: str, *results: str) -> dict[str, Path]:
    """Name the paths of results after the output, which is the first of them: `OUT.zarr`, `OUT_figures`, ...

    An output without the ending of its kind gets it, unless something of this name exists.
    """
    main, *others = results
    path = resolved(output)
    ending = ".zarr" if main == STORE else Path(main).suffix
    complete = path.suffix == ending if main == STORE else bool(path.suffix)
    if not complete and not os.path.lexists(path):
        path = resolved(path.with_name(path.name + ending))
    return {main: path} | {name: beside(path, name) for name in others}


def beside(path: Path, name: str) -> Path:
    """Path of a result beside the main one."""
    return resolved(path.parent / f"{path.stem}_{name}")


def shown(path: Path) -> str:
    """Write a path as short as it can be typed in the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def typed(path: Path) -> str:
    """Write a path as it is typed in a shell."""
    return shlex.quote(shown(path))
