"""The output folder of MCMICRO: registered images, the table of markers, and masks."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped, check_pixel_size, distinct, to_spatialdata
from nextmarker.io._stack import Stack, stack_image, stem
from nextmarker.io._tiff import open_file, read_masks

if TYPE_CHECKING:
    import dask.array as da
    from spatialdata import SpatialData

MARKERS = "markers.csv"
WHOLE_SLIDES, CORES = "registration", "dearray"
MASKS = ("cell", "cellMask", "cellRing", "nuclei", "nucleiMask")  # the first that is there
COLUMN = "marker_name"


def read_mcmicro(path: str | Path, *, pixel_size: float | None = None) -> SpatialData:
    r"""Read the output folder of MCMICRO, lazily.

    Parameters
    ----------
    path
        A folder with `markers.csv`, whose column `marker_name` names the channels, and `registration/*.ome.tif`, or
        `dearray/*.ome.tif` with the cores of a tissue array, which come before the whole slides. Masks are read from
        `segmentation/<method>-<image>/cell.ome.tif`, or else from those of the nuclei.
    pixel_size
        Micrometres per pixel. By default what the OME headers say, and unknown where they say nothing.

    Returns
    -------
    SpatialData with one image per file, (c, y, x), named as the file; and the masks, int (y, x), as
    `sdata.labels["masks_" + name]`. See :func:`nextmarker.io.read` for what else it holds.

    Raises
    ------
    FileNotFoundError
        If the folder is not laid out like this.
    TypeError
        If `pixel_size` is not a number.
    ValueError
        If `markers.csv` cannot be read, or no image can: it is damaged, or has another number of channels.

    Warns
    -----
    UserWarning
        If an image or its masks cannot be read, or markers have the same name: the second is numbered.

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
            f"{folder} is no output of MCMICRO: it needs a file {MARKERS} and images in {WHOLE_SLIDES}/ or {CORES}/, "
            "*.ome.tif."
        )
        raise FileNotFoundError(msg)
    return to_spatialdata(*mcmicro_images(folder, pixel_size))


def is_mcmicro(folder: Path) -> bool:
    """Whether a folder is laid out as MCMICRO does."""
    return (folder / MARKERS).is_file() and bool(_image_files(folder))


def mcmicro_images(folder: Path, pixel_size: float | None = None) -> tuple[list[Image], list[Skipped]]:
    """Read the registered images, or the cores of a tissue array, with their markers and masks.

    Raises
    ------
    ValueError
        If the table of markers cannot be read.
    """
    markers = read_markers(folder / MARKERS)
    images: list[Image] = []
    skipped: list[Skipped] = []
    for file in _image_files(folder):
        try:
            stacks, left_out = open_file(file)
            images += [_image(folder, stack, markers, pixel_size) for stack in stacks]
            skipped += left_out
        except (ValueError, OSError) as error:
            skipped.append(Skipped(str(file), str(error)))
    return images, skipped


def read_markers(path: Path) -> list[str]:
    """Read the names of the channels, in the order of the planes."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{path} is no table that can be read: {error}. Save it as CSV in UTF-8."
        raise ValueError(msg) from error
    if not rows or COLUMN not in rows[0]:
        msg = f"{path} has no column {COLUMN!r}; it has {list(rows[0]) if rows else 'no rows'}."
        raise ValueError(msg)
    return [(row[COLUMN] or "").strip() for row in rows]


def _image_files(folder: Path) -> list[Path]:
    """The cores of a tissue array where there are any, else the whole slides."""
    found = [sorted(f for f in (folder / part).glob("*.ome.tif*") if f.is_file()) for part in (CORES, WHOLE_SLIDES)]
    return found[0] or found[1]


def _image(folder: Path, stack: Stack, markers: list[str], pixel_size: float | None) -> Image:
    if len(markers) != stack.n_channels:
        msg = f"{stack.source} has {stack.n_channels} channels, and {folder / MARKERS} names {len(markers)}."
        raise ValueError(msg)
    image = stack_image(stack, distinct(markers), pixel_size)
    labels, note = _masks(folder, stack)
    # markers that repeat are numbered, and reported, with those of all readers
    return replace(image, channels=tuple(markers), originals=None, labels=labels, notes=(note,) if note else ())


def _masks(folder: Path, stack: Stack) -> tuple[da.Array | None, str]:
    """Masks of an image, ``segmentation/<method>-<image>/cell.ome.tif``, and what kept them from being read."""
    files = [
        file
        for kind in MASKS
        for file in sorted((folder / "segmentation").glob(f"*-{stem(stack.path)}/{kind}.*"))
        if stem(file) == kind
    ]
    for file in files[:1]:
        try:
            return read_masks(file, stack.shape), ""
        except (ValueError, OSError) as error:
            return None, f"masks left out: {error}"
    return None, ""
