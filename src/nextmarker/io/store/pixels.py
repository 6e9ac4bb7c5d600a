"""Pixels of a Zarr array, read block by block, and checked before memory is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr

from nextmarker.io.tiff.pages import LARGEST_PIECE
from nextmarker.io.tiff.stack import BLOCK, shifted, within

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")
MOST_BLOCKS = 4_000_000
# raised by zarr and its codecs for missing or damaged files
FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, RecursionError)


@dataclass(frozen=True)
class ZarrPixels:
    """Indexed like an array, it reads only those pixels; the array is opened again for each block."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        inside = tuple(within(part, n) for part, n in zip(index, self.shape, strict=True))
        try:
            array = zarr.open_array(self.path, mode="r")
            same = array.shape == self.shape and array.dtype.newbyteorder("=") == self.dtype
            pixels = np.asarray(array[inside], self.dtype) if same else None
        except (*FAULTS, MemoryError) as error:
            where = ", ".join(f"{part.start}:{part.stop}" for part in inside)
            msg = f"{self.path} cannot be read at [{where}]: {error} Copy it again."
            raise ValueError(msg) from error
        if pixels is None:
            msg = f"{self.path} has changed since it was opened. Read it again."
            raise ValueError(msg)
        return pixels[tuple(shifted(part, n) for part, n in zip(index, self.shape, strict=True))]


def lazy_array(path: Path) -> da.Array:
    """Read all pixels of a Zarr array lazily, in blocks of whole chunks.

    Raises
    ------
    ValueError
        If pixels are not numbers, or chunks are too large or too many.
    """
    array: Any = zarr.open_array(path, mode="r")
    dtype = np.dtype(array.dtype).newbyteorder("=")
    if dtype.kind not in "uif" or array.ndim < 2 or min(array.shape) < 1:
        msg = f"{path} has the shape {array.shape} and the type {dtype}: not an image."
        raise ValueError(msg)
    if prod(array.chunks) * dtype.itemsize > LARGEST_PIECE:
        size = prod(array.chunks) * dtype.itemsize / 2**20
        msg = f"{path} has chunks of {size:,.0f} MiB. Save it again in smaller chunks."
        raise ValueError(msg)
    planar = (max(BLOCK // chunk, 1) * chunk for chunk in array.chunks[-2:])
    block = tuple(min(chunk, n) for chunk, n in zip((*array.chunks[:-2], *planar), array.shape, strict=True))
    if prod(-(-n // chunk) for n, chunk in zip(array.shape, block, strict=True)) > MOST_BLOCKS:
        msg = f"{path} is damaged: it claims to have {' x '.join(map(str, array.shape))} pixels."
        raise ValueError(msg)
    pixels = ZarrPixels(path, tuple(array.shape), dtype)
    return da.from_array(pixels, chunks=block, meta=np.empty((0,) * array.ndim, dtype))


def missing_chunks(path: Path) -> str:
    """Note on chunks without a file, if any: they are empty, or the copy of the store is incomplete."""
    array: Any = zarr.open_array(path, mode="r")
    stored = getattr(array, "shards", None) or array.chunks
    expected = prod(-(-n // chunk) for n, chunk in zip(array.shape, stored, strict=True))
    found = sum(1 for file in path.rglob("*") if file.is_file() and file.name not in METADATA)
    missing = max(expected - found, 0)
    return f"{missing} of its {expected} chunks have no file: their pixels are {array.fill_value}" if missing else ""
