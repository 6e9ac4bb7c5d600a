"""Valid TIFFs, mutated byte by byte and cut short: an error of ours or a correct read, nothing else."""

import contextlib
import faulthandler
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
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
INERT = {"DateTime", "DocumentName", "HostComputer", "PageName"}  # tags that nobody reads for the pixels


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


@dataclass(frozen=True)
class Valid:
    """A valid file, and what each of its bytes is for."""

    content: bytes
    pixels: np.ndarray
    """Numbers of the bytes that hold pixels."""
    inert: np.ndarray
    """Numbers of the bytes that no reader needs."""
    stored_as_they_are: bool
    has_checksum: bool


@cache
def valid(kind: str) -> Valid:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.tif"
        WRITERS[kind](path)
        with tifffile.TiffFile(path) as tif:
            pages = list(tif.pages)
            pixels = [range(start, start + n) for page in pages for start, n in segments(page)]
            inert = [
                range(tag.valueoffset, tag.valueoffset + tag.valuebytecount)
                for page in pages
                for tag in page.tags
                if tag.name in INERT
            ]
            compression = pages[0].compression.name
        content = path.read_bytes()
    plain = compression == "NONE"
    return Valid(content, numbers(pixels), numbers(inert), plain, compression in {"ADOBE_DEFLATE", "DEFLATE"})


def segments(page: tifffile.TiffPage) -> Iterator[tuple[int, int]]:
    return zip(page.dataoffsets, page.databytecounts, strict=True)


def numbers(ranges: list[range]) -> np.ndarray:
    return np.array(sorted({number for part in ranges for number in part}), dtype=int)


def read(path: Path) -> np.ndarray | None:
    """The pixels of a file, or None after an error of ours, which names the file."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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


def read_bytes(content: bytes) -> np.ndarray | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.tif"
        path.write_bytes(content)
        return read(path)


def as_tifffile_reads(content: bytes) -> list[np.ndarray]:
    """All planes of a file that tifffile can read."""
    planes = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.tif"
        path.write_bytes(content)
        with tifffile.TiffFile(path) as tif:
            parts = [*tif.pages, *(tif.series if tif.is_imagej else [])]
            for part in parts:
                with contextlib.suppress(*DAMAGE):
                    pixels = part.asarray()
                    planes += list(pixels.reshape(-1, *pixels.shape[-2:]))
                    planes += list(np.moveaxis(pixels, -1, 0)) if pixels.ndim == 3 else []
    return planes


def check(file: Valid, mutated: dict[int, int]) -> None:
    content = bytearray(file.content)
    for number, value in mutated.items():
        content[number] = value
    changed = np.array([number for number in mutated if content[number] != file.content[number]], dtype=int)
    pixels = read_bytes(bytes(content))
    needed = np.setdiff1d(changed, file.inert)
    if needed.size == 0:
        np.testing.assert_array_equal(pixels, COUNTS)
    elif pixels is None or np.array_equal(pixels, COUNTS):
        return
    elif not np.isin(needed, file.pixels).all():  # another layout: pixels are those that it describes
        described = as_tifffile_reads(bytes(content))
        assert all(any(np.array_equal(plane, other) for other in described) for plane in pixels)
    else:
        assert not file.has_checksum
        assert pixels.shape == COUNTS.shape
        assert not file.stored_as_they_are or (pixels != COUNTS).sum() <= len(needed)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_files_are_valid(kind):
    np.testing.assert_array_equal(read_bytes(valid(kind).content), COUNTS)


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_a_file_cut_short_is_refused_or_whole(kind, data):
    content = valid(kind).content
    pixels = read_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    if pixels is not None:
        np.testing.assert_array_equal(pixels, COUNTS)


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_bytes_of_the_headers_and_descriptions(kind, data):
    file = valid(kind)
    headers = np.setdiff1d(np.arange(len(file.content)), file.pixels).tolist()
    check(file, data.draw(st.dictionaries(st.sampled_from(headers), st.integers(0, 255), min_size=1, max_size=4)))


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
def test_bytes_of_the_pixels(kind, data):
    file = valid(kind)
    numbers = st.sampled_from(file.pixels.tolist())
    check(file, data.draw(st.dictionaries(numbers, st.integers(0, 255), min_size=1, max_size=4)))
