"""``nextmarker report``: a report of a store, one file for a browser."""

from __future__ import annotations

import click

from nextmarker.cli import options as opt
from nextmarker.cli.checks import check_places, check_store
from nextmarker.cli.places import REPORT, beside, places_of, shown


@click.command()
@opt.together(
    click.argument("store", metavar="STORE"),
    click.option("-o", "--output", metavar="OUT.html", help="File to write.  [default: STORE_report.html]"),
    opt.overwrite,
    opt.file,
)
def report(store: str, output: str | None, overwrite: bool) -> None:
    """Write a report of STORE for a browser."""
    path = check_store(store)
    target = beside(path, REPORT) if output is None else places_of(output, REPORT)[REPORT]
    check_places({REPORT: target}, overwrite=overwrite)
    import nextmarker as nm
    from nextmarker.cli import stores

    nm.pl.report(stores.read(path), target, overwrite=overwrite)
    print(f"written: {shown(target)}\nopen: {shown(target)}")
