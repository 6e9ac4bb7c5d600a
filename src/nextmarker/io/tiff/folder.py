"""Reads folders of TIFFs: one file per channel, one file per image, or the output of MCMICRO."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import Image, Skipped, to_spatialdata
from nextmarker.io.store.ome_zarr import is_spatialdata, is_zarr, zarr_images
from nextmarker.io.tiff.channels import are_channels, join, open_all, without_pictures
from nextmarker.io.tiff.cycles import Part, all_channels, are_cycles, verdict
from nextmarker.io.tiff.file import check_arguments, listed, tiff_files
from nextmarker.io.tiff.mcmicro import is_mcmicro, mcmicro_images
from nextmarker.io.tiff.stack import stack_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

CHANNELS_WITHIN = "TIFs"  # subfolder of MIBI instruments for the channels of a field of view


def read_folder(path: str | Path, *, pixel_size: float | None = None) -> SpatialData:
    """Read a folder with one TIFF per channel lazily.

    Parameters
    ----------
    path
        A folder. Each TIFF in it is a channel, named by its OME header, otherwise by the file; the channels are sorted
        by file name. If it contains no TIFF but folders with TIFFs, these are the cycles of one image.
    pixel_size
        Micrometres per pixel. By default the value in the headers, or unknown if there is none.

    Returns
    -------
    SpatialData with one image, (c, y, x), named like the folder. See :func:`nextmarker.io.read` for the other contents.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If `pixel_size` is not a number.
    ValueError
        If the folder has no readable TIFF; if a TIFF has several channels; if the channels differ in shape, data type
        or pixel size; if pixels are not square, or their size is implausible; if the folders in it contain the same
        channels, which means that they are different images.

    Warns
    -----
    UserWarning
        If a file is skipped because it cannot be read or is a colour image; if two channels have the same name, and the
        second is numbered; or if every name in the headers repeats, and the channels are named by their files.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, nextmarker as nm
    >>> folder = tempfile.TemporaryDirectory()
    >>> for marker in ["DNA1", "CD3"]:
    ...     tifffile.imwrite(f"{folder.name}/{marker}.tif", np.ones((30, 40), np.uint16))
    >>> sdata = nm.io.read_folder(folder.name)
    >>> [image] = sdata.images.values()
    >>> image.shape, image["c"].values.tolist()
    ((2, 30, 40), ['CD3', 'DNA1'])
    >>> folder.cleanup()
    """
    check_arguments(None, pixel_size)
    path = Path(path).expanduser()
    if not path.is_dir():
        msg = f"No such folder: {path}."
        raise FileNotFoundError(msg)
    return to_spatialdata(*_as_one_image(path, pixel_size))


def _as_one_image(path: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read the channels in a folder, or in its subfolders, each of which is a cycle."""
    stacks, skipped = without_pictures(*open_all(tiff_files(path)))
    if not stacks and not skipped:
        parts, skipped = _parts(path)
        stacks = all_channels(parts)
        if len(parts) > 1 and not are_cycles(parts):
            msg = f"The folders in {path} have the same channels, so they are separate images: nm.io.read(...)."
            raise ValueError(msg)
    if not stacks and not skipped:
        msg = f"{path} has no TIFF file; it contains {listed(path)}."
        raise ValueError(msg)
    return [join(path, stacks, pixel_size)] if stacks else [], skipped


def _parts(path: Path) -> tuple[list[Part], list[Skipped]]:
    parts: list[Part] = []
    skipped: list[Skipped] = []
    for folder in _folders(path):
        stacks, left_out = without_pictures(*open_all(_files_within(folder)))
        skipped += left_out
        if are_channels(stacks):
            parts.append(Part(folder, stacks))
    return parts, skipped


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files_within(folder: Path) -> list[Path]:
    return tiff_files(folder) or tiff_files(folder / CHANNELS_WITHIN)


def folder_images(
    path: Path, channel_names: Sequence[str] | None = None, pixel_size: float | None = None
) -> tuple[list[Image], list[Skipped]]:
    """Read all images of a folder; files that cannot be read are skipped.

    The folder is the output of MCMICRO, or an image with one TIFF per channel, perhaps in a subfolder for each cycle,
    or it contains such folders and TIFFs with whole images. Only one level of subfolders is read.
    """
    if is_mcmicro(path):
        return mcmicro_images(path, pixel_size)
    stacks, skipped = open_all(tiff_files(path))
    channels, others = without_pictures(stacks, skipped)
    if are_channels(channels):
        return [join(path, channels, pixel_size)], others
    images = []
    for stack in stacks:
        if stack.n_channels == 1 and stack.channels is None:
            skipped.append(Skipped(stack.source, "one unnamed plane among stacks: a mask or another result"))
            continue
        try:
            images.append(stack_image(stack, channel_names, pixel_size))
        except ValueError as error:
            skipped.append(Skipped(stack.source, str(error)))
    found, left_out = _images_within(path, channel_names, pixel_size)
    return images + found, skipped + left_out


def _images_within(
    path: Path, channel_names: Sequence[str] | None, pixel_size: float | None
) -> tuple[list[Image], list[Skipped]]:
    """Read the subfolders of the given folder: separate images, or cycles of one image."""
    images: list[Image] = []
    skipped: list[Skipped] = []
    parts: list[Part] = []
    for folder in _folders(path):
        found, left_out = _look_into(folder, channel_names, pixel_size)
        skipped += left_out
        if isinstance(found, Part):
            parts.append(found)
        else:
            images += found
    one, note = verdict(path, parts, pixel_size)
    if one:
        return [*images, join(path, all_channels(parts), pixel_size)], skipped
    for part in parts:
        try:
            image = join(part.folder, part.stacks, pixel_size)
        except ValueError as error:
            skipped.append(Skipped(str(part.folder), str(error)))
        else:
            images.append(replace(image, notes=(*image.notes, note)) if note else image)
    return images, skipped


def _look_into(
    folder: Path, channel_names: Sequence[str] | None, pixel_size: float | None
) -> tuple[list[Image] | Part, list[Skipped]]:
    """Content of a subfolder: channels, images, or neither."""
    try:
        if is_zarr(folder):
            return zarr_images(folder, channel_names, pixel_size)
        if is_mcmicro(folder):
            return mcmicro_images(folder, pixel_size)
    except ValueError as error:
        return [], [Skipped(str(folder), str(error), expected=is_spatialdata(folder))]
    files = _files_within(folder)
    if not files:
        why = "it has no TIFF files; to read what else lies in it, name the folder: nm.io.read([...])"
        return [], [Skipped(str(folder), why, expected=True)]
    stacks, skipped = without_pictures(*open_all(files))
    if are_channels(stacks):
        return Part(folder, stacks), skipped
    if stacks:
        why = "it has whole images, not one TIFF per channel; they are read if you name the folder: nm.io.read([...])"
        skipped.append(Skipped(str(folder), why))
    return [], skipped
