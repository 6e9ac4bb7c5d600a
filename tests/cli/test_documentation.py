"""The page on the command line: its Snakemake rules work, and it lists all commands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import spatialdata

import nextmarker as nm
from nextmarker import cli
from nextmarker.cli import saving

from .conftest import TYPES

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
SNAKEFILE = re.search(r"```text\n(# Snakefile.*?)```", PAGE, re.DOTALL)[1]
STUDY = (
    'nuclear-channels = ["DNA1", "DNA2"]\nexclude = ["DNA1", "DNA2", "Ki67"]\ndiameter = 6\nsteps = 1\npatch-size = 6\n'
)


def test_the_rules_for_snakemake_work(images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(saving, "draw", lambda *_: None)
    monkeypatch.setattr(nm.pl, "report", lambda _, path, **__: Path(path).write_text("report"))
    Path("study.toml").write_text(STUDY)
    Path("types.csv").write_text(TYPES)
    for folder in ("slides", "embedded"):  # Snakemake makes the folders of outputs
        Path(folder).mkdir()
    slides = [str(shutil.copy(image, "slides")) for image in images]
    shells = dict(re.findall(r'rule (\w+):.*?shell: "(.*?)"\n', SNAKEFILE, re.DOTALL))

    def work(rule: str, given: object, output: str) -> str:
        for line in shells.pop(rule).format(input=given, output=output).split("&&"):
            program, *arguments = shlex.split(line)
            assert program == "nextmarker"
            assert cli.main(arguments) == 0
        return output

    model = work("train", " ".join(slides), "model.safetensors")
    embed = shells["embed"]
    stores = []
    for slide in slides:
        shells["embed"] = embed
        stores.append(work("embed", SimpleNamespace(image=slide, model=model), f"embedded/{Path(slide).stem}.zarr"))
    store = work("cluster", " ".join(stores), "study.zarr")
    work("report", store, "study_report.html")
    assert not shells
    assert {"nextmarker", "cell_type"} <= {*spatialdata.read_zarr(store)["table"].obs}
    assert Path("study_report.html").read_text() == "report"


def test_the_rules_are_short() -> None:
    assert len(SNAKEFILE.splitlines()) < 30


def test_the_page_lists_all_commands() -> None:
    assert set(re.findall(r"^\| `nextmarker (\w+)", PAGE, re.MULTILINE)) == set(cli._commands.commands)
