"""``nextmarker annotate``: name the clusters of a store by signatures of cell types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from nextmarker import _keys
from nextmarker.cli import options as opt
from nextmarker.cli.checks import check_files, check_store
from nextmarker.cli.places import TYPES


@click.command()
@opt.together(
    click.argument("store", metavar="STORE"),
    click.option("--signatures", required=True, metavar="FILE", help="Cell types and their markers (CSV, TSV, YAML)."),
    opt.annotating,
    opt.sampling,
    opt.file,
)
def annotate(**given: Any) -> None:
    """Name the clusters of STORE by signatures.

    A signature says which markers a cell type has and lacks.

    The file has a row for each type and a column for each marker: 1 if the type has it, -1 if it lacks it.
    """
    options = SimpleNamespace(**given)
    store = check_store(options.store)
    check_files(signatures=options.signatures, samples=options.samples)
    from nextmarker.cli import saving, steps, stores, summary

    sdata = stores.read(store)
    if options.samples:
        steps.add_samples(sdata, options)
    steps.annotate(sdata[_keys.TABLE], options)
    saving.update(sdata, store, TYPES)
    summary.print_types(sdata[_keys.TABLE])
    summary.print_end(sdata[_keys.TABLE], store, saving.to_open(store))
