"""Reads .txt exports of imaging mass cytometry: one acquisition per file, one line per pixel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped, check_pixel_size, to_spatialdata
from nextmarker.io._panel import choose_channels, clean_names
from nextmarker.io.imc.records import Shape, TextRecords, lazy_pixels, missing_pixels, read_text, scanned_shape

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

PIXEL_SIZE = 1.0  # micrometres between laser shots, if the file does not state it
COLUMNS = b"Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\t"  # then the channels
UTF8_MARK = b"\xef\xbb\xbf"


def read_imc_txt(
    path: str | Path, *, panel: str | Path | pd.DataFrame | None = None, pixel_size: float | None = None
) -> SpatialData:
    r"""Read a .txt export of one acquisition (imaging mass cytometry) lazily.

    Parameters
    ----------
    path
        A file with tab separated values, one line per pixel, as written by the instrument.
    panel
        Channels to keep and their new names, see :func:`nextmarker.io.read`.
    pixel_size
        Micrometres per pixel, which the file does not contain; by default 1, the distance between laser shots.

    Returns
    -------
    SpatialData with one image, float32 (c, y, x), named like the file; exports have values rounded to three decimals.
    See :func:`nextmarker.io.read` for the other contents and the channel names. The positions of the pixels are read
    immediately, their values when they are needed; then the whole file is read.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `panel` or `pixel_size` has the wrong type.
    ValueError
        If the file is not such an export, or rows are missing; if the panel is not valid or keeps a channel that does
        not exist. Also when pixels are computed, if a value is not a number.

    Warns
    -----
    UserWarning
        If the acquisition is incomplete.

    Examples
    --------
    >>> import pathlib, tempfile, nextmarker as nm
    >>> columns = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", "CD3_12((34))Er170(Er170Di)"]
    >>> lines = [columns] + [[0, 0, 0, x, y, 0, x + y] for y in range(2) for x in range(3)]
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "slide_ROI_001_1.txt")
    >>> _ = path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    >>> image = nm.io.read_imc_txt(path)["slide_ROI_001_1"]
    >>> image["c"].values.tolist(), image.sel(c="CD3").values.tolist()
    (['CD3'], [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    >>> folder.cleanup()
    """
    check_pixel_size(pixel_size)
    return to_spatialdata(*choose_channels(*read_alone(existing_file(path), pixel_size), panel))


def existing_file(path: str | Path) -> Path:
    """Raise an error for a path that is not a file."""
    path = Path(path).expanduser()
    if not path.is_file():
        msg = f"{path} is a folder: read it with nm.io.read." if path.is_dir() else f"No such file: {path}."
        raise FileNotFoundError(msg)
    return path


def is_export(path: Path) -> bool:
    """Whether a file is an export of an acquisition."""
    if path.suffix.lower() != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(UTF8_MARK + COLUMNS)).removeprefix(UTF8_MARK).startswith(COLUMNS)


def exports_of(mcd: Path) -> list[Path]:
    """List the exports next to an .mcd file. If the stems of several .mcd files match, the longest counts."""
    beside = sorted(path for path in mcd.parent.iterdir() if not path.name.startswith("."))
    stems = [path.stem for path in beside if path.suffix.lower() == ".mcd"]

    def owner(path: Path) -> str:
        return max((stem for stem in stems if path.stem.startswith(f"{stem}_")), key=len, default="")

    return [path for path in beside if owner(path) == mcd.stem and number(path) is not None and is_export(path)]


def number(path: Path) -> int | None:
    """Number of the acquisition, at the end of the name of an export."""
    found = re.search(r"_(\d{1,9})$", path.stem)
    return int(found[1]) if found else None


def read_alone(path: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read an export without an .mcd file."""
    # the default name of an acquisition is ROI_001
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
    """Labels and metals of the channels in the first line."""
    if not is_export(path):
        msg = "it is not an export of imaging mass cytometry, which begins with Start_push, End_push"
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
    """Number of complete lines after the header, and whether an incomplete one follows."""
    count = -1
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return count, True
            values = line.rstrip(b"\r\n")
            if values.count(b"\t") != width - 1 or b"\r" in values:
                msg = f"line {count + 2} does not have {width} values, as the header"
                raise ValueError(msg)
            count += 1
    return count, False
