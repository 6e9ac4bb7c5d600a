"""Commands that work on stores: join, cluster, annotate, report and status."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import spatialdata
import tifffile
from spatialdata import SpatialData

import nextmarker as nm
from nextmarker import cli
from nextmarker.cli import saving

from .conftest import Analysis, Study


@pytest.fixture
def store(analysis: Analysis, tmp_path: Path) -> Path:
    """A copy of the store of the analysis, with its report."""
    shutil.copytree(analysis.folder / "out.zarr", tmp_path / "out.zarr")
    (tmp_path / "out_report.html").write_text("old")
    return tmp_path / "out.zarr"


def pixel_files(store: Path) -> dict[str, int]:
    files = [path for path in (store / "images").rglob("*") if path.is_file() and path.suffix != ".json"]
    return {str(path.relative_to(store)): path.stat().st_ino for path in files}


def test_images_embedded_one_by_one_are_clustered_as_if_together(analysis: Analysis, study: Study) -> None:
    joined, together = (spatialdata.read_zarr(path) for path in (study.store, analysis.folder / "out.zarr"))
    assert {*joined.images} == {*together.images}
    assert {*joined.shapes} == {*together.shapes}
    columns = ["region", "instance_id", "image", "nextmarker"]
    own, expected = joined["table"].obs[columns], together["table"].obs[columns]
    assert own.astype(str).equals(expected.astype(str))
    record, whole = (sdata["table"].uns["nextmarker"]["embed"] for sdata in (joined, together))
    assert record["images"].tolist() == whole["images"].tolist()
    assert (record["background"] == whole["background"]).all()
    assert joined.attrs["nextmarker_pixel_size"] == together.attrs["nextmarker_pixel_size"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["{0}", "{1}"], "-o OUT.zarr"),
        (["{0}", "{0}", "-o", "{2}/all.zarr"], "given twice"),
        (["{2}"], "is not a store"),
        (["{0}", "--n-neighbors", "500"], "lower --n-neighbors"),
        (["{0}", "--restrict-to", "7"], "'nextmarker'"),
    ],
)
def test_stores_that_cannot_be_clustered_are_told(
    given: list[str], told: str, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["cluster", *(argument.format(*study.stores, tmp_path) for argument in given)]) == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_stores_with_the_same_image_are_not_joined(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(study.stores[0], tmp_path / "0.zarr")
    assert cli.main(["cluster", study.stores[0], f"{tmp_path}/0.zarr", "-o", f"{tmp_path}/all.zarr"]) == 2
    assert "'cells_tissue_1', 'tissue_1': give the image files different names" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["0.zarr"]


def test_clusters_of_a_store_are_replaced_without_copying_pixels(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nm.pl, "report", lambda _, path, **__: Path(path).write_text("new"))
    (store.parent / "out_figures").mkdir()
    (store.parent / "out_figures" / "annotation.png").write_text("of earlier clusters")
    before = pixel_files(store)
    assert cli.main(["cluster", str(store), "--resolution", "3", "--n-neighbors", "10"]) == 0
    assert pixel_files(store) == before
    assert (store.parent / "out_report.html").read_text() == "new"
    figures = {path.name for path in (store.parent / "out_figures").iterdir()}
    assert figures == {"cells.png", "marker_attribution.png", "patches.png"}
    printed = capsys.readouterr().out
    assert "since clusters have changed" in printed.splitlines()[-1]
    table = spatialdata.read_zarr(store)["table"]
    assert table.uns["nextmarker"]["cluster"]["resolution"] == 3

    monkeypatch.setattr(saving, "draw", lambda *_: None)
    written: list[SpatialData] = []
    monkeypatch.setattr(nm.io, "write", lambda sdata, *_, **__: written.append(sdata))
    assert cli.main(["cluster", str(store), "--restrict-to", "0", "--n-neighbors", "5", "--resolution", "2"]) == 0
    divided = written[0]["table"].obs["nextmarker"].astype(str)
    others = table.obs["nextmarker"] != "0"
    assert divided[others].equals(table.obs["nextmarker"][others].astype(str))
    assert divided[~others].str.startswith("0,").all()


def test_a_store_is_annotated(
    analysis: Analysis, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nm.pl, "report", lambda _, path, **__: Path(path).write_text("new"))
    monkeypatch.setattr(saving, "draw", lambda *_: None)
    (analysis.folder / "two.csv").write_text("type,PANCK,CD3\nepithelium,1,-1\nT cell,-1,1\n")
    given = ["--signatures", "{}/two.csv", "--aliases", "PANCK=PanKRT", "--overrule", "0=mine", "--min-score", "0"]
    assert analysis("annotate", str(store), *given) == 0
    table = spatialdata.read_zarr(store)["table"]
    sizes = table.obs["cell_type"].value_counts()
    assert "mine" in sizes.index
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in printed.splitlines()}
    assert all(str(cells) in rows[name] for name, cells in sizes.items())
    assert printed.splitlines()[-1].startswith("next: in Python")


def test_signatures_with_a_mistake_leave_the_store(
    analysis: Analysis, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (analysis.folder / "wrong.csv").write_text("type,CD99\nother,1\n")
    before = (store / "zarr.json").stat().st_ino
    assert analysis("annotate", str(store), "--signatures", "{}/wrong.csv") == 2
    assert "--aliases CD99=..." in capsys.readouterr().err
    assert (store / "zarr.json").stat().st_ino == before


def test_a_report_is_not_replaced_unless_asked(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nm.pl, "report", lambda _, path, **__: Path(path).write_text("new"))
    assert cli.main(["report", str(store)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["report", str(store), "-o", str(store.parent / "other.html")]) == 0
    assert cli.main(["report", str(store), "--overwrite"]) == 0
    assert [(store.parent / name).read_text() for name in ("out_report.html", "other.html")] == ["new", "new"]


def test_the_status_of_a_store(analysis: Analysis, study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert analysis("status", "{}/out.zarr") == 0
    printed = capsys.readouterr().out
    table = spatialdata.read_zarr(analysis.folder / "out.zarr")["table"]
    assert f"cells: {table.n_obs} in 2 images, 7 markers" in printed
    assert "steps: detect_cells, train, embed, cluster, marker_attribution" in printed
    assert f"nextmarker {nm.__version__}" in printed
    assert f"clusters: {table.obs['nextmarker'].nunique()} (0: " in printed
    assert "training: " in printed
    assert "next: in Python" in printed

    assert cli.main(["status", study.stores[0]]) == 0
    printed = capsys.readouterr().out
    assert "1 image, 'tissue_1'" in printed
    assert f"next: nextmarker cluster {study.stores[0]}" in printed


def test_the_status_of_images_lists_their_channels(
    analysis: Analysis, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", analysis.images[0]]) == 0
    first, channels, size, following = capsys.readouterr().out.splitlines()
    assert first.endswith("tissue_1.ome.tif: 1 image, 'tissue_1'")
    assert channels.startswith("channels: DNA1, DNA2, Ki67, CD3, ")
    assert size == "pixel size: 1 um"
    assert following.startswith("next: nextmarker run ")
    for image in analysis.images:
        shutil.copy(image, tmp_path)
    header = {"axes": "CYX", "Channel": {"Name": ["DNA", "CD3"]}}
    tifffile.imwrite(tmp_path / "other.ome.tif", np.zeros((2, 40, 40), np.uint16), metadata=header)
    assert cli.main(["status", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "channels of 'other': DNA, CD3\n" in printed
    assert "channels of 'tissue_1', 'tissue_2': DNA1, DNA2, " in printed


def test_the_status_of_images_without_names_tells_the_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((7, 40, 40), np.uint16))
    assert cli.main(["status", str(tmp_path / "plain.tif")]) == 2
    assert "Name all 7: --channel-names." in capsys.readouterr().err


def test_the_status_of_a_model_and_of_nothing(analysis: Analysis, capsys: pytest.CaptureFixture[str]) -> None:
    assert analysis("status", "{}/out_model.safetensors") == 0
    printed = capsys.readouterr().out
    assert "8 x 8 pixels of 1 um" in printed
    assert "CD3, CD20" in printed
    assert analysis("status", "{}/nothing.zarr") == 2
    assert "No store, model or images 'nothing.zarr' in " in (told := capsys.readouterr().err)
    assert told.rstrip().endswith("Correct the path.")
