"""`nextmarker run`, `train` and `embed`: what they leave, and that it can be repeated."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import spatialdata
import tifffile

import nextmarker as nm
from nextmarker import cli
from nextmarker.cli import saving, steps
from nextmarker.cli.places import places_of

from .conftest import DETECTING, TRAINING, Analysis


def test_a_run_leaves_everything_beside_its_store(analysis: Analysis) -> None:
    names = {path.name for path in analysis.folder.iterdir() if path.name.startswith("out")}
    endings = ["figures", "model.safetensors", "options.toml", "report.html"]
    assert names == {"out.zarr", *(f"out_{ending}" for ending in endings)}
    figures = {path.stem for path in (analysis.folder / "out_figures").iterdir()}
    assert {"cells", "training", "patches", "cell_types", "annotation"} <= figures


def test_a_run_ends_with_what_to_know_open_and_do(analysis: Analysis) -> None:
    *_, training, opens, following = analysis.printed.splitlines()
    assert training.startswith("training: ")
    assert "chance" in training
    assert opens.endswith("out_report.html")
    assert following.startswith("next: ")
    assert "nan" not in analysis.printed.lower()


def test_options_reach_the_library(analysis: Analysis) -> None:
    adata = spatialdata.read_zarr(analysis.folder / "out.zarr")["table"]
    record = adata.uns["nextmarker"]
    assert set(adata.var_names) == {"CD3", "CD20", "CD68", "HLA-DR", "PanKRT", "SMA", "Vimentin"}
    assert (record["train"]["steps"], record["train"]["patch_size"]) == (3, 8)
    assert set(record["detect_cells"]["diameter"].values()) == {6.0}
    assert set(adata.obs["group"]) == {"case", "control"}
    assert {"tumour", "T cell"} <= {*adata.obs["cell_type"]} <= {"tumour", "T cell", "B cell", "unknown"}


def test_nuclear_channels_among_the_markers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=20)
    options = {"only": None, "markers": None, "nuclear_channels": ["DNA1", "DNA2"], "diameter": 6, "missing": "error"}
    for number, (exclude, told) in enumerate([(["DNA2", "CD3"], True), (["DNA1", "DNA2"], False)]):
        given = SimpleNamespace(exclude=exclude, **options)
        adata = steps.detect(sdata.subset([*sdata.images]), given, tmp_path / f"{number}")
        assert ("markers: 12, with the nuclear DNA1 (--exclude" in capsys.readouterr().out) == told
        assert adata.n_vars == 12


def test_a_run_is_repeated_exactly_by_its_options(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "draw", lambda *_: None)
    options = f"{analysis.folder}/out_options.toml"
    elsewhere = tmp_path / "models" / "again.safetensors"
    elsewhere.parent.mkdir()
    given = ["--options", options, "-o", f"{tmp_path}/again.zarr", "--no-report", "--save-model", str(elsewhere)]
    assert cli.main(["run", *given]) == 0
    assert elsewhere.read_bytes() == (analysis.folder / "out_model.safetensors").read_bytes()
    tables = [spatialdata.read_zarr(path)["table"] for path in (analysis.folder / "out.zarr", tmp_path / "again.zarr")]
    assert tables[0].obs.equals(tables[1].obs)
    ours, again = (tomllib.loads(Path(path).read_text()) for path in (options, tmp_path / "again_options.toml"))
    assert {key for key in ours if ours[key] != again[key]} == {"output", "report"}
    assert again["save-model"] == str(elsewhere)


def test_training_alone_gives_the_model_of_a_run(
    analysis: Analysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{analysis.folder}/out_options.toml"  # of another command: what training has no use for is ignored
    assert cli.main(["train", "--options", options, "-o", f"{tmp_path}/model.safetensors"]) == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (analysis.folder / "out_model.safetensors").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model_figures", "model_options.toml"}
    assert "training: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--nuclear-channels", "DNA9"], "Choose others: --nuclear-channels."),
        (["--nuclear-channels", "XYZ"], "'PanKRT', 'SMA', 'Vimentin'"),  # all channels, not only some
        (["--exclude", "ki67"], "Did you mean 'Ki67'? Choose among these: --exclude"),
        (["--markers", "CD3,cd20"], "Did you mean 'CD20'?"),
        (["--only", "tissue_9"], "'tissue_1'"),
        (["--signatures", "{}/unknown.csv"], "--aliases CD99=..."),
        (["--samples", "{}/unknown.csv"], "--on"),
        (["--model", "{}/out_model.safetensors", "--exclude", "CD3"], "--missing zero"),
    ],
)
def test_mistakes_are_told_before_training_in_words_of_the_command_line(
    arguments: list[str],
    told: str,
    analysis: Analysis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(nm.tl, "train", lambda *_, **__: pytest.fail("a model was trained"))
    monkeypatch.setattr(nm.tl, "embed", lambda *_, **__: pytest.fail("cells were embedded"))
    (analysis.folder / "unknown.csv").write_text("type,CD99\nother,1\n")
    given = ["run", *DETECTING, *analysis.images, "-o", f"{tmp_path}/out.zarr", *arguments]
    assert analysis(*given) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not any(tmp_path.iterdir())


@pytest.mark.filterwarnings("default")
def test_a_type_with_an_unknown_marker_is_told_before_training(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nm.tl, "train", stop)
    (tmp_path / "types.csv").write_text("type,CD3,CD99\nT cell,1,\nother,-1,1\n")
    given = ["--signatures", f"{tmp_path}/types.csv", "-o", f"{tmp_path}/out.zarr"]
    assert analysis("run", *DETECTING, *analysis.images, *given) == 130
    assert "No marker 'CD99'" in (told := capsys.readouterr().err)
    assert "'other'" in told


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("model", [[], ["--model", "{}/out_model.safetensors"]])
def test_a_marker_that_signatures_name_in_vain_is_told_once(
    model: list[str],
    analysis: Analysis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(saving, "draw", lambda *_: None)
    (tmp_path / "types.csv").write_text("type,CD3,PanKRT,CD99\nT cell,1,-1,\ntumour,-1,1,\nother,,,1\n")
    given = ["--signatures", f"{tmp_path}/types.csv", "-o", f"{tmp_path}/out", "--no-report"]
    chosen = [*DETECTING, *TRAINING] if not model else DETECTING
    assert analysis("run", *chosen, *analysis.images, *given, *model) == 0
    assert capsys.readouterr().err.count("No marker 'CD99'") == 1


def test_an_image_without_cells_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = {"axes": "CYX", "Channel": {"Name": ["DNA", "CD3"]}}
    tifffile.imwrite(tmp_path / "black.ome.tif", np.zeros((2, 40, 40), np.uint16), metadata=header)
    assert cli.main(["run", f"{tmp_path}/black.ome.tif", "--nuclear-channels", "DNA", "-o", f"{tmp_path}/out"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "error: No cells in 'black'. Choose other channels: --nuclear-channels."
    assert [path.name for path in tmp_path.iterdir()] == ["black.ome.tif"]


def test_a_store_without_its_ending_gets_it(analysis: Analysis, tmp_path: Path) -> None:
    shutil.copytree(analysis.folder / "out.zarr", tmp_path / "mine.v2.zarr")
    assert cli.main(["status", f"{tmp_path}/mine.v2"]) == 0
    for more in ([], ["-o", f"{tmp_path}/page"]):
        assert cli.main(["report", f"{tmp_path}/mine.v2", *more]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.v2.zarr", "mine.v2_report.html", "page.html"}


@pytest.mark.parametrize(
    ("output", "kind", "name"),
    [
        ("out", "store", "out.zarr"),
        ("out.v2", "store", "out.v2.zarr"),
        ("out.zarr", "store", "out.zarr"),
        ("there", "store", "there"),  # which is told to be no store
        ("out", "model.safetensors", "out.safetensors"),
        ("out.model", "model.safetensors", "out.model"),
        ("out", "report.html", "out.html"),
    ],
)
def test_endings_are_completed(output: str, kind: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert places_of(f"{tmp_path}/{output}", kind)[kind].name == name
