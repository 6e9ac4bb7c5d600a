"""QPTIFF of Akoya and PerkinElmer: each page has a description in XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextmarker.io._image import Skipped
from nextmarker.io.tiff.ome import parse_xml
from nextmarker.io.tiff.stack import Stack, make_stack, resolution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    import tifffile

ROOT = "PerkinElmer-QPI-ImageDescription"
FULL, REDUCED = "FullResolution", "ReducedResolution"
KEPT = ["SlideID", "SampleDescription", "AcquisitionSoftware", "InstrumentType", "Objective", "OperatorName"]


def is_qptiff(page: tifffile.TiffPage) -> bool:
    """Whether the first page is that of a QPTIFF."""
    return f"<{ROOT}" in page.description


def qptiff_stacks(path: Path, pages: Sequence[tifffile.TiffPage]) -> tuple[list[Stack], list[Skipped]]:
    """Combine the pages at full resolution; pyramid, thumbnail, macro and label are left out."""
    headers = [parse_xml(path, page.description) if is_qptiff(page) else None for page in pages]
    kinds = [_text(header, "ImageType") or "page of no kind" for header in headers]
    found = [(page, header) for page, header, kind in zip(pages, headers, kinds, strict=True) if kind == FULL]
    left_out = {page.index: kind for page, kind in zip(pages, kinds, strict=True) if kind not in (FULL, REDUCED)}
    if not found:
        msg = f"{path} has no page at full resolution, only {sorted(set(left_out.values()))}."
        raise ValueError(msg)
    for page in pages:
        if page.index in left_out and page.shape == found[0][0].shape:
            kind = left_out[page.index]
            msg = f"{path} is damaged: page {page.index} has the size of a channel, but is declared as {kind!r}."
            raise ValueError(msg)
    why = "no image of the tissue in full resolution"
    skipped = [Skipped(f"{path}: {kind}", why, expected=True) for kind in sorted(set(left_out.values()))]
    fluorophores = [_text(header, "Name") for _, header in found]
    names = [_text(header, "Biomarker") or name for (_, header), name in zip(found, fluorophores, strict=True)]
    first = found[0][1]
    stack = make_stack(
        path,
        [page for page, _ in found],
        channels=tuple(names) if any(names) else None,
        originals=tuple(fluorophores) if fluorophores != names else None,
        stated=resolution(found[0][0]),
        metadata={key: text for key in KEPT if (text := _text(first, key))},
    )
    return [stack], skipped


def _text(header: Element | None, tag: str) -> str:
    return (header.findtext(tag) or "").strip() if header is not None else ""
