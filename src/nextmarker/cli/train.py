"""``nextmarker train``: detect the cells of images, and train a model on them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import click

from nextmarker.cli import options as opt
from nextmarker.cli import options_file
from nextmarker.cli.checks import check_device_name, check_files, check_images
from nextmarker.cli.output import results_in
from nextmarker.cli.places import FIGURES, MODEL, OPTIONS, TRAINING, places_of, shown, typed
from nextmarker.cli.progress import folder_of


@click.command()
@opt.together(
    opt.output("MODEL.safetensors", "File of the model; figures lie beside it, in MODEL_figures."),
    opt.reading,
    opt.cells,
    opt.training,
    opt.seed,
    opt.device,
    opt.resume,
    opt.overwrite,
    opt.file,
)
def train(**given: Any) -> None:
    """Train a model on the cells of IMAGES.

    It embeds these or other images: `nextmarker embed`.
    """
    options = SimpleNamespace(**given)
    if options.output.endswith(".zarr"):
        msg = f"{options.output!r} would be a store, and a model is a file: -o MODEL.safetensors."
        raise click.UsageError(msg)
    check_images(options.images)
    check_files(panel=options.panel)
    check_device_name(options.device)
    places = places_of(options.output, MODEL, FIGURES, OPTIONS)
    with results_in(places, overwrite=options.overwrite, resume=options.resume) as folder:
        from nextmarker._record import read_record
        from nextmarker.cli import saving, steps, summary

        checkpoint = folder_of(places[MODEL])
        steps.check_device(options.device)
        sdata = steps.read_images(options)
        adata = steps.detect(sdata, options, checkpoint)
        steps.train(sdata, options, checkpoint).save(folder / MODEL)
        saving.draw(sdata, TRAINING[:1], folder / FIGURES)
        options_file.write(folder / OPTIONS)
    print(summary.training_in_words(read_record(adata, "train")))
    model = typed(places[MODEL])
    print(f"open: {shown(places[FIGURES])}\nnext: nextmarker embed IMAGES --model {model} ... -o OUT.zarr")
