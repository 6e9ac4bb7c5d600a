"""Recognise what the paths are, read each, and join them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io import _folder, _tiff
from nextmarker.io._image import Image, Skipped, to_spatialdata

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read(
    paths: str | Path | Sequence[str | Path],
    *,
    channel_names: Sequence[str] | None = None,
    pixel_size: float | None = None,
) -> SpatialData:
    """Read multiplex images, lazily, into one SpatialData object.

    Parameters
    ----------
    paths
        One path or several. Each is an OME-TIFF, a TIFF stack, a folder of one TIFF per channel, or a folder that holds
        any of these.
    channel_names
        Names of the channels of every stack, in the order of the file. Needed where a header has none. A folder of one
        TIFF per channel is always named by its files.
    pixel_size
        Micrometres per pixel, of every image. By default what each OME header says, and unknown where it says nothing.

    Returns
    -------
    SpatialData with

    ``sdata.images[name]``
        Raw counts, (c, y, x), in the data type of the file, with the channel names in ``c``; dask, in blocks of one
        channel and about 1024 x 1024 pixels. The name is that of the file or folder; what spatialdata cannot write
        becomes ``_``, and a name that is taken gets a number.
    coordinate systems
        One for each image, with its name: in micrometres where the pixel size is known, in pixels elsewhere.
    ``sdata.attrs["nextmarker_pixel_size"]``
        Name of the image to micrometres per pixel, where known.

    Raises
    ------
    FileNotFoundError
        If there is no such path.
    TypeError
        If `channel_names` are not strings, or `pixel_size` is not a number.
    ValueError
        If a folder has no image, or a path is given twice; if a file is no TIFF or is cut short; if it is RGB; if it
        has several series, time points or z-planes; if channel names are missing, repeated or of another number; if the
        channels in a folder differ in shape; if pixels are not square.

    Warns
    -----
    UserWarning
        If a folder of stacks also has files of one unnamed plane, such as masks: they are left out.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, nextmarker as nm
    >>> folder = tempfile.TemporaryDirectory()
    >>> header = {"axes": "CYX", "Channel": {"Name": ["DNA1", "CD3"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    >>> for core in ["core 1", "core 2"]:
    ...     tifffile.imwrite(f"{folder.name}/{core}.ome.tif", np.ones((2, 30, 40), np.uint16), metadata=header)
    >>> sdata = nm.io.read(folder.name)
    >>> list(sdata.images), sdata["core_1"]["c"].values.tolist()
    (['core_1', 'core_2'], ['DNA1', 'CD3'])
    >>> sdata.attrs["nextmarker_pixel_size"]
    {'core_1': 0.5, 'core_2': 0.5}
    >>> folder.cleanup()
    """
    _tiff.check_arguments(channel_names, pixel_size)
    images: list[Image] = []
    skipped: list[Skipped] = []
    for path in _as_paths(paths):
        found, left_out = _read_path(path, channel_names, pixel_size)
        images += found
        skipped += left_out
    return to_spatialdata(images, skipped)


def _as_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    several = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not several:
        msg = "No paths to read: `paths` is empty. Give at least one file or folder."
        raise ValueError(msg)
    found = [Path(path).expanduser() for path in several]
    repeated = sorted({str(path) for path in found if found.count(path) > 1})
    if repeated:
        msg = f"Given twice: {repeated}. Its cells would count twice."
        raise ValueError(msg)
    return found


def _read_path(
    path: Path, channel_names: Sequence[str] | None, pixel_size: float | None
) -> tuple[list[Image], list[Skipped]]:
    if not path.exists():
        msg = f"No such file or folder: {path}."
        raise FileNotFoundError(msg)
    if path.is_file():
        return _tiff.file_images(path, channel_names, pixel_size)
    images, skipped = _folder.folder_images(path, channel_names, pixel_size)
    if not images and not skipped:
        msg = (
            f"No images in {path}: neither TIFF files nor folders of one TIFF per channel. "
            f"It holds {_tiff.listed(path)}."
        )
        raise ValueError(msg)
    return images, skipped
