"""Two small images in files, and two analyses of them that the tests share: by `nextmarker run`, and image by image."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import tifffile

import nextmarker as nm
from nextmarker import cli
from nextmarker.cli import saving

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
SNAKEFILE = re.search(r"```text\n(# Snakefile.*?)```", PAGE, re.DOTALL)[1]

DETECTING = ["--nuclear-channels", "DNA1,DNA2", "--diameter", "6"]
TRAINING = ["--steps", "3", "--patch-size", "8", "--exclude", "DNA1,DNA2,Ki67,CD4,CD8,CD31,E-cadherin"]
TYPES = "type,PanKRT,CD3,CD20\ntumour,1,-1,-1\nT cell,-1,1,-1\nB cell,-1,-1,1\n"


STUDY = """
nuclear-channels = ["DNA1", "DNA2"]
diameter = 6
steps = 3
patch-size = 8
exclude = ["DNA1", "DNA2", "Ki67", "CD4", "CD8", "CD31", "E-cadherin"]
"""
"""The same options in a file."""


class Analysis(NamedTuple):
    folder: Path
    images: list[str]
    printed: str

    def __call__(self, *arguments: str) -> int:
        """Run a command with the arguments, in which {} is the folder."""
        return cli.main([argument.format(self.folder) for argument in arguments])


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("images")
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=80)
    for name, image in sdata.images.items():
        header = {"axes": "CYX", "Channel": {"Name": image["c"].values.tolist()}, "PhysicalSizeX": 1.0}
        tifffile.imwrite(folder / f"{name}.ome.tif", image.to_numpy(), metadata=header | {"PhysicalSizeY": 1.0})
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="session")
def analysis(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """The results of `nextmarker run` with signatures and a sample sheet, and what it printed."""
    folder = tmp_path_factory.mktemp("analysis")
    (folder / "types.csv").write_text(TYPES)
    (folder / "samples.csv").write_text("image,patient,group\ntissue_1,A,case\ntissue_2,B,control\n")
    sheets = ["--signatures", f"{folder}/types.csv", "--samples", f"{folder}/samples.csv"]
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        code = cli.main(["run", *DETECTING, images[0], *TRAINING, "-o", f"{folder}/out.zarr", *sheets, images[1]])
    assert code == 0, lines
    return Analysis(folder, images, "\n".join(lines))


class Study(NamedTuple):
    model: Path
    stores: list[str]
    """One for each image."""
    store: Path
    """All images, clustered and annotated."""
    report: Path


@pytest.fixture(scope="session")
def study(images: list[str], tmp_path_factory: pytest.TempPathFactory) -> Study:
    """What the Snakemake rules of the documentation make; figures are left out, and reports say only that they are."""
    folder = tmp_path_factory.mktemp("study")
    shells = dict(re.findall(r'rule (\w+):.*?shell: "(.*?)"\n', SNAKEFILE, re.DOTALL))
    assert shells.keys() == {"train", "embed", "cluster", "report"}

    def work(rule: str, given: object, output: str) -> str:
        for line in shells[rule].format(input=given, output=output).split("&&"):
            program, *arguments = shlex.split(line)
            assert program == "nextmarker"
            assert cli.main(arguments) == 0
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(saving, "draw", lambda *_: None)
        patch.setattr(nm.pl, "report", lambda _, path, **__: Path(path).write_text("report"))
        Path("study.toml").write_text(STUDY)
        Path("types.csv").write_text(TYPES)
        for name in ("slides", "embedded"):  # Snakemake makes the folders of outputs
            Path(name).mkdir()
        slides = [str(shutil.copy(image, "slides")) for image in images]
        model = work("train", " ".join(slides), "model.safetensors")
        stores = [
            work("embed", SimpleNamespace(image=slide, model=model), f"embedded/{Path(slide).name.split('.')[0]}.zarr")
            for slide in slides
        ]
        store = work("cluster", " ".join(stores), "study.zarr")
        report = work("report", store, "study_report.html")
    return Study(folder / model, [str(folder / store) for store in stores], folder / store, folder / report)
