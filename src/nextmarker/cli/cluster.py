"""``nextmarker cluster``: cluster the cells of one store, or of several that are joined."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from nextmarker import _keys
from nextmarker.cli import options as opt
from nextmarker.cli.checks import check_store
from nextmarker.cli.output import results_in
from nextmarker.cli.places import CLUSTERS, FIGURES, STORE, TYPES, places_of


@click.command()
@opt.together(
    click.argument("stores", nargs=-1, required=True, metavar="STORES..."),
    click.option("-o", "--output", metavar="OUT.zarr", help="New store for all; needed for several STORES."),
    opt.clustering,
    opt.names("--restrict-to", metavar="CLUSTER,...", help="Divide only these clusters, and leave the others."),
    opt.seed,
    opt.overwrite,
    opt.file,
)
def cluster(**given: Any) -> None:
    """Cluster the cells of one or more STORES.

    One store is updated in place, without copying pixels. Several, embedded by the same model, are joined in a new one.
    """
    options = SimpleNamespace(**given)
    stores = [check_store(path) for path in options.stores]
    if len(set(stores)) < len(stores):
        msg = "A store is given twice: name each once."
        raise click.UsageError(msg)
    if options.output is None and len(stores) > 1:
        msg = "Several stores are joined in a new one: name it by -o OUT.zarr."
        raise click.UsageError(msg)
    if options.output is None:
        _cluster_in_place(stores[0], options)
    else:
        _cluster_into_new(stores, options)


def _cluster_in_place(store: Path, options: SimpleNamespace) -> None:
    from nextmarker.cli import saving, steps, stores, summary

    sdata = stores.read(store)
    steps.cluster(sdata[_keys.TABLE], options, options.restrict_to)
    saving.update(sdata, store, CLUSTERS, outdated=TYPES)
    summary.print_clusters(sdata[_keys.TABLE])
    summary.print_end(sdata[_keys.TABLE], store, saving.to_open(store))


def _cluster_into_new(paths: list[Path], options: SimpleNamespace) -> None:
    places = places_of(options.output, STORE, FIGURES)
    with results_in(places, overwrite=options.overwrite) as folder:
        from nextmarker.cli import saving, steps, stores, summary

        sdata = stores.join({path: stores.read(path) for path in paths})
        steps.cluster(sdata[_keys.TABLE], options, options.restrict_to)
        saving.save(sdata, folder, CLUSTERS, report=False)
        summary.print_clusters(sdata[_keys.TABLE])
    summary.print_end(sdata[_keys.TABLE], places[STORE], places[FIGURES])
