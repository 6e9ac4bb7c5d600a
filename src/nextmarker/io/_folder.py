"""Folders of TIFFs: one file for each channel, one for each image, or the output of MCMICRO."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da

from nextmarker.io._image import Image, Skipped, to_spatialdata
from nextmarker.io._mcmicro import is_mcmicro, mcmicro_images
from nextmarker.io._stack import Stack, known_pixel_size, stack_image, stem
from nextmarker.io._tiff import check_arguments, listed, open_file, tiff_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

CHANNELS_WITHIN = "TIFs"  # where MIBI instruments put the channels of a field of view


def read_folder(path: str | Path, *, pixel_size: float | None = None) -> SpatialData:
    """Read a folder of one TIFF per channel, lazily.

    Parameters
    ----------
    path
        A folder. Each TIFF in it is a channel, named as the file; the channels are sorted by name.
    pixel_size
        Micrometres per pixel. By default what a header says, and unknown where none does.

    Returns
    -------
    SpatialData with one image, (c, y, x), named as the folder. See :func:`nextmarker.io.read` for what else it holds.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    TypeError
        If `pixel_size` is not a number.
    ValueError
        If the folder has no TIFF that can be read; if a TIFF has several channels; if the channels differ in shape or
        data type; if pixels are not square.

    Warns
    -----
    UserWarning
        If a file cannot be read: it is skipped. If two channels have one name: the second is numbered.

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
    path = Path(path)
    if not path.is_dir():
        msg = f"No such folder: {path}."
        raise FileNotFoundError(msg)
    stacks, skipped = _channels_of(*_open_all(tiff_files(path)))
    if not stacks and not skipped:
        msg = f"{path} has no TIFF file; it holds {listed(path)}."
        raise ValueError(msg)
    images = [_one_image(path, stacks, pixel_size)] if stacks else []
    return to_spatialdata(images, skipped)


def folder_images(
    path: Path, channel_names: Sequence[str] | None = None, pixel_size: float | None = None
) -> tuple[list[Image], list[Skipped]]:
    """Read all images of a folder: what cannot be read is skipped.

    The folder is the output of MCMICRO, or an image with one TIFF per channel, or it holds any of these and TIFFs with
    whole images; it is looked through one level deep.
    """
    if is_mcmicro(path):
        return mcmicro_images(path, pixel_size)
    stacks, skipped = _open_all(tiff_files(path))
    channels, others = _channels_of(stacks, skipped)
    if _is_one_image(channels):
        return [_one_image(path, channels, pixel_size)], others
    images = []
    for stack in stacks:
        if stack.n_channels == 1 and stack.channels is None:
            skipped.append(Skipped(stack.source, "one unnamed plane beside stacks: a mask or another result"))
            continue
        try:
            images.append(stack_image(stack, channel_names, pixel_size))
        except ValueError as error:
            skipped.append(Skipped(stack.source, str(error)))
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        found, left_out = _subfolder_images(folder, pixel_size)
        images += found
        skipped += left_out
    return images, skipped


def _subfolder_images(folder: Path, pixel_size: float | None) -> tuple[list[Image], list[Skipped]]:
    """Read a folder within the one that was asked for, if it is one image; say so if it is not."""
    files = tiff_files(folder) or tiff_files(folder / CHANNELS_WITHIN)
    if not files and not is_mcmicro(folder):
        why = "it has no TIFF files; to read what else lies in it, name the folder: nm.io.read([...])"
        return [], [Skipped(str(folder), why, expected=True)]
    try:
        if is_mcmicro(folder):
            return mcmicro_images(folder, pixel_size)
        stacks, skipped = _channels_of(*_open_all(files))
        if _is_one_image(stacks):
            return [_one_image(folder, stacks, pixel_size)], skipped
    except ValueError as error:
        return [], [Skipped(str(folder), str(error))]
    if stacks:
        why = "it has whole images, not one TIFF per channel; they are read if you name the folder: nm.io.read([...])"
        skipped.append(Skipped(str(folder), why))
    return [], skipped


def _open_all(files: Sequence[Path]) -> tuple[list[Stack], list[Skipped]]:
    stacks, skipped = [], []
    for file in files:
        try:
            found, left_out = open_file(file)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(str(file), str(error)))
        else:
            stacks += found
            skipped += left_out
    return stacks, skipped


def _channels_of(stacks: Sequence[Stack], skipped: Sequence[Skipped]) -> tuple[list[Stack], list[Skipped]]:
    """Put colour pictures aside: they are not channels of an image."""
    pictures = [Skipped(stack.source, f"it has {stack.unsure}") for stack in stacks if stack.colour]
    return [stack for stack in stacks if not stack.colour], [*skipped, *pictures]


def _is_one_image(stacks: Sequence[Stack]) -> bool:
    """Whether the files in a folder are the channels of one image: each is a single plane."""
    return bool(stacks) and all(stack.n_channels == 1 for stack in stacks)


def _one_image(folder: Path, stacks: Sequence[Stack], pixel_size: float | None) -> Image:
    """Put the channels in a folder on top of each other."""
    several = {stack.path.name: stack.n_channels for stack in stacks if stack.n_channels > 1}
    if several:
        msg = (
            f"{folder} is no folder of one TIFF per channel: these have several {several}. "
            "Read them as images of their own: nm.io.read(...)."
        )
        raise ValueError(msg)
    for what in ("shape", "dtype"):
        found = {stack.path.name: getattr(stack, what) for stack in stacks}
        if len(set(found.values())) > 1:
            listing = ", ".join(f"{name} {value}" for name, value in found.items())
            msg = (
                f"The channels in {folder} differ in {what}: {listing}. "
                "If they are images of their own, read them as such: nm.io.read([...], channel_names=[...])."
            )
            raise ValueError(msg)
    known = next((stack for stack in stacks if stack.stated.size), stacks[0])
    size, remarks = known_pixel_size(known, pixel_size)
    names = [stem(stack.path) for stack in stacks]
    return Image(
        folder.resolve().name,
        da.concatenate([stack.pixels([name]) for stack, name in zip(stacks, names, strict=True)]),
        tuple(names),
        size,
        source=str(folder),
        metadata=known.metadata,
        remarks=remarks,
    )
