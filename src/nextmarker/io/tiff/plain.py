"""TIFFs without a description of channels, or with that of ImageJ or tifffile."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nextmarker._coordinates import LARGEST_PIXEL, SMALLEST_PIXEL
from nextmarker.io._image import Skipped
from nextmarker.io._pixel_size import Stated, micrometres
from nextmarker.io.tiff.ome import unsure
from nextmarker.io.tiff.pages import check_page, data_type, is_interleaved, is_plain
from nextmarker.io.tiff.stack import Stack, make_stack, resolution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tifffile

REDUCED, MASK = 1, 4  # bits of NewSubfileType


def plain_stacks(
    path: Path, pages: Sequence[tifffile.TiffPage], imagej: dict[str, Any] | None
) -> tuple[list[Stack], list[Skipped]]:
    """Combine all pages; smaller copies and transparency masks are left out."""
    full = [page for page in pages if not page.subfiletype & (REDUCED | MASK)] or list(pages)
    left_out = sorted({page.index for page in pages} - {page.index for page in full})
    skipped = [Skipped(f"{path}: pages {left_out}", "smaller copies or masks", expected=True)] if left_out else []
    if imagej:
        return [_imagej_stack(path, full, imagej)], skipped
    return [make_stack(path, full, unsure=unsure(_axes(full[0])), stated=_tags(full[0]))], skipped


def _imagej_stack(path: Path, pages: Sequence[tifffile.TiffPage], imagej: dict[str, Any]) -> Stack:
    lengths = [(axis, int(imagej.get(key, 1))) for axis, key in [("T", "frames"), ("Z", "slices"), ("C", "channels")]]
    planes = int(imagej.get("images", len(pages)))
    if len(pages) > 1 and planes != len(pages):
        msg = f"{path} is damaged: its ImageJ header states {planes} planes, but it has {len(pages)} pages."
        raise ValueError(msg)
    labels = [str(label) for label in imagej.get("Labels") or []]
    return make_stack(
        path,
        pages,
        skipped_bytes=_planes_of_one_page(path, pages[0], planes) if planes > len(pages) else (0,),
        channels=tuple(labels) if any(labels) else None,
        slices=True,
        unsure=unsure(lengths),
        stated=_imagej_size(pages[0], imagej),
    )


def _planes_of_one_page(path: Path, page: tifffile.TiffPage, planes: int) -> Sequence[int]:
    """Offset of each plane, in large stacks of ImageJ, of which only the first plane has a page."""
    check_page(page)
    nbytes = page.imagewidth * page.imagelength * page.samplesperpixel * data_type(page).itemsize
    if not is_plain(page) or page.dataoffsets[0] + planes * nbytes > page.parent.filehandle.size:
        msg = f"{path} is not complete: it lacks some of the {planes} planes that its ImageJ header states."
        raise ValueError(msg)
    return range(0, planes * nbytes, nbytes)


def _imagej_size(page: tifffile.TiffPage, imagej: dict[str, Any]) -> Stated:
    unit = str(imagej.get("unit", "")).strip()
    x, y = page.resolution
    if not unit or min(x, y) <= 0:
        return Stated()
    factor = None if unit.casefold().startswith("in") else micrometres(unit)  # inches are for screens and printers
    if factor is None:
        return Stated(note=f"the pixel size in its header is not used: its unit is {unit!r}")
    return Stated((factor / x, factor / y))


def _tags(page: tifffile.TiffPage) -> Stated:
    """Note on the resolution tags; they are not used, since many programs write the resolution of a screen."""
    size = resolution(page).size
    if size is None or not all(SMALLEST_PIXEL <= length <= LARGEST_PIXEL for length in size):
        return Stated()
    found = " by ".join(f"{length:g}" for length in size)
    return Stated(
        note=f"its resolution tags, {found} micrometres per pixel, are not used; if they are right: pixel_size=..."
    )


def _axes(page: tifffile.TiffPage) -> list[tuple[str, int]]:
    """Lengths of the axes before y and x, if tifffile described them; the slowest first."""
    try:
        header = json.loads(page.shaped_description or "{}")
        shape = [int(length) for length in header.get("shape", [])]
        axes = str(header.get("axes", "Q" * len(shape)))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return []
    before = len(shape) - (3 if is_interleaved(page) else 2)
    return list(zip(axes, shape, strict=False))[: max(before, 0)]
