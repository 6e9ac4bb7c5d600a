"""Valid TIFFs, changed byte by byte or cut short: an error of ours, or pixels that are right."""

import contextlib
import faulthandler
import tempfile
import warnings
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

import nextmarker as nm
from nextmarker.io.tiff.pages import DAMAGE

COUNTS = np.random.default_rng(0).poisson(200, (3, 40, 56)).astype(np.uint16)
NAMES = ["DNA1", "CD3", "CK"]
SECONDS = 20  # far more than any file takes: beyond it, reading hangs


def write_plain(path: Path, **options: object) -> None:
    options = {"metadata": None, "datetime": "2020:01:01 10:10:10", **options}
    tifffile.imwrite(path, COUNTS, photometric="minisblack", **options)


def write_ome(path: Path, **options: object) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, COUNTS, ome=True, photometric="minisblack", metadata=metadata, **options)


def write_pyramid(path: Path) -> None:
    options = {"photometric": "minisblack", "tile": (16, 32), "compression": "zlib"}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(COUNTS, subifds=1, metadata={"axes": "CYX", "Channel": {"Name": NAMES}}, **options)
        tif.write(COUNTS[:, ::2, ::2], subfiletype=1, **options)


def write_mibi(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        for name, plane in zip(NAMES, COUNTS, strict=True):
            metadata = {"image.type": "SIMS", "channel.mass": 9, "channel.target": name, "mibi.run": "July"}
            options = {"compression": "zlib", "software": "IonpathMIBIv1.0", "rowsperstrip": 40}
            tif.write(plane, metadata=metadata, resolution=(2e4, 2e4), resolutionunit=3, **options)


def write_qptiff(path: Path) -> None:
    root = "PerkinElmer-QPI-ImageDescription"
    with tifffile.TiffWriter(path) as tif:
        for name, plane in zip(NAMES, COUNTS, strict=True):
            text = f"<{root}><ImageType>FullResolution</ImageType><Biomarker>{name}</Biomarker></{root}>"
            options = {"software": "PerkinElmer-QPI", "photometric": "minisblack", "metadata": None}
            tif.write(plane, description=text, tile=(16, 32), compression="lzw", **options)


def write_colours(path: Path, **options: object) -> None:
    pixels = np.moveaxis(COUNTS, 0, -1)
    tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, datetime="2020:01:01 10:10:10", **options)


WRITERS = {
    "plain": write_plain,
    "plain strips": lambda path: write_plain(path, rowsperstrip=7),
    "plain big-endian BigTIFF": lambda path: write_plain(path, byteorder=">", bigtiff=True),
    "zlib strips": lambda path: write_plain(path, compression="zlib", rowsperstrip=7, predictor=True),
    "lzw tiles": lambda path: write_plain(path, compression="lzw", tile=(16, 32)),
    "ImageJ": lambda path: write_plain(path, imagej=True, metadata={"axes": "CYX", "Labels": NAMES}, datetime=None),
    "OME": write_ome,
    "OME BigTIFF zlib tiles": lambda path: write_ome(path, bigtiff=True, compression="zlib", tile=(16, 32)),
    "OME pyramid": write_pyramid,
    "MIBI": write_mibi,
    "QPTIFF": write_qptiff,
    "colours": write_colours,
    "colours zlib tiles": lambda path: write_colours(path, compression="zlib", tile=(16, 32)),
}


@cache
def valid(kind: str) -> tuple[bytes, list[int], list[int]]:
    """A valid file; and numbers of its bytes that describe the pixels, and of those that hold them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.tif"
        WRITERS[kind](path)
        content = path.read_bytes()
        with tifffile.TiffFile(path) as tif:
            pieces = [piece for page in tif.pages for piece in zip(page.dataoffsets, page.databytecounts, strict=True)]
    pixels = {number for start, count in pieces for number in range(start, start + count)}
    return content, sorted(set(range(len(content))) - pixels), sorted(pixels)


def read(content: bytes) -> np.ndarray | None:
    """The pixels of a file, or None after an error of ours, which names the file."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "core.tif"
        path.write_bytes(content)
        try:
            try:
                sdata = nm.io.read(path)
            except ValueError as error:
                if "channel_names=" not in str(error):
                    raise
                sdata = nm.io.read(path, channel_names=NAMES)
            image, *_ = sdata.images.values()
            return image.to_numpy()
        except (ValueError, OSError) as error:
            if "core.tif" not in str(error):
                raise
            return None
        finally:
            faulthandler.cancel_dump_traceback_later()


def as_tifffile_reads(content: bytes) -> list[np.ndarray]:
    """All planes of a file that tifffile can read, and that fit into memory: it takes as much as the file claims."""
    planes = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.tif"
        path.write_bytes(content)
        with tifffile.TiffFile(path) as tif:
            parts = [page for page in tif.pages if max(page.size, prod(page.chunks)) < 2**20]
            with contextlib.suppress(*DAMAGE):
                parts += tif.series if tif.is_imagej and parts else []
            for part in parts:
                with contextlib.suppress(*DAMAGE):
                    pixels = part.asarray()
                    planes += list(pixels.reshape(-1, *pixels.shape[-2:]))
                    planes += list(np.moveaxis(pixels, -1, 0)) if pixels.ndim == 3 else []
    return planes


def changed(content: bytes, numbers: list[int]) -> st.SearchStrategy[bytes]:
    """Some bytes have another value."""

    def change(values: dict[int, int]) -> bytes:
        new = bytearray(content)
        for number, value in values.items():
            new[number] = value
        return bytes(new)

    return st.dictionaries(st.sampled_from(numbers), st.integers(0, 255), min_size=1, max_size=4).map(change)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_files_are_valid(kind):
    np.testing.assert_array_equal(read(valid(kind)[0]), COUNTS)


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_damage_is_an_error_of_ours_or_the_pixels_are_right(kind, data):
    content, headers, pixels = valid(kind)
    cut = st.integers(0, len(content) - 1).map(lambda length: content[:length])
    damaged = data.draw(cut | changed(content, headers) | changed(content, pixels))
    found = read(damaged)
    if found is not None and len(damaged) < len(content):
        np.testing.assert_array_equal(found, COUNTS)
    elif found is not None:  # as the changed bytes describe them
        right = as_tifffile_reads(damaged)
        assert all(any(np.array_equal(plane, other) for other in right) for plane in found)
