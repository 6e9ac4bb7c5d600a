"""Errors and warnings of the library in the words of the command line: options instead of arguments."""

from __future__ import annotations

import re
import shlex
from ast import literal_eval
from collections.abc import Callable, Collection

from nextmarker.cli.options import as_names

VALUE = r"""\[[^\]]*\]|\{[^}]*\}|\.\.\.|'[^']*'|"[^"]*"|-?[\w.]*\w(?![\w(])"""
ARGUMENT = re.compile(rf"\b([a-z_]+)=({VALUE})")
CALL = re.compile(r"\bnm\.\w+\.\w+\((?:[^()]*?, )?([a-z_]+=[^()]*)\)")
PHRASES: dict[str, str | Callable[[re.Match[str]], str]] = {
    r"training=(nm\.nn\.TrainingConfig\([^()]*\))": r"\1",
    r"State the encoding: panel=pandas\.read_csv\([^()]*\)": "Save it as UTF-8",
    r"nm\.pp\.match_panels\([^()]*\)|sdata\.set_channel_names\([^()]*\)": "--panel",
    r"nm\.pp\.set_pixel_size\([^()]*\)": "--pixel-size",
    r"nm\.tl\.(train|cluster|annotate)\((?:sdata|adata)?\)": r"nextmarker \1",
    r"nm\.tl\.cluster\(adata, restrict_to=\('\w+', (\[[^\]]*\])\)\)": lambda found: (
        f"nextmarker cluster STORE --restrict-to {_as_typed(found[1])}"
    ),
    r"nm\.pl\.(cells|training|normalization|patches|marker_attribution)\((?:sdata|adata)\)": r"the figure \1.png",
    r"Check nm\.pl\.thresholds\(adata\)": "Check --thresholds",
    r" \(see nm\.io\.report\)": "",
    r"See nm\.metrics\.batch_mixing\([^()]*\)": "See the report",
    r", nuclear_channels=\[\.\.\.\], or nm\.pp\.add_cells\(\.\.\.\)": ": nuclear_channels=[...]",
    r"restrict_to=\(column, clusters\)": "restrict_to=...",
    r" in \.obs\['nextmarker'\];": ";",
    r"Save it again: model\.save\(path\)": "nextmarker train makes one",
}
"""Calls for which the command line has other summary."""
RENAMED = {"images": "only", "sheet": "samples", "path": "output"}


def in_options(text: str, options: Collection[str]) -> str:
    """Write arguments as options of the command, where it has them.

    Examples
    --------
    >>> in_options("Choose others: nuclear_channels=['DNA1', 'DNA2'].", ["nuclear_channels"])
    'Choose others: --nuclear-channels DNA1,DNA2.'
    >>> in_options("Train longer: training=nm.nn.TrainingConfig(steps=...).", ["steps"])
    'Train longer: --steps.'
    >>> in_options("Choose others: cells=[...].", ["steps"])
    'Choose others: cells=[...].'
    """
    for phrase, words in PHRASES.items():
        text = re.sub(phrase, words, text)
    text = CALL.sub(lambda call: call[1] if _option(call[1].partition("=")[0], options) else call[0], text)

    def option(found: re.Match[str]) -> str:
        name = _option(found[1], options)
        return f"{name} {_as_typed(found[2])}".rstrip() if name else found[0]

    return ARGUMENT.sub(option, text)


def _option(argument: str, options: Collection[str]) -> str | None:
    name = RENAMED.get(argument, argument)
    return f"--{name.replace('_', '-')}" if name in options else None


def _as_typed(value: str) -> str:
    """Write a value as it is typed on the command line, "" if it is only indicated."""
    try:
        content = literal_eval(value)
    except (ValueError, SyntaxError):
        return value
    if content is None or content is True or content in (..., [...]):
        return ""
    if isinstance(content, dict):
        content = [f"{name}={entry}" for name, entry in content.items()]
    return shlex.quote(as_names(map(str, content)) if isinstance(content, list) else str(content))
