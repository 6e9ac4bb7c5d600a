"""The .txt exports of imaging mass cytometry: one acquisition each, a line for every pixel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped
from nextmarker.io._imc_records import Shape, TextRecords, lazy_pixels, missing_pixels, read_text, scanned_shape
from nextmarker.io._panel import clean_names

if TYPE_CHECKING:
    from pathlib import Path

PIXEL_SIZE = 1.0  # micrometres from one laser shot to the next, where the file does not say
COLUMNS = b"Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\t"  # then the channels
UTF8_MARK = b"\xef\xbb\xbf"


def is_export(path: Path) -> bool:
    """Whether a file is an export of an acquisition."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(UTF8_MARK + COLUMNS)).removeprefix(UTF8_MARK).startswith(COLUMNS)


def exports_of(mcd: Path) -> list[Path]:
    """List the exports beside an .mcd file. One that begins with the stems of several belongs to the longest."""
    beside = sorted(path for path in mcd.parent.iterdir() if not path.name.startswith("."))
    stems = [path.stem for path in beside if path.suffix.lower() == ".mcd"]

    def owner(path: Path) -> str:
        return max((stem for stem in stems if path.stem.startswith(f"{stem}_")), key=len, default="")

    return [path for path in beside if owner(path) == mcd.stem and number(path) is not None and is_export(path)]


def number(path: Path) -> int | None:
    """The number of the acquisition, with which the name of an export ends."""
    found = re.search(r"_(\d{1,9})$", path.stem)
    return int(found[1]) if found else None


def read_alone(path: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read an export that has no .mcd file beside it."""
    # an acquisition is called ROI_001 unless the user names it
    sample = re.fullmatch(r"(.+?)(_ROI_?\d+)?_\d+", path.stem)
    try:
        return [export_image(path, sample[1] if sample else path.stem, pixel_size)], []
    except ValueError as damage:
        return [], [Skipped(str(path), str(damage))]


def export_image(path: Path, sample: str, pixel_size: float | None) -> Image:
    """Read an export.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    labels, metals, notes = _channels(path)
    records, shape, remarks = _records(path, len(labels))
    description = path.stem.removeprefix(sample).removesuffix(f"_{number(path)}").strip("_")
    known = {"sample": sample, "acquisition": number(path), "description": description or None}
    return Image(
        path.stem,
        lazy_pixels(records, shape),
        clean_names(labels, metals),
        PIXEL_SIZE if pixel_size is None else float(pixel_size),
        originals=labels,
        metals=metals,
        metadata={key: value for key, value in known.items() if value is not None},
        source=str(path),
        notes=(*notes, *remarks),
    )


def _channels(path: Path) -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Labels and metals of the channels, from the first line."""
    if not is_export(path):
        msg = "it is no .txt export of imaging mass cytometry: its first line does not begin with Start_push, End_push"
        raise ValueError(msg)
    with path.open("rb") as file:
        line = file.readline().removeprefix(UTF8_MARK)
    try:
        text, notes = line.decode("utf-8"), []
    except UnicodeDecodeError:
        text, notes = line.decode("cp1252", errors="replace"), ["its channel names are not UTF-8: read as Windows-1252"]
    labels, metals = [], []
    for column in text.strip("\r\n").split("\t")[6:]:
        channel = re.fullmatch(r"(.*)\(([A-Za-z]+)(\d+)\D*\)", column.strip())
        if channel is None:
            msg = f"its column {column!r} does not name a channel and its metal, such as 'CD3(Er170Di)'"
            raise ValueError(msg)
        labels.append(channel[1])
        metals.append(channel[2] + channel[3])
    return tuple(labels), tuple(metals), notes


def _records(path: Path, n_channels: int) -> tuple[TextRecords, Shape, list[str]]:
    count, cut = _count_lines(path, 6 + n_channels)
    try:
        placed = read_text(path, [3, 4], count)
    except ValueError as error:
        msg = f"its table cannot be read: {error}"
        raise ValueError(msg) from error
    shape = scanned_shape(placed)
    notes = ["its last line is cut short and was left out"] if cut else []
    return TextRecords(path, count, n_channels), shape, [*notes, *missing_pixels(count, shape)]


def _count_lines(path: Path, width: int) -> tuple[int, bool]:
    """How many whole lines follow the header, and whether a last one has no end."""
    count = -1
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return count, True
            values = line.rstrip(b"\r\n")
            if values.count(b"\t") != width - 1 or b"\r" in values:
                msg = f"line {count + 2} does not have the {width} values that the header names"
                raise ValueError(msg)
            count += 1
    return count, False
