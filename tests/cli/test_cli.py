"""The command line: arguments, errors, and that nothing half-written is left behind."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import nextmarker as nm
from nextmarker import _replace as replace
from nextmarker import cli

RESULTS = ["out.zarr", "out_figures", "out_options.toml"]
IMAGE = __file__
"""A file that exists; what it holds does not matter."""
HEAVY = ("torch", "spatialdata", "scanpy", "anndata", "pandas", "dask", "matplotlib")


@pytest.fixture
def no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when images are read, which must not happen before the target is known to be good."""

    def read(*_: object, **__: object) -> None:
        pytest.fail("images were read")

    monkeypatch.setattr(nm.io, "read", read)


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the work by the files it leaves."""

    def analyse(_: object, folder: Path, *__: object) -> AnnData:
        (folder / "store").mkdir()
        (folder / "store" / "zarr.json").write_text("new")
        (folder / "figures" / "cells.png").write_text("new")
        return AnnData(np.zeros((1, 1)))

    monkeypatch.setattr(cli.run, "_analyse", analyse)


def run(store: Path, *more: str) -> int:
    return cli.main(["run", "--nuclear-channels", "DNA1", IMAGE, "-o", str(store), *more])


def then(stop: Callable[[], object]) -> Callable[..., object]:
    """Stop after the work, when all files are written."""
    work = cli.run._analyse
    return lambda *given: (work(*given), stop())


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that an error prints."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "run"),
        (["run"], "Missing"),
        (["run", "image.tif", "-o", "out.zarr"], "'--nuclear-channels'. Channels in which cells are detected"),
        (["run", "image.tif", "--nuclear-channels", "DNA1"], "--output"),
        (["run", "-o", "out.zarr", "--nuclear-channels", "DNA1"], "Missing IMAGES"),
        (
            ["run", "image.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr", "--pixel-size", "small"],
            "'small' is not a valid number.",
        ),
        (
            ["run", "image.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr", "--steps", "1.5"],
            "not a valid whole number.",
        ),
        (["train", "image.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr"], "-o MODEL.safetensors"),
        (["run", "image.tif", "--nuclear-channels", "DNA1", "-o", "out.zarr", "--patch-size", "2"], "x>=3"),
        (["run", "image.tif", "--nuclear-channels", ",", "-o", "out.zarr"], "--nuclear-channels"),
        (["annotate", "out.zarr", "--signatures", "types.csv", "--thresholds", "CD3"], "NAME=VALUE"),
        (["annotate", "out.zarr", "--signatures", "types.csv", "--thresholds", "CD3=high"], "'high'"),
        (["cluster"], "STORES"),
        (["rum"], "No such command"),
    ],
)
def test_wrong_arguments_show_the_usage(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    shown = capsys.readouterr().err
    assert "Usage: nextmarker" in shown
    assert named in shown


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--nuclear", "DNA1"], "--nuclear-channels"), (["--marker", "CD3"], "--markers")],
)
def test_options_cannot_be_abbreviated(
    arguments: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out.zarr", *arguments) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == nm.__version__


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "nextmarker", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == nm.__version__


LOADED = "import sys; from nextmarker.cli import main; code = main(sys.argv[1:]); print(code, *sys.modules)"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], "0"),
        (["missing.tif"], "2"),
        (["--panel", "missing.csv"], "2"),
        (["--model", "missing.safetensors"], "2"),
        (["--signatures", "missing.csv"], "2"),
        (["--device", "gpu"], "2"),
        (["-o", "{}/missing/out.zarr"], "2"),
        (["-o", "{}"], "2"),
    ],
)
def test_mistakes_are_told_before_large_libraries_are_loaded(arguments: list[str], status: str, tmp_path: Path) -> None:
    given = [argument.format(tmp_path) for argument in arguments]
    needed = ["run", IMAGE, "--nuclear-channels", "DNA1", "-o", f"{tmp_path}/out.zarr"]
    command = [sys.executable, "-c", LOADED, *([*needed, *given] if given else ["--help"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, *modules = done.stdout.splitlines()[-1].split()
    assert found == status, done.stderr
    assert not set(HEAVY) & set(modules)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("instant")
def test_a_warning_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = cli.run._analyse

    def analyse(*given: object) -> AnnData:
        warnings.warn("CD3 is silent", UserWarning, stacklevel=1)
        return work(*given)

    monkeypatch.setattr(cli.run, "_analyse", analyse)
    assert run(tmp_path / "out.zarr") == 0
    assert capsys.readouterr().err == "warning: CD3 is silent\n"


@pytest.mark.parametrize("number", ["cpu:", "cuda:x", "gpu", "tpu"])
@pytest.mark.usefixtures("no_reading")
def test_a_device_that_cannot_be_is_told(number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out.zarr", "--device", number) == 2
    assert "--device" in error_line(capsys)


@pytest.mark.usefixtures("no_reading")
def test_a_device_that_is_not_there_is_told_before_images_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out.zarr", "--device", "cuda:99") == 2
    assert "--device cuda:99 cannot be used" in error_line(capsys)
    assert not any(tmp_path.iterdir())


def test_a_channel_in_the_place_of_an_image_is_recognised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out.zarr", "DNA2") == 2
    assert "DNA1,DNA2" in error_line(capsys)


@pytest.mark.usefixtures("no_reading")
def test_a_missing_folder_is_told_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "missing" / "out.zarr") == 2
    assert "missing" in error_line(capsys)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("taken", ["out.zarr", "out_figures"])
def test_an_existing_result_is_told_before_any_work(
    taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "zarr.json").touch()
    assert run(tmp_path / "out.zarr") == 2
    line = error_line(capsys)
    assert taken in line
    assert "--overwrite" in line


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("taken", ["out_model.safetensors", "out_options.toml", "out_report.html"])
def test_an_existing_file_is_told_before_any_work(
    taken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / taken).write_text("precious")
    assert run(tmp_path / "out.zarr") == 2
    assert "--overwrite" in error_line(capsys)
    assert (tmp_path / taken).read_text() == "precious"


@pytest.mark.usefixtures("no_reading")
def test_a_model_is_saved_only_where_there_is_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out.zarr", "--save-model", str(tmp_path / "missing" / "model.safetensors")) == 2
    assert "No folder" in error_line(capsys)


@pytest.mark.usefixtures("no_reading")
def test_overwrite_replaces_nothing_but_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    assert run(tmp_path / "photos", "--overwrite") == 2
    assert "not a Zarr store" in error_line(capsys)
    assert (tmp_path / "photos" / "holiday.jpg").read_text() == "precious"


@pytest.mark.usefixtures("no_reading")
def test_a_folder_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    assert run(tmp_path / "out.zarr") == 2
    assert "Permission denied" in error_line(capsys)


def test_a_missing_image_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out.zarr", str(tmp_path / "missing.tif")) == 2
    assert "missing.tif" in error_line(capsys)
    assert not any(tmp_path.iterdir())


def test_what_is_there_instead_of_a_missing_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "slides").mkdir()
    assert run(tmp_path / "out.zarr", str(tmp_path / "slide")) == 2
    assert "there is 'slides'. Did you mean 'slides'?" in error_line(capsys)
    assert run(tmp_path / "out.zarr", "--panel", str(tmp_path / "panel.csv"), str(tmp_path / "slides")) == 2
    assert "No file 'panel.csv'" in (told := error_line(capsys))
    assert told.rstrip().endswith("--panel.")


@pytest.mark.usefixtures("instant")
def test_an_interruption_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.run, "_analyse", then(interrupt))
    assert run(tmp_path / "out.zarr") == 130
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("instant")
def test_a_bug_shows_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.run, "_analyse", lambda *_: np.sum(np.zeros((2, 2)), axis=2))
    with pytest.raises(ValueError, match="axis 2"):
        run(tmp_path / "out.zarr")
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("instant")
def test_results_appear_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out.zarr") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == RESULTS
    assert "out.zarr" in capsys.readouterr().out


@pytest.mark.usefixtures("instant")
def test_overwrite_replaces_the_results_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "zarr.json").write_text("old")
    (tmp_path / "out_figures" / "cells.png").write_text("old")
    (tmp_path / "out_figures" / "cell_types.png").write_text("old, of types that the new run does not name")
    (tmp_path / "out_figures" / "notes.txt").write_text("mine")
    assert run(tmp_path / "out.zarr", "--overwrite") == 0
    assert (tmp_path / "out.zarr" / "zarr.json").read_text() == "new"
    assert (tmp_path / "out_figures" / "cells.png").read_text() == "new"
    assert sorted(path.name for path in (tmp_path / "out_figures").iterdir()) == ["cells.png", "notes.txt"]


@pytest.mark.usefixtures("instant")
def test_a_stop_by_the_system_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cli.run, "_analyse", then(lambda: signal.raise_signal(signal.SIGTERM)))
    assert run(tmp_path / "out.zarr") == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("instant")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_results_are_put_in_place_comes_too_late(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "zarr.json").write_text("old")
    (tmp_path / "out_figures" / "cells.png").write_text("old")
    before = signal.getsignal(number)
    replace = Path.replace

    def stopped(path: Path, target: Path) -> Path:
        signal.raise_signal(number)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", stopped)
    assert run(tmp_path / "out.zarr", "--overwrite") == 0
    assert (tmp_path / "out.zarr" / "zarr.json").read_text() == "new"
    assert (tmp_path / "out_figures" / "cells.png").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == RESULTS
    assert signal.getsignal(number) == before


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl+C as in a terminal: a shell lets what it runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("instant", "heard")
def test_a_stop_before_results_are_put_in_place_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "out.zarr")
    (tmp_path / "out.zarr" / "zarr.json").write_text("old")
    monkeypatch.setattr(cli.run, "_analyse", then(lambda: signal.raise_signal(signal.SIGINT)))
    assert run(tmp_path / "out.zarr", "--overwrite") == 130
    assert "no results were written" in capsys.readouterr().err
    assert (tmp_path / "out.zarr" / "zarr.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == RESULTS


KILLED = """
import importlib.util, os, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("replace", sys.argv[1])  # alone, without the imports of nextmarker.io
replace = importlib.util.module_from_spec(spec)
spec.loader.exec_module(replace)
with replace.unfinished(Path(sys.argv[2])) as folder:
    (folder / "store").mkdir()
    os._exit(9)
"""


@pytest.mark.usefixtures("instant")
def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    script = [sys.executable, "-c", KILLED, replace.__file__, str(tmp_path / "out.zarr")]
    assert subprocess.run(script, check=False).returncode == 9
    assert len(list(tmp_path.glob(".out.zarr.*.unfinished"))) == 1
    assert run(tmp_path / "out.zarr") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == RESULTS


@pytest.mark.usefixtures("instant")
def test_a_link_is_written_to_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.zarr").symlink_to("disk/out.zarr")
    assert run(tmp_path / "link.zarr") == 0
    assert run(tmp_path / "link.zarr", "--overwrite") == 0
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == RESULTS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "link.zarr"]


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("leads_to", ["missing/out.zarr", "link.zarr", "photos", "store.zarr/inner.zarr"])
@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_link_that_leads_to_no_good_place_is_told_before_any_work(
    leads_to: str, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / "zarr.json").touch()
    (tmp_path / "link.zarr").symlink_to(leads_to)
    before = sorted(tmp_path.rglob("*"))
    assert run(tmp_path / "link.zarr", *more) == 2
    line = error_line(capsys)
    assert "choose another -o" in line
    assert "--overwrite" not in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_reading")
@pytest.mark.parametrize("leads_to", ["missing/figures", "out_figures", "file"])
def test_figures_that_a_link_leads_astray_are_told_before_any_work(
    leads_to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out_figures").symlink_to(leads_to)
    assert run(tmp_path / "out.zarr", "--overwrite") == 2
    assert "choose another -o" in error_line(capsys)


@pytest.mark.usefixtures("no_reading")
def test_figures_on_another_disk_are_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out_figures").symlink_to("/proc")
    assert run(tmp_path / "out.zarr", "--overwrite") == 2
    assert "different disk" in error_line(capsys)


@pytest.mark.usefixtures("instant")
def test_a_full_disk_is_told_and_leaves_the_old_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(_: object, folder: Path, *__: object) -> None:
        (folder / "figures" / "cells.png").write_text("half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            msg = "encoder error"
            raise RuntimeError(msg) from error

    run(tmp_path / "out.zarr")
    capsys.readouterr()
    (tmp_path / "out.zarr" / "zarr.json").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(cli.run, "_analyse", fill)
    assert run(tmp_path / "out.zarr", "--overwrite") == 2
    assert "No space left on device" in error_line(capsys)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "out.zarr" / "zarr.json").read_text() == "old"


def test_the_demo_needs_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").write_text("precious")
    assert cli.main(["demo", "-o", str(tmp_path / "demo")]) == 2
    assert "not a folder" in error_line(capsys)


@pytest.mark.usefixtures("no_reading")
def test_a_file_in_the_place_of_the_figures_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out_figures").write_text("precious")
    assert run(tmp_path / "out.zarr", "--overwrite") == 2
    assert "not a folder" in error_line(capsys)
    assert (tmp_path / "out_figures").read_text() == "precious"


@pytest.mark.usefixtures("no_reading")
def test_the_current_folder_is_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(Path()) == 2
    assert "choose another -o" in error_line(capsys)
