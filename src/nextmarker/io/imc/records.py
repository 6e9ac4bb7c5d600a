"""Pixels of imaging mass cytometry: records with positions become an image, read lazily."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import dask.array as da
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BLOCK = 1024  # pixels; channels are interleaved in the file, so a block has all of them
PLACE = 3  # x, y and z, before the channels

Shape: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class BinaryRecords:
    """Records in an .mcd file."""

    path: Path
    offset: int
    """Bytes before the first record."""
    count: int
    n_channels: int

    def load(self) -> np.ndarray:
        """All records, x, y, z and channels, float32 (count, 3 + n_channels), memory-mapped."""
        shape = (self.count, PLACE + self.n_channels)
        return np.memmap(self.path, np.dtype("<f4"), "r", self.offset, shape)


@dataclass(frozen=True)
class TextRecords:
    """Records in a .txt export; its first three columns are times."""

    path: Path
    count: int
    n_channels: int

    def load(self) -> np.ndarray:
        """All records, x, y, z and channels, float32 (count, 3 + n_channels)."""
        return read_text(self.path, range(3, 3 + PLACE + self.n_channels), self.count)


Records: TypeAlias = BinaryRecords | TextRecords


def read_text(path: Path, columns: Sequence[int], count: int) -> np.ndarray:
    """Read columns of the first lines below the header, float32 (count, columns)."""
    table = pd.read_csv(
        path,
        sep="\t",
        header=None,
        skiprows=1,
        usecols=list(columns),
        nrows=count,
        dtype=np.float32,
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",
    )
    return table.to_numpy(np.float32)


def lazy_pixels(records: Records, shape: Shape) -> da.Array:
    """Arrange records in an image, float32 (c, y, x), when its pixels are needed.

    Computing raises ValueError if the places of the records do not fill the image.
    """
    whole = (records.n_channels, *shape)
    chunks = da.core.normalize_chunks((-1, BLOCK, BLOCK), whole, dtype=np.float32)
    return da.map_blocks(_block, records, shape, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))


def _block(records: Records, shape: Shape, block_info: dict[Any, Any]) -> np.ndarray:
    (_, (top, bottom), (left, right)) = block_info[None]["array-location"]
    try:
        loaded = records.load()
        y, x = places(loaded, shape)
    except (ValueError, OSError) as error:
        msg = f"{records.path} is damaged: {error}. Leave it out, or read its other copy (.mcd or .txt)."
        raise ValueError(msg) from error
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    pixels = np.zeros((records.n_channels, bottom - top, right - left), np.float32)
    pixels[:, y[inside] - top, x[inside] - left] = loaded[inside, PLACE:].T
    return pixels


def places(records: np.ndarray, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each record, int (count,), in an image of this shape.

    Raises
    ------
    ValueError
        If a record lies outside of the image, or two lie in one place.
    """
    xy = np.asarray(records[:, :2])
    height, width = shape
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] < width) & (xy[:, 1] < height) & (xy == np.rint(xy)).all(axis=1)
    if not inside.all():  # also false for NaN
        where = xy[np.argmin(inside)].tolist()
        msg = f"it has a pixel at (x, y) = {tuple(where)}, in an image of {width} x {height} pixels"
        raise ValueError(msg)
    x, y = xy.astype(np.int64).T
    if len(np.unique(y * width + x)) < len(xy):
        msg = "it has several values for one pixel"
        raise ValueError(msg)
    return y, x


def scanned_shape(records: np.ndarray) -> Shape:
    """Height and width of the scanned area; its last row may be incomplete.

    Raises
    ------
    ValueError
        If more is missing than the end of the last row, or a place is impossible.
    """
    if not len(records):
        msg = "it has no pixels"
        raise ValueError(msg)
    largest = records[:, :2].max(axis=0)
    if not (np.isfinite(largest).all() and (largest >= 0).all()):
        msg = "it has pixels without a position"
        raise ValueError(msg)
    width, height = (int(edge) + 1 for edge in largest)
    fewest = max(width * (height - 1) + 1, width)  # the first row gives the width, even if it is the only one
    if not fewest <= len(records) <= width * height:
        msg = f"it has {len(records)} pixels for an image of {width} x {height}"
        raise ValueError(msg)
    places(records, (height, width))
    return height, width


def missing_pixels(count: int, shape: Shape) -> list[str]:
    """Note on pixels that were not scanned, if any."""
    missing = shape[0] * shape[1] - count
    return [f"it is incomplete: {missing} of its {shape[1]} x {shape[0]} pixels were not scanned"] if missing else []
