"""Writers of imaging mass cytometry files for the tests: `imc.write_mcd`, `imc.write_txt` and what these take."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

LABELS = ["107Ag", "Cytoker_651((3356))Pr141", "DNA1"]
METALS = ["Ag107", "Pr141", "Ir191"]


@dataclass
class Acquisition:
    """What a test writes into an .mcd file."""

    id: int
    pixels: np.ndarray
    """(c, y, x)"""
    description: str = ""
    planned: tuple[int, int] | None = None
    """Height and width that were to be scanned."""
    order: np.ndarray | None = None
    """Of the pixels in the file."""
    xml: dict = field(default_factory=dict)
    """Entries that differ from what is right; None to leave them out."""
    labels: list = field(default_factory=lambda: LABELS)

    def records(self) -> np.ndarray:
        """(pixels, x y z and channels), as they lie in the file."""
        _, height, width = self.pixels.shape
        y, x = np.mgrid[:height, :width]
        places = np.column_stack([x.ravel(), y.ravel(), np.arange(height * width)])
        rows = np.column_stack([places, self.pixels.reshape(len(self.pixels), -1).T]).astype("<f4")
        return rows if self.order is None else rows[self.order]


def entries(tag, **values):
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in values.items() if value is not None)
    return f"<{tag}>{inner}</{tag}>"


def acquisition_xml(acquisition, start, end):
    height, width = acquisition.planned or acquisition.pixels.shape[1:]
    known = {
        "ID": acquisition.id,
        "AcquisitionROIID": acquisition.id,
        "Description": acquisition.description,
        "DataStartOffset": start,
        "DataEndOffset": end,
        "ValueBytes": 4,
        "MaxX": width,
        "MaxY": height,
        "AblationDistanceBetweenShotsX": 1,
        "AblationDistanceBetweenShotsY": 1,
        "ROIStartXPosUm": 31080000,  # the instrument writes the start times 1000
        "ROIStartYPosUm": 13449000,
        "ROIEndXPosUm": 31140.5,
        "ROIEndYPosUm": 13390.25,
        "StartTimeStamp": "2021-03-05T13:36:08+01:00",
    }
    names = [("X", "X"), ("Y", "Y"), ("Z", "Z")]
    names += [(f"{metal[:2]}({metal[2:]})", label) for metal, label in zip(METALS, acquisition.labels, strict=True)]
    channels = "".join(
        entries("AcquisitionChannel", AcquisitionID=acquisition.id, OrderNumber=n, ChannelName=name, ChannelLabel=label)
        for n, (name, label) in enumerate(names)
    )
    roi = entries("AcquisitionROI", ID=acquisition.id, PanoramaID=1)
    return roi + entries("Acquisition", **(known | acquisition.xml)) + channels


def write_mcd(path, *acquisitions):
    """Pixels first, then the schema, in UTF-16, at the end: as the instrument does."""
    body = b"\x00" * 16
    xml = entries("Slide", ID=0) + entries("Panorama", ID=1, SlideID=0, Type="Default")
    for acquisition in acquisitions:
        records = acquisition.records().tobytes()
        xml += acquisition_xml(acquisition, len(body), len(body) + len(records))
        body += records
    path.write_bytes(body + f"<MCDSchema>{xml}</MCDSchema>".encode("utf-16-le"))


def write_txt(path, pixels, labels=LABELS, metals=METALS, order=None, encoding="utf-8"):
    columns = [f"{label}({metal}Di)" for label, metal in zip(labels, metals, strict=True)]
    header = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", *columns]
    rows = Acquisition(1, pixels, order=order).records()
    lines = [
        "\t".join(["1", "2", "384", *(f"{v:.0f}" for v in row[:3]), *(f"{v:.3f}" for v in row[3:])]) for row in rows
    ]
    path.write_bytes("\n".join(["\t".join(header), *lines, ""]).encode(encoding))


def counts(seed=0, height=5, width=7):
    """Three channels with three decimals, not square."""
    return (np.random.default_rng(seed).poisson(2000, (3, height, width)) / 1000).astype(np.float32)


@pytest.fixture(scope="session")
def imc():
    """The writers: tests cannot import one another."""
    return SimpleNamespace(
        write_mcd=write_mcd, write_txt=write_txt, Acquisition=Acquisition, counts=counts, labels=LABELS, metals=METALS
    )


@pytest.fixture
def slide(tmp_path):
    """Two acquisitions of different size, and their exports: the .mcd file and the pixels of both."""
    first, second = counts(1), counts(2, 6, 4)
    write_mcd(tmp_path / "slide.mcd", Acquisition(1, first, "ROI_001"), Acquisition(2, second, "tumour"))
    write_txt(tmp_path / "slide_ROI_001_1.txt", first)
    write_txt(tmp_path / "slide_tumour_2.txt", second)
    return tmp_path / "slide.mcd", first, second
