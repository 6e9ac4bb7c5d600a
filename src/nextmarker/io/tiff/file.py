"""Reads TIFF files: OME-TIFF, QPTIFF, MIBItiff and plain stacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tifffile

from nextmarker.io._image import Image, Skipped, check_pixel_size, to_spatialdata
from nextmarker.io._panel import choose_channels
from nextmarker.io.tiff.mibi import is_mibi, mibi_stacks
from nextmarker.io.tiff.ome import ome_stacks
from nextmarker.io.tiff.pages import DAMAGE, check_start, explained, read_pages
from nextmarker.io.tiff.plain import plain_stacks
from nextmarker.io.tiff.qptiff import is_qptiff, qptiff_stacks
from nextmarker.io.tiff.stack import Stack, stack_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dask.array as da
    from spatialdata import SpatialData


def read_tiff(
    path: str | Path, *, channel_names: Sequence[str] | None = None, pixel_size: float | None = None
) -> SpatialData:
    """Read an OME-TIFF, QPTIFF, MIBItiff or TIFF stack lazily.

    Parameters
    ----------
    path
        A file with one image of several channels, or an OME-TIFF with several images. Pyramids are read at full
        resolution; thumbnails and photographs of the slide and its label are left out.
    channel_names
        Names of the channels, in the order of the file. Required if the header has none; otherwise they replace those
        in the header. If there is a name for every plane of a colour image, or of a stack with time points or z-planes,
        the planes are read as channels: page by page, with the colours of a page one after another. An ImageJ
        hyperstack starts with all channels of the first z-plane of the first time point, followed by its next z-planes,
        then the next time point; in an OME-TIFF the order is given by `DimensionOrder` in the header.
    pixel_size
        Micrometres per pixel. By default the value in the header, or unknown if there is none.

    Returns
    -------
    SpatialData with one image, (c, y, x), named like the file, or with all images of an OME-TIFF, with their names in
    the file. Channel names are taken

    - from the header of an OME-TIFF or the labels of an ImageJ stack, otherwise from the names of the pages (the tag
      PageName), as written by MCDViewer;
    - in a QPTIFF (Akoya, PerkinElmer), from the biomarker of the page, otherwise the dye; dyes are the original names;
    - in a MIBItiff (Ionpath), from the target of the page, with its mass as the metal; only pages with ion counts are
      read.

    Repeated names are numbered, and channels without a name are named by their position. Negative pixels are kept. See
    :func:`nextmarker.io.read` for the other contents.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If `channel_names` are not strings, or `pixel_size` is not a number.
    ValueError
        If the file is not a TIFF, damaged or truncated; if its planes differ in size; if a strip or tile would take
        more than 1 GiB of memory; if it is a colour image, or has several time points or z-planes, and `channel_names`
        does not name every plane; if channel names are missing, repeated, or not as many as channels; if pixels are not
        square, or their size is implausible. A damaged strip or tile causes an error when its pixels are read.

    Warns
    -----
    UserWarning
        If channels were renamed, or one of several images cannot be read.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, nextmarker as nm
    >>> folder = tempfile.TemporaryDirectory()
    >>> tifffile.imwrite(f"{folder.name}/core.tif", np.ones((2, 30, 40), np.uint16), photometric="minisblack")
    >>> sdata = nm.io.read_tiff(f"{folder.name}/core.tif", channel_names=["DNA1", "CD3"], pixel_size=0.5)
    >>> sdata["core"].shape, sdata["core"]["c"].values.tolist()
    ((2, 30, 40), ['DNA1', 'CD3'])
    >>> sdata.attrs["nextmarker_pixel_size"]
    {'core': 0.5}
    >>> folder.cleanup()
    """
    check_arguments(channel_names, pixel_size)
    return to_spatialdata(*choose_channels(*file_images(Path(path), channel_names, pixel_size), None))


def file_images(
    path: Path, channel_names: Sequence[str] | None = None, pixel_size: float | None = None
) -> tuple[list[Image], list[Skipped]]:
    """Read all images of one TIFF.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If no image in it can be read.
    """
    stacks, skipped = open_file(path)
    images = []
    for stack in stacks:
        try:
            images.append(stack_image(stack, channel_names, pixel_size))
        except ValueError as error:
            if len(stacks) == 1:
                raise
            skipped.append(Skipped(stack.source, str(error)))
    if not images:
        raise ValueError("\n".join(part.reason for part in skipped))
    return images, skipped


def open_file(path: Path) -> tuple[list[Stack], list[Skipped]]:
    """Read the headers of a TIFF; an error if it has no image with channels.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If no image in it can be read.
    """
    if not path.is_file():
        msg = f"No such file: {path}."
        raise FileNotFoundError(msg)
    check_start(path)
    try:
        with tifffile.TiffFile(path) as tif:
            stacks, skipped = _stacks(path, tif, read_pages(tif))
    except DAMAGE as error:
        raise ValueError(explained(path, error)) from error
    if not stacks:
        raise ValueError("\n".join(part.reason for part in skipped))
    return stacks, skipped


def read_masks(path: Path, shape: tuple[int, ...]) -> da.Array:
    """Read the segmentation masks of an image, lazily, int (y, x).

    Raises
    ------
    ValueError
        If the file cannot be read, or is not one plane of integers in the shape of the image.
    """
    stacks, _ = open_file(path)
    stack, planes = stacks[0], sum(stack.n_channels for stack in stacks)
    if planes != 1 or stack.shape != shape or stack.dtype.kind not in "ui":
        found = f"{planes} plane(s) of {' x '.join(map(str, stack.shape))} pixels of {stack.dtype}"
        msg = f"{path} has {found}. Masks must be one plane of integers, {' x '.join(map(str, shape))} pixels."
        raise ValueError(msg)
    return stack.pixels()[0]


def _stacks(
    path: Path, tif: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage]
) -> tuple[list[Stack], list[Skipped]]:
    first = pages[0]
    if first.is_ome:
        return ome_stacks(path, pages)
    if is_qptiff(first):
        return qptiff_stacks(path, pages)
    if is_mibi(first):
        return mibi_stacks(path, pages)
    return plain_stacks(path, pages, tif.imagej_metadata)


def check_arguments(channel_names: Sequence[str] | None, pixel_size: float | None) -> None:
    """Check the types of arguments before a file is opened."""
    check_pixel_size(pixel_size)
    if channel_names is None:
        return
    ordered = hasattr(channel_names, "__getitem__") and not isinstance(channel_names, str)  # a set is not
    if not ordered or not all(isinstance(name, str) for name in channel_names):
        msg = f'channel_names={channel_names!r} must be a list of strings, such as ["DNA1", "CD3"].'
        raise TypeError(msg)


def tiff_files(folder: Path) -> list[Path]:
    """List the TIFF files in a folder, sorted, without hidden ones; empty if the folder does not exist."""
    suffixes = {".tif", ".tiff", ".qptiff", ".btf"}
    files = folder.iterdir() if folder.is_dir() else []
    return sorted(f for f in files if f.suffix.lower() in suffixes and not f.name.startswith(".") and f.is_file())


def listed(folder: Path, most: int = 10) -> str:
    """List the content of a folder for a message."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
