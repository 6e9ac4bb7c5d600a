"""Reads steinbock directories: images, the panel with their channel names, and masks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nextmarker.io._image import Image, Skipped, check_pixel_size, to_spatialdata
from nextmarker.io._panel import choose_channels, metal_or_nothing, read_panel
from nextmarker.io._pixel_size import check_square, length
from nextmarker.io.tiff.file import file_images, read_masks, tiff_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData

# column of images.csv -> key and type of the information
METADATA = {
    "acquisition_id": ("acquisition", int),
    "acquisition_description": ("description", str),
    "acquisition_start_x_um": ("slide_x", float),
    "acquisition_start_y_um": ("slide_y", float),
}


def read_steinbock(
    path: str | Path, *, panel: str | Path | pd.DataFrame | None = None, pixel_size: float | None = None
) -> SpatialData:
    r"""Read a steinbock directory lazily.

    Parameters
    ----------
    path
        A folder with `panel.csv` and `img/`, which contains one multi-channel TIFF per image. Masks, with the name of
        their image, are read from `masks/`, otherwise from the first folder in alphabetical order whose name starts
        with `masks`. Information on the acquisition is read from `images.csv` if it exists.
    panel
        A panel to apply after `panel.csv`, see :func:`nextmarker.io.read`.
    pixel_size
        Micrometres per pixel. By default the value in `images.csv`, or unknown without it.

    Returns
    -------
    SpatialData with one image per TIFF, (c, y, x), named like the file, with the channels that `panel.csv` keeps, and
    the masks, int (y, x), in `sdata.labels["masks_" + name]`. See :func:`nextmarker.io.read` for the other contents.

    Raises
    ------
    FileNotFoundError
        If the folder, `panel.csv` or `img/` does not exist.
    TypeError
        If `panel` or `pixel_size` has the wrong type.
    ValueError
        If no image can be read, or a panel is not valid.

    Warns
    -----
    UserWarning
        If an image is skipped because it is damaged or its number of channels differs from `panel.csv`; or if masks are
        skipped because they are damaged or of another size.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, tifffile, nextmarker as nm
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = pathlib.Path(temporary.name)
    >>> _ = (folder / "panel.csv").write_text("channel,name,keep\nIr191,DNA1,1\nXe131,,0\nEr170,CD3,1\n")
    >>> for name, pixels in {"img": np.ones((2, 30, 40), np.float32), "masks": np.ones((30, 40), np.uint16)}.items():
    ...     (folder / name).mkdir()
    ...     tifffile.imwrite(folder / name / "core.tiff", pixels, photometric="minisblack")
    >>> sdata = nm.io.read_steinbock(folder)
    >>> sdata["core"]["c"].values.tolist(), list(sdata.labels)
    (['DNA1', 'CD3'], ['masks_core'])
    >>> temporary.cleanup()
    """
    check_pixel_size(pixel_size)
    folder = Path(path).expanduser()
    if not is_steinbock(folder):
        msg = f"{folder} is not a steinbock directory, which has a file panel.csv and a folder img."
        raise FileNotFoundError(msg)
    return to_spatialdata(*choose_channels(*read_all(folder, pixel_size), panel))


def is_steinbock(path: Path) -> bool:
    """Whether a folder is a steinbock directory."""
    return (path / "panel.csv").is_file() and (path / "img").is_dir()


def read_all(folder: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read every readable image."""
    kept = [row for row in read_panel(folder / "panel.csv") if row.keep]
    table = _image_table(folder / "images.csv")
    masks = _masks_folder(folder)
    images: list[Image] = []
    skipped: list[Skipped] = []
    for file in tiff_files(folder / "img"):
        known = table.get(file.name, {})
        try:
            size = _pixel_size(known, file) if pixel_size is None else pixel_size
            found, left_out = file_images(file, [row.name or row.channel for row in kept], size)
        except ValueError as damage:
            skipped.append(Skipped(str(file), str(damage)))
            continue
        skipped += left_out
        for image in found:
            named = replace(
                image,
                originals=tuple(row.channel for row in kept),
                metals=tuple(metal_or_nothing(row.channel) for row in kept),
                metadata={**image.metadata, **_metadata(known)},
            )
            images.append(_with_masks(named, masks / file.name) if masks else named)
    return images, skipped


def _masks_folder(folder: Path) -> Path | None:
    """Choose the folder of masks; of several, the first in the alphabet, which is `masks`."""
    return next((entry for entry in sorted(folder.glob("masks*")) if entry.is_dir()), None)


def _with_masks(image: Image, file: Path) -> Image:
    if not file.is_file():
        return image
    try:
        return replace(image, labels=read_masks(file, image.pixels.shape[1:]))
    except (ValueError, OSError) as error:
        return replace(image, notes=(*image.notes, f"masks left out: {error}"))


def _image_table(file: Path) -> dict[str, dict[str, str]]:
    """Information of steinbock on each image file; empty if it cannot be read."""
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False).to_dict("records")
    except (OSError, ValueError):
        return {}
    return {str(row["image"]): {str(key): str(value) for key, value in row.items()} for row in rows if "image" in row}


def _metadata(known: Mapping[str, str]) -> dict[str, str | float | int]:
    metadata: dict[str, str | float | int] = {}
    if known.get("source_file"):
        metadata["sample"] = Path(known["source_file"]).stem
    for column, (key, kind) in METADATA.items():
        if known.get(column):
            with suppress(ValueError):  # not a number: unknown
                metadata[key] = kind(known[column])
    return metadata


def _pixel_size(known: Mapping[str, str], file: Path) -> float | None:
    width = length(known.get("acquisition_width_um", ""))
    pixels = length(known.get("width_px", ""))
    return check_square((width / pixels, width / pixels), file) if width and pixels else None
