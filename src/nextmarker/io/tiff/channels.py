"""Files of one channel each, which are stacked and named."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import dask.array as da

from nextmarker.io._image import Image, Skipped
from nextmarker.io._names import stem
from nextmarker.io._pixel_size import same
from nextmarker.io.tiff.file import open_file
from nextmarker.io.tiff.stack import Stack, known_pixel_size

if TYPE_CHECKING:
    from collections.abc import Sequence

# names that programs give to unnamed channels, perhaps with a number
NAMELESS = re.compile(r"(channel|ch|c|image|img|default|gr[ae]y(scale)?|unknown|none)?[\W_]*[\d:]*", re.IGNORECASE)


def open_all(files: Sequence[Path]) -> tuple[list[Stack], list[Skipped]]:
    """Open all readable files."""
    stacks, skipped = [], []
    for file in files:
        try:
            found, left_out = open_file(file)
        except (ValueError, OSError) as error:
            skipped.append(Skipped(str(file), str(error)))
        else:
            stacks += found
            skipped += left_out
    return stacks, skipped


def without_pictures(stacks: Sequence[Stack], skipped: Sequence[Skipped]) -> tuple[list[Stack], list[Skipped]]:
    """Separate colour pictures, which are not channels of an image."""
    pictures = [Skipped(stack.source, f"it has {stack.unsure}") for stack in stacks if stack.colour]
    return [stack for stack in stacks if not stack.colour], [*skipped, *pictures]


def are_channels(stacks: Sequence[Stack]) -> bool:
    """Whether each file has one plane, so that files can be channels of one image."""
    return bool(stacks) and all(stack.n_channels == 1 for stack in stacks)


def join(folder: Path, stacks: Sequence[Stack], pixel_size: float | None) -> Image:
    """Stack channels to one image.

    Raises
    ------
    ValueError
        If a file has several channels, or they differ in shape, data type or pixel size.
    """
    several = {stack.path.name: stack.n_channels for stack in stacks if stack.n_channels > 1}
    if several:
        msg = f"{folder} has TIFFs with several channels: {several}. Read them as separate images: nm.io.read(...)."
        raise ValueError(msg)
    if problem := difference(stacks, pixel_size):
        msg = (
            f"The channels in {folder} differ in {problem}. If they are separate images: "
            "nm.io.read([...], channel_names=[...])."
        )
        raise ValueError(msg)
    known = next((stack for stack in stacks if stack.stated.size), stacks[0])
    size, remarks = known_pixel_size(known, pixel_size)
    names, notes = names_of(stacks)
    files = tuple(stem(stack.path) for stack in stacks)
    return Image(
        folder.resolve().name,
        da.concatenate([stack.pixels([name]) for stack, name in zip(stacks, names, strict=True)]),
        names,
        size,
        originals=files if files != names else None,
        source=str(folder),
        metadata=known.metadata,
        notes=notes,
        remarks=remarks,
    )


def difference(stacks: Sequence[Stack], pixel_size: float | None) -> str:
    """Message if files differ in shape, data type or pixel size, with the value of each file."""
    for what in ("shape", "dtype"):
        found = {stack.path.name: getattr(stack, what) for stack in stacks}
        if len(set(found.values())) > 1:
            return f"{what}: {', '.join(f'{name} {value}' for name, value in found.items())}"
    sizes = {stack.path.name: stack.stated.size[0] for stack in stacks if stack.stated.size}
    if pixel_size is None and sizes and not same(min(sizes.values()), max(sizes.values())):
        return f"pixel size: {', '.join(f'{name} {size:g}' for name, size in sizes.items())} micrometres"
    return ""


def names_of(stacks: Sequence[Stack]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of channels from the headers, or from the files with a note if the names in the headers repeat."""
    headers = [_header_name(stack) for stack in stacks]
    files = [stem(stack.path) for stack in stacks]
    if any(headers) and min(Counter(headers).values()) > 1:
        note = (
            f"channel names in the headers repeat, {sorted(set(headers))}: named by the files. If these are several "
            "images, give each a folder"
        )
        return tuple(files), (note,)
    return tuple(header or file for header, file in zip(headers, files, strict=True)), ()


def _header_name(stack: Stack) -> str:
    """Name of the channel in the header, "" for none. The labels of ImageJ are those of slices."""
    name = stack.channels[0].strip() if stack.channels and not stack.slices else ""
    return "" if NAMELESS.fullmatch(name) else name
