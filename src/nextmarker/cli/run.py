"""``nextmarker run``: detect, embed and cluster the cells of images, and explain the clusters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.cli.arguments import add_computing, add_reading, read_images
from nextmarker.cli.output import results_in
from nextmarker.cli.steps import analyse, print_clusters, save

if TYPE_CHECKING:
    import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its arguments."""
    parser = commands.add_parser(
        "run", help="detect, embed and cluster the cells of images, and explain the clusters", allow_abbrev=False
    )
    parser.set_defaults(command=_run)
    parser.add_argument(
        "--nuclear-channels", nargs="+", required=True, metavar="NAME", help="nuclear channels, such as DNA1"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.zarr", help="Zarr store to write")
    parser.add_argument(
        "--markers",
        nargs="+",
        metavar="NAME",
        help="channels to use (default: all, which must be the same in all images)",
    )
    add_reading(parser)
    parser.add_argument(
        "--patch-size",
        type=float,
        metavar="PX",
        help="width of the patch around a cell (default: from the distances between cells)",
    )
    add_computing(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace the store and figures of an earlier run")


def _run(arguments: argparse.Namespace) -> None:
    with results_in(arguments.output, overwrite=arguments.overwrite) as unfinished:
        sdata = read_images(arguments)
        analyse(
            sdata, arguments.nuclear_channels, arguments.markers, arguments.patch_size, arguments.seed, arguments.device
        )
        save(sdata, unfinished)
        print_clusters(sdata)
