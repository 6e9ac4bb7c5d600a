"""Two small images in files, and one analysis of them that the tests share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import tifffile

import nextmarker as nm
from nextmarker import cli

DETECTING = ["--nuclear-channels", "DNA1,DNA2", "--diameter", "6"]
TRAINING = ["--steps", "3", "--patch-size", "8", "--exclude", "DNA1,DNA2,Ki67,CD4,CD8,CD31,E-cadherin"]
TYPES = "type,PanKRT,CD3,CD20\ntumour,1,-1,-1\nT cell,-1,1,-1\nB cell,-1,-1,1\n"


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
