"""``nextmarker run``: detect, embed and cluster the cells of images, and explain the clusters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from nextmarker.cli import options as opt
from nextmarker.cli import options_file
from nextmarker.cli.checks import check_device_name, check_files, check_images
from nextmarker.cli.output import results_in
from nextmarker.cli.places import CLUSTERS, FIGURES, MODEL, OPTIONS, REPORT, STORE, TRAINING, TYPES, places_of
from nextmarker.cli.progress import folder_of

if TYPE_CHECKING:
    from anndata import AnnData


@click.command()
@opt.together(
    opt.output("OUT.zarr", "Store to write; all other results lie beside it, as OUT_..."),
    opt.reading,
    opt.cells,
    click.option("--model", metavar="FILE", help="Use this trained model instead of training one."),
    opt.missing,
    opt.training,
    click.option("--save-model", metavar="FILE", help="Where to keep the model.  [default: OUT_model.safetensors]"),
    opt.clustering,
    click.option("--signatures", metavar="FILE", help="Cell types and their markers, to name the clusters."),
    opt.annotating,
    opt.sampling,
    opt.seed,
    opt.device,
    click.option("--report/--no-report", default=True, show_default=True, help="Write OUT_report.html."),
    opt.resume,
    opt.overwrite,
    opt.file,
)
def run(**given: Any) -> None:
    """Analyse IMAGES from files to clusters.

    Detects, embeds and clusters the cells, and explains the clusters.

    IMAGES are files, or folders of them. Options and images may be given in any order.
    """
    options = SimpleNamespace(**given)
    check_images(options.images)
    check_files(panel=options.panel, model=options.model, signatures=options.signatures, samples=options.samples)
    check_device_name(options.device)
    places = places_of(options.output, STORE, FIGURES, MODEL, OPTIONS, REPORT)
    if options.save_model:
        places[MODEL] = places_of(options.save_model, MODEL)[MODEL]
    with results_in(places, overwrite=options.overwrite, resume=options.resume) as folder:
        adata = _analyse(options, folder, folder_of(places[STORE]))
        options_file.write(folder / OPTIONS)
    from nextmarker.cli.summary import print_end

    print_end(adata, places[STORE], places[REPORT if options.report else FIGURES])


def _analyse(options: SimpleNamespace, folder: Path, checkpoint: Path) -> AnnData:
    """Run the analysis, write its results into a folder, and return the table."""
    from nextmarker.cli import saving, steps, summary

    steps.check_device(options.device)
    model = steps.load_model(options.model)
    sdata = steps.read_images(options)
    steps.check_sheets(sdata, options, model)
    adata = steps.detect(sdata, options, checkpoint, model)
    steps.check_cells(adata, options.n_neighbors)
    if options.samples:
        steps.add_samples(sdata, options)
    if model is None:
        model = steps.train(sdata, options, checkpoint)
        model.save(folder / MODEL)
    steps.embed(sdata, model, options, checkpoint)
    steps.cluster(adata, options)
    if options.signatures:
        steps.annotate(adata, options)
    figures = [*TRAINING, *CLUSTERS, *(TYPES if options.signatures else ())]
    saving.save(sdata, folder, figures, report=options.report)
    summary.print_clusters(adata)
    if options.signatures:
        summary.print_types(adata)
    return adata
