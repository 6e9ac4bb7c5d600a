"""The command line, one file per command."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from nextmarker import __version__
from nextmarker.cli import annotate, cluster, demo, embed, messages, report, run, status, train

COMMANDS = (
    demo.demo,
    run.run,
    train.train,
    embed.embed,
    cluster.cluster,
    annotate.annotate,
    report.report,
    status.status,
)


class _InThisOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands as in an analysis, not by the alphabet."""
        return list(self.commands)


@click.group("nextmarker", cls=_InThisOrder, commands=COMMANDS, context_settings={"max_content_width": 110})
@click.version_option(__version__, message="%(version)s")
def _commands() -> None:
    """Cluster the cells of multiplex images, and explain the clusters.

    `nextmarker COMMAND --help` lists the options of a command.
    """


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
    >>> main(["run", "missing.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = _options(arguments[0]) if arguments else []
    told: set[str] = set()

    def warn(message: Warning | str, *_: object) -> None:
        if str(message) not in told:  # steps check some files before any work, and warn again when they use them
            told.add(str(message))
            _say("warning", str(message), known)

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damaged files are told by nextmarker
    try:
        with _signals_restored(), warnings.catch_warnings():
            warnings.showwarning = warn  # type: ignore[assignment]
            with _commands.make_context("nextmarker", arguments) as context:
                _commands.invoke(context)
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        print(error.ctx.get_usage() if error.ctx else "", file=sys.stderr)
        what = getattr(error.param, "help", None) if isinstance(error, click.MissingParameter) else None
        _say("error", f"{error.format_message()} {what or ''}".rstrip(), known)
        return 2
    except KeyboardInterrupt as error:
        print("interrupted: no results were written", file=sys.stderr)
        _print_notes(error)
        return 130
    except (ValueError, KeyError, TypeError, OSError) as error:
        if not _is_for_the_user(error):
            raise
        _say("error", str(error.args[0] if isinstance(error, KeyError) else error), known)
        _print_notes(error)
        return 2
    return 0


def _options(command: str) -> list[str]:
    """Names of the options of a command; status tells those of the next one, run."""
    command = "run" if command == "status" else command
    parameters = _commands.commands[command].params if command in _commands.commands else []
    return [str(option.name) for option in parameters]


def _say(kind: str, text: str, known: list[str]) -> None:
    print(f"{kind}: {messages.in_options(text, known)}", file=sys.stderr)


def _print_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        print(note, file=sys.stderr)


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


def _is_for_the_user(error: Exception) -> bool:
    """Whether nextmarker or the file system raised the error; others are bugs, shown with their traceback."""
    *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) or raised_in.f_globals["__name__"].split(".")[0] == "nextmarker"
