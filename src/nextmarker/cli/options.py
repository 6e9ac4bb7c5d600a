"""The options of the commands, in groups that several commands share."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from nextmarker.cli import options_file

Command = TypeVar("Command", bound=Callable[..., Any])


class Names(click.ParamType):
    """Names separated by commas; one with a comma stands in double quotes."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Split text; keep what is split already."""
        if isinstance(value, list):
            return value
        names = [name.strip() for row in csv.reader([str(value)], skipinitialspace=True) for name in row]
        return [name for name in names if name] or self.fail("give one or more names", param, ctx)


def as_names(names: Iterable[str], separator: str = ",") -> str:
    """Write names as `Names` reads them.

    Examples
    --------
    >>> as_names(["2,3", "4"], ", ")
    '"2,3", 4'
    """
    return separator.join(f'"{name}"' if "," in str(name) else str(name) for name in names)


def _flat(ctx: click.Context, param: click.Parameter, values: tuple[list[str], ...]) -> list[str] | None:
    """Join the names of an option that is given several times."""
    return [name for names in values for name in names] or None


def _pairs(ctx: click.Context, param: click.Parameter, values: tuple[list[str], ...]) -> dict[str, str] | None:
    """Read `name=value`, split at the last `=`, since names of markers may have one."""
    pairs = {}
    for text in _flat(ctx, param, values) or ():
        name, equals, value = text.rpartition("=")
        if not (name.strip() and equals and value.strip()):
            msg = f"{text!r} is not of the form NAME=VALUE."
            raise click.BadParameter(msg, ctx, param)
        pairs[name.strip()] = value.strip()
    return pairs or None


def _numbers(ctx: click.Context, param: click.Parameter, values: tuple[list[str], ...]) -> Mapping[str, Any] | None:
    """Read `name=number`."""
    pairs = _pairs(ctx, param, values) or {}
    try:
        return {name: float(value) for name, value in pairs.items()} or None
    except ValueError as error:
        msg = f"{error}."
        raise click.BadParameter(msg, ctx, param) from error


def _images(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[str]:
    images = [*values] or (ctx.default_map or {}).get("images")
    if not images:
        msg = "Missing IMAGES: name one or more image files, or folders of them."
        raise click.UsageError(msg, ctx)
    return images


def names(*declaration: str, metavar: str = "NAME,...", **more: Any) -> Callable[[Command], Command]:
    """Make an option that takes names, separated by commas or given several times."""
    return click.option(*declaration, type=Names(), multiple=True, callback=_flat, metavar=metavar, **more)


def pairs(*declaration: str, metavar: str, numbers: bool = False, **more: Any) -> Callable[[Command], Command]:
    """Make an option that takes pairs of a name and its value."""
    callback = _numbers if numbers else _pairs
    return click.option(*declaration, type=Names(), multiple=True, callback=callback, metavar=metavar, **more)


def number(
    name: str, low: float, high: float | None = None, *, above: bool = False, metavar: str = "N", **more: Any
) -> Callable[[Command], Command]:
    """Make an option that takes a number in a range, an integer if `low` is one; with `above`, not `low` itself."""
    whole = isinstance(low, int)
    kind = (click.IntRange if whole else click.FloatRange)(low, high, min_open=above)  # type: ignore
    kind.name = "whole number" if whole else "number"  # for errors
    return click.option(f"--{name}", type=kind, metavar=metavar, **more)


def choice(name: str, *values: str, **more: Any) -> Callable[[Command], Command]:
    """Make an option that takes one of some values, by default the first."""
    return click.option(f"--{name}", type=click.Choice(values), default=values[0], show_default=True, **more)


def together(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Combine options; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


reading = together(
    click.argument("images", nargs=-1, callback=_images, metavar="IMAGES..."),
    names("--channel-names", help="Names of the channels, in the order of the files, if these have none."),
    click.option("--panel", metavar="CSV", help="Channels to keep and rename: columns channel, name, keep."),
    number("pixel-size", 0.01, 100, metavar="UM", help="Micrometres per pixel, if the files do not state it."),
    names("--only", help="Names of the images to analyse.  [default: all that are read]"),
)
cells = together(
    names("--nuclear-channels", required=True, help="Channels in which cells are detected, such as DNA1,DNA2."),
    number("diameter", 2.0, metavar="PX", help="Diameter of a nucleus in pixels.  [default: estimated]"),
    names("--markers", help="Channels to use.  [default: all, which must be the same in all images]"),
    names("--exclude", help="Channels to leave out of these, such as argon or autofluorescence."),
)
training = together(
    number("patch-size", 3.0, metavar="PX", help="Width of the patch around a cell in pixels.  [default: from cells]"),
    number("steps", 1, help="Training steps.  [default: 200]"),
    number("learning-rate", 0.0, above=True, metavar="RATE", help="Lower it if training fails.  [default: 0.001]"),
)
missing = choice("missing", "error", "zero", help="If an image lacks a marker of the model: stop, or count it as zero.")
clustering = together(
    number("n-neighbors", 2, default=30, show_default=True, help="Nearest neighbours of each cell."),
    number("resolution", 0.0, above=True, default=0.3, show_default=True, help="Higher values give more clusters."),
)
annotating = together(
    pairs("--aliases", metavar="NAME=MARKER,...", help="Markers by their name in the signatures, such as LCA=CD45."),
    pairs("--thresholds", metavar="MARKER=VALUE,...", numbers=True, help="Activations above which they are positive."),
    pairs("--overrule", metavar="CLUSTER=TYPE,...", help="Names of clusters that replace those by signatures."),
    choice("by", "cluster", "cell", help="Give all cells of a cluster one type, or each cell its own."),
    number("min-score", 0.0, 1, default=0.3, show_default=True, help="Clusters with lower scores are unknown."),
    number("margin", 0.0, 1, default=0.1, show_default=True, help="Types that lead by less are unsure."),
)
sampling = together(
    click.option("--samples", metavar="CSV", help="Sample sheet: patient, group and more of each image."),
    click.option("--on", default="image", show_default=True, metavar="COLUMN", help="Column that names the images."),
    click.option("--time-key", metavar="COLUMN", help="Its column with time points, if patients change groups."),
    names("--columns", help="Its columns to add.  [default: all]"),
)
seed = number("seed", 0, default=0, show_default=True, help="Random seed; the same seed gives the same result.")
device = click.option("--device", metavar="D", help="cpu, cuda, cuda:1 or mps.  [default: cuda if available]")
resume = click.option("--resume", is_flag=True, help="Go on after an interruption, if there was one.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace results of an earlier run.")
file = click.option(
    "--options",
    "options_file",
    metavar="TOML",
    is_eager=True,
    expose_value=False,
    callback=options_file.read,
    help="File of options, as a run writes it; those on the command line take precedence.",
)


def output(metavar: str, what: str) -> Callable[[Command], Command]:
    """Make the option for the path of the results."""
    return click.option("-o", "--output", required=True, metavar=metavar, help=what)
