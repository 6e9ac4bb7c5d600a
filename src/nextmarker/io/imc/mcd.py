"""Reads .mcd files of imaging mass cytometry by acquisition, or their exports if these are more complete."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped, check_pixel_size, to_spatialdata
from nextmarker.io._panel import choose_channels, clean_names
from nextmarker.io._pixel_size import check_square, stated_size
from nextmarker.io.imc.records import PLACE, BinaryRecords, Shape, lazy_pixels, missing_pixels, scanned_shape
from nextmarker.io.imc.schema import acquisitions_of, metals_of
from nextmarker.io.imc.txt import PIXEL_SIZE, existing_file, export_image, exports_of, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from readimc.data import Acquisition
    from spatialdata import SpatialData


def read_mcd(
    path: str | Path, *, panel: str | Path | pd.DataFrame | None = None, pixel_size: float | None = None
) -> SpatialData:
    """Read all acquisitions of an .mcd file (imaging mass cytometry) lazily.

    Parameters
    ----------
    path
        An .mcd file. Acquisitions that are damaged or incomplete are read from the .txt exports in the same folder,
        `STEM_DESCRIPTION_ID.txt` for `STEM.mcd`. Panoramas are left out.
    panel
        Channels to keep and their new names, see :func:`nextmarker.io.read`.
    pixel_size
        Micrometres per pixel. By default the value in the file, usually 1.

    Returns
    -------
    SpatialData with one image per acquisition, float32 (c, y, x), named `STEM_DESCRIPTION_ID` like its export; a dask
    array in blocks of all channels and 1024 x 1024 pixels, since the file stores the channels of a pixel together. See
    :func:`nextmarker.io.read` for the other contents and the channel names.

    An acquisition that stopped early has the rows that were scanned, with zeros for the missing part of the last row.
    An acquisition without pixels, or a damaged one without an export, is skipped. :func:`nextmarker.io.report` lists
    all of this.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `panel` or `pixel_size` has the wrong type.
    ValueError
        If no acquisition can be read, or the panel is not valid or keeps a channel that no acquisition has. Also when
        pixels are computed, if their positions in the file are impossible.

    Warns
    -----
    UserWarning
        If an acquisition is skipped, incomplete, or was read from its export.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.io.read_mcd("slide.mcd")  # doctest: +SKIP
    >>> list(sdata.images)  # doctest: +SKIP
    ['slide_ROI_001_1', 'slide_ROI_002_2']
    >>> sdata["slide_ROI_001_1"]["c"].values.tolist()  # doctest: +SKIP
    ['DNA1', 'CD3', 'panCK']
    """
    check_pixel_size(pixel_size)
    return to_spatialdata(*choose_channels(*read_all(existing_file(path), pixel_size), panel))


def is_mcd(path: Path) -> bool:
    """Whether this is an .mcd file, by its name."""
    return path.suffix.lower() == ".mcd" and path.is_file()


def read_all(path: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read every readable acquisition of an .mcd file, from its export if that has more pixels."""
    exports = exports_of(path)
    try:
        acquisitions = acquisitions_of(path)
    except ValueError as damage:
        lost = Skipped(str(path), f"{damage}; {len(exports)} .txt exports are next to it")
        return _sorted_out([lost, *(_export(txt, path, pixel_size, f"{path.name} cannot be read") for txt in exports)])
    parts = [_best(path, one, _export_of(one, path, exports), pixel_size) for one in acquisitions]
    known = {acquisition.id for acquisition in acquisitions}
    parts += [_export(txt, path, pixel_size, f"{path.name} lacks it") for txt in exports if number(txt) not in known]
    used = {part.source for part in parts}
    why = f"it belongs to an acquisition of {path.name}"
    return _sorted_out([*parts, *(Skipped(str(txt), why, expected=True) for txt in exports if str(txt) not in used)])


def _sorted_out(parts: Iterable[Image | Skipped]) -> tuple[list[Image], list[Skipped]]:
    parts = list(parts)
    images = [part for part in parts if isinstance(part, Image)]
    return images, [part for part in parts if isinstance(part, Skipped)]


def _export_of(acquisition: Acquisition, mcd: Path, exports: Iterable[Path]) -> Path | None:
    """Find the export by its full name, otherwise the only one with the number of the acquisition."""
    numbered = [txt for txt in exports if number(txt) == acquisition.id]
    exact = [txt for txt in numbered if txt.stem == _name(acquisition, mcd)]
    return (exact or numbered)[0] if len(numbered) == 1 or exact else None


def _name(acquisition: Acquisition, mcd: Path) -> str:
    """Name that the instrument gives to the export."""
    return "_".join(part for part in (mcd.stem, acquisition.description, str(acquisition.id)) if part)


def _best(path: Path, acquisition: Acquisition, export: Path | None, pixel_size: float | None) -> Image | Skipped:
    """Choose the acquisition, or its export if that has more pixels."""
    source = f"{path}: acquisition {acquisition.id}"
    try:
        size, remarks = _pixel_size(acquisition, source) if pixel_size is None else (float(pixel_size), ())
    except ValueError as error:
        return Skipped(source, str(error))
    own: Image | Skipped
    try:
        own = replace(_image(path, acquisition, size, source), remarks=remarks)
        problem = "; ".join(own.notes)
    except ValueError as damage:
        own = Skipped(source, str(damage))
        problem = own.reason
    if export is None or not problem:
        return own
    other = _export(export, path, size, f"in {path.name} {problem}")
    if isinstance(own, Image) and (isinstance(other, Skipped) or own.pixels.size >= other.pixels.size):
        return own
    if isinstance(other, Skipped):
        return Skipped(source, f"{problem}; and in {export.name} {other.reason}")
    return replace(other, name=_name(acquisition, path), metadata=_metadata(path, acquisition))


def _export(txt: Path, mcd: Path, pixel_size: float | None, why: str) -> Image | Skipped:
    try:
        image = export_image(txt, mcd.stem, pixel_size)
    except ValueError as damage:
        return Skipped(str(txt), str(damage))
    return replace(image, notes=(f"{why}: read from the .txt export", *image.notes))


def _image(path: Path, acquisition: Acquisition, pixel_size: float, source: str) -> Image:
    records = _records(path, acquisition)
    shape = _shape(records, acquisition)
    labels, metals = tuple(acquisition.channel_labels), metals_of(acquisition)
    planned = (_whole(acquisition, "MaxY"), _whole(acquisition, "MaxX"))
    return Image(
        _name(acquisition, path),
        lazy_pixels(records, shape),
        clean_names(labels, metals),
        pixel_size,
        originals=labels,
        metals=metals,
        metadata=_metadata(path, acquisition),
        source=source,
        notes=tuple(missing_pixels(records.count, planned)),
    )


def _records(path: Path, acquisition: Acquisition) -> BinaryRecords:
    start, end = _whole(acquisition, "DataStartOffset"), _whole(acquisition, "DataEndOffset")
    size = path.stat().st_size
    if start == end:
        msg = "it has no pixels: it was not acquired"
        raise ValueError(msg)
    if not 0 <= start < end <= size:
        msg = f"its pixels should be at bytes {start} to {end}, but the file has {size}"
        raise ValueError(msg)
    if acquisition.num_channels < 1 or _whole(acquisition, "ValueBytes") != 4:
        msg = f"it has {acquisition.num_channels} channels of {acquisition.metadata.get('ValueBytes')} bytes, not of 4"
        raise ValueError(msg)
    count = (end - start) // (4 * (PLACE + acquisition.num_channels))
    return BinaryRecords(path, start, count, acquisition.num_channels)


def _shape(records: BinaryRecords, acquisition: Acquisition) -> Shape:
    """Height and width of the scanned area; positions are read only if the image may be incomplete."""
    height, width = planned = _whole(acquisition, "MaxY"), _whole(acquisition, "MaxX")
    loaded = records.load()
    ends = loaded[[0, -1], :2].tolist() if records.count else []
    if records.count == height * width and ends == [[0, 0], [width - 1, height - 1]]:
        return planned
    scanned = scanned_shape(loaded)
    if scanned[0] > height or scanned[1] > width:
        msg = f"it has pixels outside of its {width} x {height}"
        raise ValueError(msg)
    return scanned


def _whole(acquisition: Acquisition, key: str) -> int:
    text = acquisition.metadata.get(key, "")
    if not text.strip().isdecimal():
        msg = f"its {key} is missing" if not text.strip() else f"its {key} is {text!r}, not an integer"
        raise ValueError(msg)
    return int(text)


def _pixel_size(acquisition: Acquisition, source: str) -> tuple[float, tuple[str, ...]]:
    """Micrometres between laser shots, and a note."""
    steps = (acquisition.metadata.get(f"AblationDistanceBetweenShots{axis}") or None for axis in "XY")
    stated = stated_size((next(steps), next(steps)), (None, None))
    size = check_square(stated.size, source) if stated.size else PIXEL_SIZE
    return size, (stated.note,) if stated.note else ()


def _metadata(path: Path, acquisition: Acquisition) -> dict[str, str | float | int]:
    known = {
        "description": acquisition.description,
        "start_time": acquisition.metadata.get("StartTimeStamp"),
        "end_time": acquisition.metadata.get("EndTimeStamp"),
    }
    metadata = {"sample": path.stem, "acquisition": acquisition.id}
    metadata |= {key: value for key, value in known.items() if value}
    with suppress(ValueError):  # not a number: unknown position
        if acquisition.roi_coords_um:
            metadata["slide_x"], metadata["slide_y"] = map(float, acquisition.roi_coords_um[0])
    return metadata
