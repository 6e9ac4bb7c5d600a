"""Stores with figures and report: written anew, and updated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nextmarker as nm
from nextmarker import _keys
from nextmarker._files import private_folder
from nextmarker._record import read_record
from nextmarker.cli.output import put
from nextmarker.cli.places import FIGURES, REPORT, STORE, beside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from spatialdata import SpatialData


def save(sdata: SpatialData, folder: Path, figures: Iterable[str], *, report: bool) -> None:
    """Write store, figures and report into the folder from `results_in`."""
    draw(sdata, figures, folder / FIGURES)
    if report:
        nm.pl.report(sdata, folder / REPORT)
    nm.io.write(sdata, folder / STORE)


def update(sdata: SpatialData, store: Path, figures: Iterable[str], outdated: Iterable[str] = ()) -> None:
    """Write new results into their store, and beside it their figures, and the report if there is one."""
    with private_folder(store.parent, ".nextmarker.") as folder:
        (folder / FIGURES).mkdir()
        draw(sdata, figures, folder / FIGURES)
        if beside(store, REPORT).exists():
            nm.pl.report(sdata, folder / REPORT)
        nm.io.write(sdata, store, overwrite=True)
        for draft in folder.iterdir():
            put(draft, beside(store, draft.name), overwrite=True, outdated=outdated)


def to_open(store: Path) -> Path:
    """What to look at beside a store: its report if there is one, otherwise its figures."""
    report = beside(store, REPORT)
    return report if report.exists() else beside(store, FIGURES)


def draw(sdata: SpatialData, names: Iterable[str], folder: Path) -> None:
    """Draw figures as PNG files; that of the training only if a model was trained on these cells."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")  # no screen needed
    adata = sdata[_keys.TABLE]
    drawings = {
        "cells": lambda: nm.pl.cells(sdata, color=_keys.CLUSTERS),
        "training": lambda: nm.pl.training(adata),
        "normalization": lambda: nm.pl.normalization(sdata),
        "marker_attribution": lambda: nm.pl.marker_attribution(adata),
        "patches": lambda: nm.pl.patches(sdata),
        "cell_types": lambda: nm.pl.cells(sdata, color=_keys.CELL_TYPE),
        "annotation": lambda: nm.pl.annotation(adata),
    }
    for name in names:
        if name != "training" or read_record(adata, "train"):
            axes = np.asarray(drawings[name](), dtype=object)
            axes.flat[0].figure.savefig(folder / f"{name}.png", dpi=150, bbox_inches="tight")
            mpl.pyplot.close(axes.flat[0].figure)
