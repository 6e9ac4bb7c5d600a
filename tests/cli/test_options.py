"""Options of the commands, and files of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from nextmarker.cli import _commands, options_file
from nextmarker.nn import TrainingConfig
from nextmarker.nn.model import MIN_PATCH_SIZE, PIXEL_SIZES
from nextmarker.pp._detect import MIN_DIAMETER


def parsed(command: str, *arguments: str) -> dict[str, Any]:
    with _commands.make_context("nextmarker", [command, *arguments]) as group:
        return _commands.commands[command].make_context(command, list(arguments), parent=group).params


NEEDED = ("a.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["--markers", "CD3,CD20"], ["CD3", "CD20"]),
        (["--markers", "CD3, CD20,"], ["CD3", "CD20"]),
        (["--markers", "CD3", "--markers", "CD20,CD4"], ["CD3", "CD20", "CD4"]),
        (["--markers", '"HLA-DR,DP",CD3'], ["HLA-DR,DP", "CD3"]),
        ([], None),
    ],
)
def test_names_are_separated_by_commas(given: list[str], names: list[str] | None) -> None:
    assert parsed("run", *NEEDED, *given)["markers"] == names


def test_images_stand_anywhere() -> None:
    arguments = ["a.tif", "--nuclear-channels", "DNA1", "b.tif", "--seed", "3", "-o", "out.zarr", "c.tif"]
    assert parsed("run", *arguments)["images"] == ["a.tif", "b.tif", "c.tif"]


def test_pairs_are_split_at_the_last_sign() -> None:
    given = ["out.zarr", "--signatures", "types.csv", "--thresholds", "CD3=0.4,A=B=0.5", "--overrule", "7=T reg"]
    options = parsed("annotate", *given)
    assert options["thresholds"] == {"CD3": 0.4, "A=B": 0.5}
    assert options["overrule"] == {"7": "T reg"}


def test_ranges_and_defaults_are_those_of_the_library() -> None:
    kinds = {option.name: option.type for option in _commands.commands["run"].params}
    assert kinds["patch_size"].min == MIN_PATCH_SIZE
    assert kinds["diameter"].min == MIN_DIAMETER
    assert (kinds["pixel_size"].min, kinds["pixel_size"].max) == PIXEL_SIZES
    shown = {
        option.name: option.help for option in _commands.commands["run"].params if isinstance(option, click.Option)
    }
    assert f"[default: {TrainingConfig().steps}]" in str(shown["steps"])
    assert f"[default: {TrainingConfig().learning_rate}]" in str(shown["learning_rate"])


def test_a_file_of_options_is_a_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        'images = ["a.tif"]\nnuclear-channels = "DNA1,DNA2"\noutput = "out.zarr"\nsteps = 5\n'
        'markers = ["HLA-DR,DP", "CD3"]\nsignatures = "types.csv"\nreport = false\nseed = 4\n'
    )
    options = parsed("run", "--options", str(file), "--steps", "7")
    assert (options["images"], options["nuclear_channels"]) == (["a.tif"], ["DNA1", "DNA2"])
    assert (options["steps"], options["seed"], options["report"]) == (7, 4, False)
    assert options["markers"] == ["HLA-DR,DP", "CD3"]
    assert parsed("run", "b.tif", "--options", str(file))["images"] == ["b.tif"]
    assert "signatures" not in parsed("train", "--options", str(file))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    given = [
        *NEEDED,
        "--markers",
        '"HLA-DR,DP",CD3',
        "--thresholds",
        "CD3=0.4",
        "--panel",
        'a "b" \\ ü.csv',
        "--overwrite",
    ]
    with _commands.make_context("nextmarker", ["run"]) as group:
        context = _commands.commands["run"].make_context("run", [*given], parent=group)
        with context:
            options_file.write(tmp_path / "out.toml")
    again = parsed("run", "--options", str(tmp_path / "out.toml"))
    paths = {"images": [str(Path.cwd() / "a.tif")], "output": str(Path.cwd() / "out.zarr")}
    assert again == context.params | paths | {"panel": str(Path.cwd() / given[-2]), "overwrite": False}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('marker = ["CD3"]', "Did you mean 'markers'"),
        ("markers = CD3", "Text must be in quotes"),
        ("overwrite = true", "No option"),
    ],
)
def test_a_file_with_a_mistake_is_refused(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(content)
    with pytest.raises(click.UsageError, match=told):
        parsed("run", "--options", str(tmp_path / "run.toml"), *NEEDED)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(click.UsageError, match="No file of options 'missing.toml'"):
        parsed("run", "--options", "missing.toml", *NEEDED)
