"""OME-TIFF: the XML in the first page describes the images and the position of their planes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from nextmarker.io._image import Skipped
from nextmarker.io._pixel_size import Stated, stated_size
from nextmarker.io.tiff.pages import DAMAGE, explained
from nextmarker.io.tiff.stack import Stack, make_stack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from xml.etree.ElementTree import Element

    import tifffile

NOT_TISSUE = re.compile(r"\b(label|macro|thumbnail|overview)\b", re.IGNORECASE)
AXES = {"Z": "z-planes", "T": "time points", "C": "channels"}


def parse_xml(path: Path, text: str) -> Element:
    """Parse a header; entities are an error, since they could expand without limit."""
    if "<!ENTITY" in text:
        msg = f"{path} has a header with entities, which are not allowed."
        raise ValueError(msg)
    try:
        return ElementTree.fromstring(text.lstrip("\ufeff"))
    except (ElementTree.ParseError, ValueError) as error:
        msg = f"{path} is damaged: the XML of its header cannot be read ({error})."
        raise ValueError(msg) from error


def ome_stacks(path: Path, pages: Sequence[tifffile.TiffPage]) -> tuple[list[Stack], list[Skipped]]:
    """Combine the pages of each image in the header."""
    root = parse_xml(path, pages[0].description)
    images = [image for image in root.iter() if image.tag.endswith("}Image") or image.tag == "Image"]
    if not images:
        msg = f"{path} has no image: its OME header refers to another file. Read that one."
        raise ValueError(msg)
    stacks, skipped = [], []
    for number, image in enumerate(images):
        name = image.get("Name") or f"image {number}"
        part = name if len(images) > 1 else ""
        if part and NOT_TISSUE.search(name):
            skipped.append(Skipped(f"{path}: {part}", "no image of the tissue, but of the slide", expected=True))
            continue
        try:
            stacks.append(_ome_stack(path, pages, root, image, part))
        except DAMAGE as error:
            skipped.append(Skipped(f"{path}: {part}" if part else str(path), explained(path, error)))
    return stacks, skipped


def _ome_stack(path: Path, pages: Sequence[tifffile.TiffPage], root: Element, image: Element, part: str) -> Stack:
    pixels = image.find("{*}Pixels")
    if pixels is None:
        msg = f"{path} is damaged: its OME header has an image without pixels."
        raise ValueError(msg)
    sizes = {axis: int(pixels.get(f"Size{axis}", 1)) for axis in "TZCYX"}
    chosen = [pages[number] for number in _page_numbers(path, root, pixels, pages, sizes)]
    found = {(page.imagewidth, page.imagelength) for page in chosen}
    if found != {(sizes["X"], sizes["Y"])}:
        msg = f"{path} is damaged: its OME header states {sizes['X']} x {sizes['Y']} pixels, its pages {found}."
        raise ValueError(msg)
    return make_stack(
        path,
        chosen,
        name=part,
        channels=_channels(pixels),
        stated=_stated_size(pixels),
        unsure=unsure([(axis, sizes[axis]) for axis in reversed(_order(path, pixels))]),
        metadata=_metadata(image),
        part=part,
    )


def _page_numbers(
    path: Path, root: Element, pixels: Element, pages: Sequence[tifffile.TiffPage], sizes: dict[str, int]
) -> list[int]:
    """Page of each plane, in the order of the header."""
    blocks = pixels.findall("{*}TiffData") or [ElementTree.Element("TiffData")]
    first_page = pages[min(max(int(blocks[0].get("IFD", 0)), 0), len(pages) - 1)]
    lengths = sizes | {"C": sizes["C"] // first_page.samplesperpixel}
    steps, count = {}, 1
    for axis in _order(path, pixels):
        steps[axis] = count
        count *= lengths[axis]
    found: dict[int, int] = {}
    for block in blocks:
        _check_file(path, root, block)
        start = sum(int(block.get(f"First{axis}", 0)) * step for axis, step in steps.items())
        number = int(block.get("IFD", 0))
        length = int(block.get("PlaneCount", block.get("NumPlanes", 1 if "IFD" in block.attrib else count)))
        within = range(min(length, len(pages) - number, count - start))
        if min(start, number) < 0 or any(start + i in found for i in within):
            msg = f"{path} is damaged: its OME header has no position or two for plane {start}."
            raise ValueError(msg)
        found.update((start + i, number + i) for i in within)
    if len(found) != count or len(set(found.values())) != count:
        msg = f"{path} is damaged: its OME header states {count} planes, but {len(set(found.values()))} are found."
        raise ValueError(msg)
    return [found[plane] for plane in range(count)]


def _order(path: Path, pixels: Element) -> str:
    """Axes besides x and y, the fastest first."""
    order = pixels.get("DimensionOrder", "XYCZT").upper()
    if sorted(order) != sorted("XYCZT") or not order.startswith("XY"):
        msg = f"{path} is damaged: its OME header has the DimensionOrder {order!r}."
        raise ValueError(msg)
    return order[2:]


def unsure(lengths: Sequence[tuple[str, int]]) -> str:
    """Lengths of the axes if planes are not only channels, the slowest first."""
    longer = [(axis, length) for axis, length in lengths if length > 1]
    if len(longer) < 2 and all(axis not in "TZ" for axis, _ in longer):
        return ""
    return " x ".join(f"{length} {AXES.get(axis, 'planes')}" for axis, length in longer)


def _check_file(path: Path, root: Element, block: Element) -> None:
    """Raise an error for planes in another file."""
    uuid = block.find("{*}UUID")
    if uuid is None or uuid.text == root.get("UUID"):
        return
    other = uuid.get("FileName", path.name)
    if other.lower() != path.name.lower():
        msg = f"{path} has planes in another file, {other!r}. Save the image to one file."
        raise ValueError(msg)


def _channels(pixels: Element) -> tuple[str, ...] | None:
    names = [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]
    return tuple(names) if any(names) else None


def _stated_size(pixels: Element) -> Stated:
    x, y, x_unit, y_unit = (pixels.get(f"PhysicalSize{key}") for key in ("X", "Y", "XUnit", "YUnit"))
    return stated_size((x, y), (x_unit, y_unit))


def _metadata(image: Element) -> dict[str, str | float | int]:
    texts = {key: image.findtext(f"{{*}}{tag}") for key, tag in [("date", "AcquisitionDate"), ("text", "Description")]}
    return {key: text.strip() for key, text in texts.items() if text and text.strip()}
