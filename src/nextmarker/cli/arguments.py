"""Arguments shared by several commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nextmarker as nm

if TYPE_CHECKING:
    import argparse

    from spatialdata import SpatialData


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the images, and arguments for what their files do not state."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    parser.add_argument("--channel-names", nargs="+", metavar="NAME", help="channel names, if the files have none")
    parser.add_argument(
        "--panel", metavar="CSV", help="table of channels to keep and rename, with columns channel, name, keep"
    )
    parser.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres per pixel, if the files do not state it"
    )


def read_images(arguments: argparse.Namespace) -> SpatialData:
    """Read the images as specified by the arguments."""
    return nm.io.read(
        arguments.images,
        channel_names=arguments.channel_names,
        panel=arguments.panel,
        pixel_size=arguments.pixel_size,
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add the seed and the device."""
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="random seed; the same seed gives the same result (default: 0)"
    )
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: cuda if available)")
