"""The page on the command line: its Snakemake rules work, and it lists all commands."""

from __future__ import annotations

import re

import spatialdata

from nextmarker import cli

from .conftest import PAGE, SNAKEFILE, Analysis, Study


def test_the_rules_for_snakemake_work(analysis: Analysis, study: Study) -> None:
    assert study.model.read_bytes() == (analysis.folder / "out_model.safetensors").read_bytes()
    assert {"nextmarker", "cell_type"} <= {*spatialdata.read_zarr(study.store)["table"].obs}
    assert study.report.read_text() == "report"


def test_the_rules_are_short() -> None:
    assert len(SNAKEFILE.splitlines()) < 30


def test_the_page_lists_all_commands() -> None:
    assert set(re.findall(r"^\| `nextmarker (\w+)", PAGE, re.MULTILINE)) == set(cli._commands.commands)
