"""Commands that were interrupted go on."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import spatialdata
from filelock import FileLock

import nextmarker as nm
from nextmarker import cli
from nextmarker.cli import saving
from nextmarker.pp import _detect

from .conftest import DETECTING, TRAINING, Analysis


def stopped(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def recomputed(*_: object, **__: object) -> None:
    pytest.fail("cells were detected again")


@pytest.fixture(scope="module")
def interrupted(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with the run of the analysis, interrupted before the embedding, and what it printed as errors."""
    folder = tmp_path_factory.mktemp("interrupted")
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nm.tl, "embed", stopped)
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        options = f"{analysis.folder}/out_options.toml"
        assert cli.main(["run", "--options", options, "-o", f"{folder}/out.zarr", "--no-report"]) == 130
    return folder, "\n".join(lines)


@pytest.fixture
def started(interrupted: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the progress of the interrupted run."""
    shutil.copytree(interrupted[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_an_interrupted_run_leaves_its_progress_and_the_way_on(
    interrupted: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, printed = interrupted
    assert [path.name for path in folder.iterdir()] == ["out_progress"]
    told = f"next: nextmarker run --options {folder}/out_progress/options.toml --resume"
    assert told in printed.splitlines()
    assert cli.main(["status", f"{folder}/out.zarr"]) == 0
    status = capsys.readouterr().out.splitlines()
    assert {"detect_cells: 2 of 2 images", "train: 3 of 3 steps", told} <= {*status}
    assert "interrupted" in status[0]


def test_a_resumed_run_equals_an_uninterrupted_one(
    analysis: Analysis, interrupted: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, printed = interrupted
    monkeypatch.setattr(_detect, "find_nuclei", recomputed)
    monkeypatch.setattr(saving, "draw", lambda *_: None)
    (line,) = [line for line in printed.splitlines() if line.startswith("next: ")]
    shutil.copytree(folder / "out_progress", folder / "copy")
    try:
        assert cli.main(shlex.split(line)[2:]) == 0
        left = {path.name for path in folder.iterdir()}
        assert left == {"copy", "out.zarr", "out_figures", "out_model.safetensors", "out_options.toml"}
        model = (folder / "out_model.safetensors").read_bytes()
        assert model == (analysis.folder / "out_model.safetensors").read_bytes()
        tables = [spatialdata.read_zarr(path / "out.zarr")["table"] for path in (folder, analysis.folder)]
        assert tables[0].obs.equals(tables[1].obs)
    finally:
        for path in folder.iterdir():
            if path.name != "copy":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (folder / "copy").rename(folder / "out_progress")


def test_progress_is_neither_ignored_nor_lost(
    analysis: Analysis, started: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", *DETECTING, *TRAINING, *analysis.images, "-o", f"{started}/out.zarr"]
    assert cli.main(given) == 2
    assert "--resume" in capsys.readouterr().err
    assert (started / "out_progress" / "options.toml").is_file()


def test_progress_of_other_options_is_told(
    analysis: Analysis, started: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nm.tl, "train", stopped)
    options = f"{started}/out_progress/options.toml"
    assert cli.main(["run", "--options", options, "--steps", "2", "-o", f"{started}/out.zarr", "--resume"]) == 130
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: The progress")]
    assert "steps (3, now 2)" in line
    assert "diameter" not in line


def test_an_error_after_detection_keeps_the_cells(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["run", *DETECTING, *TRAINING, *analysis.images, "-o", f"{tmp_path}/out.zarr", "--n-neighbors"]
    assert cli.main([*given, "500"]) == 2
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "error: 500 neighbours need 501 cells, and there are 160: lower --n-neighbors",
        "What was computed is kept: go on with --resume.",
    ]
    monkeypatch.setattr(_detect, "find_nuclei", recomputed)
    monkeypatch.setattr(nm.tl, "train", stopped)
    assert cli.main([*given, "10", "--resume"]) == 130
    assert cli.main([*given, "10", "--overwrite", "--only", "tissue_9"]) == 2  # begins anew, and ends at once
    assert not any(tmp_path.iterdir())


def test_a_folder_of_another_kind_is_left_alone(
    analysis: Analysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out_progress").mkdir()
    (tmp_path / "out_progress" / "notes.txt").write_text("precious")
    given = ["run", *DETECTING, *TRAINING, *analysis.images, "-o", f"{tmp_path}/out.zarr"]
    for more in ([], ["--resume"], ["--overwrite"]):
        assert cli.main([*given, *more]) == 2
        assert "choose another -o" in capsys.readouterr().err
    assert (tmp_path / "out_progress" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("command", ["train", "embed"])
def test_training_and_embedding_go_on_too(
    command: str, analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = [command, *DETECTING, analysis.images[0], "-o", f"{tmp_path}/out"]
    given += TRAINING if command == "train" else ["--model", f"{analysis.folder}/out_model.safetensors"]
    with monkeypatch.context() as patch:
        patch.setattr(nm.tl, command, stopped)
        assert cli.main(given) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["out_progress"]
    monkeypatch.setattr(_detect, "find_nuclei", recomputed)
    assert cli.main([*given, "--resume"]) == 0
    assert not (tmp_path / "out_progress").exists()


def test_the_status_of_a_running_command(started: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = started / "out_progress" / "options.toml"
    lines = [f'output = "{started}/out.zarr"' if line.startswith("output") else line
             for line in options.read_text().splitlines()]  # fmt: skip
    options.write_text("\n".join(lines))
    with FileLock(started / ".out.zarr.lock"):
        assert cli.main(["status", f"{started}/out_progress"]) == 0
    printed = capsys.readouterr().out
    assert "running now" in printed
    assert "next:" not in printed
