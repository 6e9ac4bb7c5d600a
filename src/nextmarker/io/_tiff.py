"""The TIFF family: OME-TIFF, plain stacks, and folders of one file per channel."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import tifffile

from nextmarker.io._image import Image, check_channels, check_pixel_size, to_spatialdata

if TYPE_CHECKING:
    from spatialdata import SpatialData

BLOCK = 1024  # pixels; a block is made of whole tiles or strips of the file, about this long and wide
MICROMETRES = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4}


@dataclass(frozen=True)
class Stack:
    """What the header of a TIFF says. It can be indexed like an array, and then reads just those pixels."""

    path: Path
    axes: str
    """One letter for each axis, "YX" or one before it."""
    shape: tuple[int, ...]
    dtype: np.dtype
    block: tuple[int, int]
    """Rows and columns that are read together."""
    mapped: bool
    """Whether the pixels lie in the file as they are, uncompressed and one after another."""
    channels: tuple[str, ...] | None
    physical_size: tuple[float, float] | None
    """Micrometres per pixel, (x, y)."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def n_channels(self) -> int:
        return self.shape[0] if self.ndim == 3 else 1

    @property
    def name(self) -> str:
        return _stem(self.path)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        # The file is opened anew for each block: nothing stays open, and a block can be read in another process.
        if self.mapped:
            pixels = tifffile.memmap(self.path, series=0, level=0, mode="r")[index]
        else:
            pixels = tifffile.imread(self.path, series=0, level=0, selection=index)
        return np.array(pixels, dtype=self.dtype)

    def pixels(self) -> da.Array:
        """All pixels, (c, y, x), lazily."""
        channel = (1,) * (self.ndim - 2)
        array = da.from_array(self, chunks=channel + self.block, meta=np.empty((0,) * self.ndim, self.dtype))
        return array if self.ndim == 3 else array[None]


def read_tiff(
    path: str | Path, *, channel_names: Sequence[str] | None = None, pixel_size: float | None = None
) -> SpatialData:
    """Read one OME-TIFF or TIFF stack, lazily.

    Parameters
    ----------
    path
        A file with one image of several channels. Of a pyramid the full resolution is read.
    channel_names
        Names of the channels, in the order of the file. Needed where the OME or ImageJ header has none; they take the
        place of those in the header otherwise.
    pixel_size
        Micrometres per pixel. By default what the OME header says, and unknown where it says nothing.

    Returns
    -------
    SpatialData with one image, (c, y, x), named as the file. See :func:`nextmarker.io.read` for what else it holds.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `channel_names` are not strings, or `pixel_size` is not a number.
    ValueError
        If the file is no TIFF or is cut short; if it is RGB; if it has several series, time points or z-planes; if
        channel names are missing, repeated or of another number; if pixels are not square.

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
    return to_spatialdata([stack_image(open_stack(Path(path)), channel_names, pixel_size)])


def read_folder(path: str | Path, *, pixel_size: float | None = None) -> SpatialData:
    """Read a folder of one TIFF per channel, lazily.

    Parameters
    ----------
    path
        A folder. Each TIFF in it is a channel, named as the file; the channels are sorted by name.
    pixel_size
        Micrometres per pixel. By default what an OME header says, and unknown where none does.

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
        If the folder has no TIFF; if a TIFF has several channels or cannot be read; if the channels differ in shape or
        data type, or two have one name; if pixels are not square.

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
    stacks = [open_stack(file) for file in tiff_files(path)]
    if not stacks:
        msg = f"{path} has no TIFF file; it holds {listed(path)}."
        raise ValueError(msg)
    return to_spatialdata([folder_image(path, stacks, pixel_size)])


def tiff_files(folder: Path) -> list[Path]:
    """List the TIFF files directly in a folder, sorted, without the hidden ones."""
    if not folder.is_dir():
        msg = f"No such folder: {folder}."
        raise FileNotFoundError(msg)
    suffixes = {".tif", ".tiff"}
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes and not f.name.startswith("."))


def listed(folder: Path, most: int = 10) -> str:
    """Tell what is in a folder, for a message."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


def check_arguments(channel_names: Sequence[str] | None, pixel_size: float | None) -> None:
    """Refuse arguments of another kind before a file is opened."""
    check_pixel_size(pixel_size)
    if channel_names is None:
        return
    if isinstance(channel_names, str) or not all(isinstance(name, str) for name in channel_names):
        msg = f'channel_names must be a sequence of strings, such as ["DNA1", "CD3"], not {channel_names!r}.'
        raise TypeError(msg)


def open_stack(path: Path) -> Stack:
    """Read the header of a TIFF and refuse what is not one image of channels."""
    if not path.is_file():
        msg = f"No such file: {path}."
        raise FileNotFoundError(msg)
    try:
        with tifffile.TiffFile(path) as tif:
            return _stack(path, tif)
    except (tifffile.TiffFileError, struct.error, ElementTree.ParseError) as error:
        msg = f"{path} is not a TIFF that can be read ({error}). Readable are OME-TIFF and TIFF."
        raise ValueError(msg) from error


def _stack(path: Path, tif: tifffile.TiffFile) -> Stack:
    _check_layout(path, tif)
    series = tif.series[0]
    ome = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels") if tif.ome_metadata else None
    return Stack(
        path=path,
        axes=series.axes,
        shape=series.shape,
        dtype=series.dtype.newbyteorder("="),
        block=_block(series),
        mapped=series.dataoffset is not None,
        channels=_ome_channels(ome) if ome is not None else _imagej_channels(tif),
        physical_size=_ome_physical_size(ome) if ome is not None else None,
    )


def _check_layout(path: Path, tif: tifffile.TiffFile) -> None:
    if len(tif.series) != 1:
        shapes = [series.shape for series in tif.series]
        msg = f"{path} has {len(shapes)} series, of shapes {shapes}: not supported yet. Save each to its own file."
        raise ValueError(msg)
    series = tif.series[0]
    sizes = dict(zip(series.axes, series.shape, strict=True))
    if series.keyframe.photometric == tifffile.PHOTOMETRIC.RGB or series.axes.endswith("S"):
        msg = f"{path} is a colour picture (axes {sizes}), not raw counts with one plane for each channel."
        raise ValueError(msg)
    if not series.axes.endswith("YX") or series.ndim > 3:
        msg = f"{path} has the axes {sizes}: time points and z-planes are not supported yet, only channels, y, x."
        raise ValueError(msg)
    if _is_cut_short(series):
        msg = f"{path} ends before its last plane: the file is not complete. Copy it again."
        raise ValueError(msg)


def _is_cut_short(series: tifffile.TiffPageSeries) -> bool:
    page = series.pages[-1]
    if page is None:
        return True
    if series.dataoffset is not None:
        end = series.dataoffset + series.nbytes
    else:
        end = np.add(page.dataoffsets, page.databytecounts).max(initial=0)
    return bool(end > page.parent.filehandle.size)


def _block(series: tifffile.TiffPageSeries) -> tuple[int, int]:
    """About BLOCK pixels long and wide, and whole tiles or strips, so that none is decoded twice."""
    if series.dataoffset is not None:
        return BLOCK, BLOCK
    rows, columns = series.keyframe.chunks[-2:]
    return max(BLOCK // rows, 1) * rows, max(BLOCK // columns, 1) * columns


def _ome_channels(pixels: ElementTree.Element) -> tuple[str, ...] | None:
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    known = [name for name in names if name]
    return tuple(known) if known and len(known) == len(names) else None


def _imagej_channels(tif: tifffile.TiffFile) -> tuple[str, ...] | None:
    labels = (tif.imagej_metadata or {}).get("Labels")
    return tuple(labels) if labels else None


def _ome_physical_size(pixels: ElementTree.Element) -> tuple[float, float] | None:
    sizes = []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}")
        micrometres = MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size is None or micrometres is None:
            return None
        sizes.append(float(size) * micrometres)
    return sizes[0], sizes[1]


def stack_image(stack: Stack, channel_names: Sequence[str] | None, pixel_size: float | None) -> Image:
    """Name the channels of a stack."""
    channels = _stack_channels(stack, channel_names)
    if channel_names is not None:
        check_channels(channels, stack.path)
    return Image(stack.name, stack.pixels(), channels, _pixel_size(stack, pixel_size), source=str(stack.path))


def _stack_channels(stack: Stack, channel_names: Sequence[str] | None) -> tuple[str, ...]:
    found = f"{stack.path} has {stack.n_channels} channels"
    if channel_names is not None:
        # given names say that the planes are channels, whatever the program that wrote the file called them
        if len(channel_names) != stack.n_channels:
            msg = f"{found}, but channel_names has {len(channel_names)}: {list(channel_names)}."
            raise ValueError(msg)
        return tuple(channel_names)
    if stack.axes[0] in "ZT":
        kind = {"Z": "z-planes", "T": "time points"}[stack.axes[0]]
        msg = (
            f"{stack.path} has {stack.n_channels} {kind}: they are not supported yet. "
            "If they are channels, name them: channel_names=[...]."
        )
        raise ValueError(msg)
    if stack.channels is None or len(stack.channels) != stack.n_channels:
        msg = f"{found}, and its header does not name them. Name all {stack.n_channels}: channel_names=[...]."
        raise ValueError(msg)
    return stack.channels


def folder_image(folder: Path, stacks: Sequence[Stack], pixel_size: float | None) -> Image:
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
    channels = tuple(stack.name for stack in stacks)
    known = next((stack for stack in stacks if stack.physical_size), stacks[0])
    pixels = da.concatenate([stack.pixels() for stack in stacks])
    return Image(folder.resolve().name, pixels, channels, _pixel_size(known, pixel_size), source=str(folder))


def _pixel_size(stack: Stack, pixel_size: float | None) -> float | None:
    if pixel_size is not None:
        return float(pixel_size)
    if stack.physical_size is None:
        return None
    x, y = stack.physical_size
    if not (np.isfinite([x, y]).all() and min(x, y) > 0 and abs(x - y) <= 0.01 * max(x, y)):
        msg = f"{stack.path} has pixels of {x} by {y} micrometres, not square. If this is wrong: pixel_size=..."
        raise ValueError(msg)
    return x


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[:-4] if stem.lower().endswith(".ome") else stem
