"""Reads the output folder of MCMICRO: registered images, the table of markers, and masks."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped, check_pixel_size, distinct, to_spatialdata
from nextmarker.io._names import stem
from nextmarker.io._panel import NO, YES
from nextmarker.io.tiff.file import open_file, read_masks
from nextmarker.io.tiff.stack import Stack, stack_image

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData

MARKERS, MARKERS_LEFT = "markers.csv", "markers_bs.csv"  # for raw images, and after background subtraction
WHOLE_SLIDES, SUBTRACTED, CORES = "registration", "background", "dearray"
MASKS = ("cell", "cellMask", "cellRing", "nuclei", "nucleiMask")  # the first that exists
COLUMN, REMOVE = "marker_name", "remove"


@dataclass(frozen=True)
class Marker:
    """A row of the table of markers."""

    name: str
    removed: bool
    """Whether the channel is missing in background-subtracted images."""


def read_mcmicro(path: str | Path, *, pixel_size: float | None = None) -> SpatialData:
    r"""Read the output folder of MCMICRO lazily.

    Parameters
    ----------
    path
        A folder with `markers.csv`, whose column `marker_name` has the channel names, and `registration/*.ome.tif`, or
        `dearray/*.ome.tif` with the cores of a tissue array, which are read instead of whole slides. If background was
        subtracted, `background/*.ome.tif` is read instead of `registration/`, with the names in `markers_bs.csv`.
        Channels with `remove` TRUE in `markers.csv` are left out, also from raw images. Masks are read from
        `segmentation/<method>-<image>/cell.ome.tif`, otherwise from the masks of the nuclei.
    pixel_size
        Micrometres per pixel. By default the value in the OME headers, or unknown if there is none.

    Returns
    -------
    SpatialData with one image per file, (c, y, x), named like the file, and the masks, int (y, x), in
    `sdata.labels["masks_" + name]`. See :func:`nextmarker.io.read` for the other contents. The report lists raw images
    that were replaced by those with background subtracted, and channels that were removed.

    Raises
    ------
    FileNotFoundError
        If the folder does not have this structure.
    TypeError
        If `pixel_size` is not a number.
    ValueError
        If `markers.csv` cannot be read, or all images are damaged or have another number of channels.

    Warns
    -----
    UserWarning
        If an image or its masks cannot be read; if markers have the same name, and the second is numbered; or if
        background was subtracted only from some images.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, tifffile, nextmarker as nm
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = pathlib.Path(temporary.name)
    >>> _ = (folder / "markers.csv").write_text("cycle,marker_name\n1,DNA1\n1,CD3\n")
    >>> (folder / "registration").mkdir()
    >>> pixels = np.ones((2, 30, 40), np.uint16)
    >>> tifffile.imwrite(folder / "registration" / "slide.ome.tif", pixels, photometric="minisblack")
    >>> nm.io.read_mcmicro(folder)["slide"]["c"].values.tolist()
    ['DNA1', 'CD3']
    >>> temporary.cleanup()
    """
    check_pixel_size(pixel_size)
    folder = Path(path).expanduser()
    if not is_mcmicro(folder):
        msg = (
            f"{folder} is not an output folder of MCMICRO, which has {MARKERS}, and *.ome.tif in {WHOLE_SLIDES}/ or "
            f"{CORES}/."
        )
        raise FileNotFoundError(msg)
    return to_spatialdata(*mcmicro_images(folder, pixel_size))


def is_mcmicro(folder: Path) -> bool:
    """Whether a folder has the structure of MCMICRO."""
    return (folder / MARKERS).is_file() and any(_files(folder, part) for part in (CORES, SUBTRACTED, WHOLE_SLIDES))


def mcmicro_images(folder: Path, pixel_size: float | None = None) -> tuple[list[Image], list[Skipped]]:
    """Read the registered images, or the cores of a tissue array, with markers and masks.

    Raises
    ------
    ValueError
        If the table of markers cannot be read.
    """
    markers = _read_markers(folder / MARKERS)
    left = next((_read_markers(file) for file in _tables_left(folder) if file.is_file()), None)
    files, skipped = _chosen_files(folder)
    images: list[Image] = []
    for file, note in files:
        try:
            stacks, left_out = open_file(file)
            found = [_image(folder, stack, markers, left, pixel_size) for stack in stacks]
        except (ValueError, OSError) as error:
            skipped.append(Skipped(str(file), str(error)))
        else:
            images += [replace(image, notes=(*image.notes, note)) if note else image for image in found]
            skipped += left_out
    return images, skipped


def _tables_left(folder: Path) -> list[Path]:
    return [folder / MARKERS_LEFT, folder / SUBTRACTED / MARKERS_LEFT]


def _chosen_files(folder: Path) -> tuple[list[tuple[Path, str]], list[Skipped]]:
    """Choose the cores, if any, otherwise each slide, raw only if its background was not subtracted; with notes."""
    cores, subtracted, raw = (_files(folder, part) for part in (CORES, SUBTRACTED, WHOLE_SLIDES))
    if cores or not subtracted:
        return [(file, "") for file in cores or raw], []
    done = {file: next((stem(other) for other in subtracted if _is_from(other, file)), "") for file in raw}
    why = "raw: {} was read instead, with the background subtracted"
    skipped = [Skipped(str(file), why.format(other), expected=True) for file, other in done.items() if other]
    note = "background was subtracted only from other images"
    return [*((file, "") for file in subtracted), *((file, note) for file in raw if not done[file])], skipped


def _is_from(subtracted: Path, raw: Path) -> bool:
    """Whether a file is another after background subtraction, such as ``slide_backsub`` and ``slide``."""
    return re.fullmatch(rf"{re.escape(stem(raw))}([_-]?(backsub|background|bs))?", stem(subtracted)) is not None


def _files(folder: Path, part: str) -> list[Path]:
    return sorted(file for file in (folder / part).glob("*.ome.tif*") if file.is_file())


def _read_markers(path: Path) -> list[Marker]:
    """Read the channels, in the order of the planes."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        rows = list(csv.DictReader(StringIO(text), delimiter=max(",;\t", key=first.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} cannot be read: {error}. Save it as CSV in UTF-8."
        raise ValueError(msg) from error
    if not rows or COLUMN not in rows[0]:
        msg = f"{path} has no column {COLUMN!r}; it has {list(rows[0]) if rows else 'no rows'}."
        raise ValueError(msg)
    return [Marker((row[COLUMN] or "").strip(), _is_removed(row.get(REMOVE), path)) for row in rows]


def _is_removed(value: str | None, path: Path) -> bool:
    text = (value or "").strip().lower()
    if text not in YES | NO:
        msg = f"{path} has {value!r} in the column {REMOVE!r}. Write TRUE for channels to leave out, or nothing."
        raise ValueError(msg)
    return text in YES


def _image(
    folder: Path, stack: Stack, markers: list[Marker], left: list[Marker] | None, pixel_size: float | None
) -> Image:
    """Name the channels by the table with the same number: for raw images, or after background subtraction."""
    after = left or [marker for marker in markers if not marker.removed]
    raw = stack.path.parent.name == WHOLE_SLIDES
    table = next((one for one in ([markers] if raw else [after, markers]) if len(one) == stack.n_channels), None)
    if table is None:
        names = f"names {len(markers)}" + ("" if raw else f", of which background subtraction keeps {len(after)}")
        msg = f"{stack.source} has {stack.n_channels} channels, and {folder / MARKERS} {names}."
        raise ValueError(msg)
    image = stack_image(stack, distinct([marker.name for marker in table]), pixel_size)
    kept = [place for place, marker in enumerate(table) if not marker.removed]
    if not kept:
        msg = f"{folder / MARKERS} removes all channels of {stack.source}."
        raise ValueError(msg)
    removed = [marker.name for marker in table if marker.removed]
    remarks = (f"without the channels that {MARKERS} removes: {', '.join(removed)}",) if removed else ()
    labels, note = _masks(folder, stack)
    return replace(
        image,
        pixels=image.pixels[kept],
        # repeated markers are numbered and reported as for all readers
        channels=tuple(table[place].name for place in kept),
        originals=None,
        labels=labels,
        notes=(note,) if note else (),
        remarks=(*image.remarks, *remarks),
    )


def _masks(folder: Path, stack: Stack) -> tuple[da.Array | None, str]:
    """Masks of an image, ``segmentation/<method>-<image>/cell.ome.tif``, or why they cannot be read."""
    names = list(dict.fromkeys([stem(stack.path), re.sub(r"[_-]?(backsub|background|bs)$", "", stem(stack.path))]))
    files = [
        file
        for name in names
        for kind in MASKS
        for file in sorted((folder / "segmentation").glob(f"*-{name}/{kind}.*"))
        if stem(file) == kind
    ]
    for file in files[:1]:
        try:
            return read_masks(file, stack.shape), ""
        except (ValueError, OSError) as error:
            return None, f"masks left out: {error}"
    return None, ""
