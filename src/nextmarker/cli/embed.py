"""``nextmarker embed``: detect the cells of images, and embed them by a trained model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from nextmarker.cli import options as opt
from nextmarker.cli import options_file
from nextmarker.cli.checks import check_device_name, check_files, check_images
from nextmarker.cli.output import results_in
from nextmarker.cli.places import OPTIONS, STORE, places_of
from nextmarker.cli.progress import folder_of


@click.command()
@opt.together(
    opt.output("OUT.zarr", "Store to write."),
    click.option("--model", required=True, metavar="FILE", help="Trained model, of nextmarker train or run."),
    opt.missing,
    opt.reading,
    opt.cells,
    opt.device,
    opt.resume,
    opt.overwrite,
    opt.file,
)
def embed(**given: Any) -> None:
    """Embed the cells of IMAGES by a trained model.

    Its markers are used, unless others are chosen. `nextmarker cluster` joins several stores and clusters their cells.
    """
    options = SimpleNamespace(**given)
    check_images(options.images)
    check_files(panel=options.panel, model=options.model)
    check_device_name(options.device)
    places = places_of(options.output, STORE, OPTIONS)
    with results_in(places, overwrite=options.overwrite, resume=options.resume) as folder:
        import nextmarker as nm
        from nextmarker.cli import steps, summary

        checkpoint = folder_of(places[STORE])
        steps.check_device(options.device)
        model = nm.nn.load_model(options.model)
        sdata = steps.read_images(options)
        adata = steps.detect(sdata, options, checkpoint, model)
        steps.embed(sdata, model, options, checkpoint)
        nm.io.write(sdata, folder / STORE)
        options_file.write(folder / OPTIONS)
    print(f"{adata.n_obs} cells embedded\nnext: {summary.next_step(adata, places[STORE])}")
