"""Arguments that several commands have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nextmarker as nm

if TYPE_CHECKING:
    import argparse

    from spatialdata import SpatialData


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add the images, and what their files do not tell."""
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    parser.add_argument("--channel-names", nargs="+", metavar="NAME", help="channel names, where the files hold none")
    parser.add_argument(
        "--panel", metavar="CSV", help="table of the channels to keep and their names: channel, name, keep"
    )
    parser.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres per pixel, where the files do not tell"
    )


def read_images(arguments: argparse.Namespace) -> SpatialData:
    """Read the images as these arguments say."""
    return nm.io.read(
        arguments.images,
        channel_names=arguments.channel_names,
        panel=arguments.panel,
        pixel_size=arguments.pixel_size,
    )


def add_computing(parser: argparse.ArgumentParser) -> None:
    """Add the seed and the device."""
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same result (default: 0)")
    parser.add_argument("--device", metavar="D", help="cpu or cuda (default: cuda where there is one)")
