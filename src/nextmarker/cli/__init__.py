"""The command line, one file per command."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nextmarker import __version__
from nextmarker.cli import demo, run

COMMANDS = (demo, run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments after the name of the program; by default those of the process.

    Returns
    -------
    The exit status: 0 on success, 2 after an error in the arguments or images, 130 after an interruption.

    Examples
    --------
    >>> from nextmarker.cli import main
    >>> main(["run", "missing.tif", "--nuclear-channels", "DNA1", "-o", "missing_folder/out.zarr"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        with _signals_restored(), warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            arguments.command(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ValueError, KeyError, TypeError, OSError) as error:
        if not _is_for_the_user(error):
            raise
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Clean up after SIGTERM as after Ctrl+C; restore both handlers at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _is_for_the_user(error: Exception) -> bool:
    """Whether nextmarker or the file system raised the error; others are bugs, shown with their traceback."""
    *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) or raised_in.f_globals["__name__"].split(".")[0] == "nextmarker"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nextmarker",
        description="Cluster the cells of multiplex images and explain the clusters.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
