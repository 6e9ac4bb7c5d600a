"""Files of options (TOML): read as defaults of a command, and written beside the results to repeat it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nextmarker import __version__
from nextmarker._errors import no_such

NOT_REPEATED = ("overwrite", "resume")
PATHS = ("images", "panel", "model", "signatures", "samples", "output", "save_model")


def read(ctx: click.Context, param: click.Parameter, path: str | None) -> None:
    """Read a file of options as defaults of the command; those of other commands are ignored."""
    if path is None:
        return
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        msg = f"The options {path!r} are not TOML: {error}. Text must be in quotes."
        raise click.UsageError(msg, ctx) from error
    except OSError as error:
        msg = f"No file of options {path!r}: {error.strerror}."
        raise click.UsageError(msg, ctx) from error
    values = {key.replace("-", "_"): value for key, value in content.items()}
    known = _every_option(ctx)
    unknown = [key for key in content if key.replace("-", "_") not in known]
    if unknown:
        there = [name.replace("_", "-") for name in known]
        raise click.UsageError(no_such("option", unknown, path, there, "nextmarker COMMAND --help lists them."), ctx)
    own = {option.name: option for option in ctx.command.params}
    ctx.default_map = {name: _as_given(own[name], value) for name, value in values.items() if name in own}


def write(path: Path) -> None:
    """Write all options of the running command, so that it can be repeated exactly."""
    path.write_text(as_toml(), encoding="utf-8")


def as_toml() -> str:
    """List all options of the running command as TOML."""
    ctx = click.get_current_context()
    values = {str(option.name): ctx.params.get(str(option.name)) for option in ctx.command.params}
    lines = [
        f"{name.replace('_', '-')} = {_as_toml(name, value)}"
        for name, value in values.items()
        if value is not None and name not in NOT_REPEATED
    ]
    command = f"nextmarker {ctx.info_name}"
    head = f"# {command} of version {__version__}. To repeat it: {command} --options THIS_FILE -o ANOTHER"
    return "\n".join([head, *lines, ""])


def command_of(path: Path) -> str:
    """Read which command wrote a file of options."""
    return path.read_text(encoding="utf-8").split(maxsplit=3)[2]


def _every_option(ctx: click.Context) -> dict[str, None]:
    group = ctx.find_root().command
    commands = group.commands.values() if isinstance(group, click.Group) else [ctx.command]
    names = [option.name for command in commands for option in command.params if option.name]
    return {name: None for name in names if name not in (*NOT_REPEATED, "options_file")}


def _as_given(option: click.Parameter, value: Any) -> Any:
    """Convert a value to what click expects: of an option that may be repeated, a list of what is given each time."""
    return [value] if isinstance(option, click.Option) and option.multiple else value


def _as_toml(name: str, value: Any) -> str:
    """Write a value; strings, numbers and lists of them are the same in JSON and TOML."""
    if isinstance(value, Mapping):
        value = [f"{key}={entry}" for key, entry in value.items()]
    if name in PATHS:
        value = _absolute(value) if isinstance(value, str) else [_absolute(path) for path in value]
    return json.dumps(value, ensure_ascii=False)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
