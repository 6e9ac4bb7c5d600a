"""Names of images and channels: from the user, the header, the names of the pages, or the file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nextmarker.io._image import check_channels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tifffile

PAGE_NAME = 285  # tag
RUNNING = "page|frame|slice|plane|image|img|channel|ch|c|t|z|time|timepoint|series|layer|untitled"  # before a number


def stem(path: Path) -> str:
    """Name of a file without its extensions."""
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem


def name_channels(
    source: str, n: int, header: Sequence[str] | None, given: Sequence[str] | None, unsure: str = ""
) -> tuple[str, ...]:
    """Names of `n` channels, as given or as in the header.

    Raises
    ------
    ValueError
        If names are missing or repeat, or their number is wrong.
    """
    if given is not None:
        # given names mean that the planes are channels, whatever the header calls them
        if len(given) != n:
            planes = f"{n} planes ({unsure})" if unsure else f"{n} channels"
            msg = f"{source} has {planes}, but channel_names has {len(given)}: {list(given)}."
            raise ValueError(msg)
        check_channels(given, source)
        return tuple(given)
    if header is None or len(header) != n:
        msg = f"{source} has {n} channels without names. Name all {n}: channel_names=[...]."
        if n == 1:
            fix = "Name it, channel_names=[...]; or if it is a mask, read its image, and nm.pp.add_masks(sdata, ...)."
            msg = f"{source} has 1 channel without a name. {fix}"
        raise ValueError(msg)
    return tuple(header)


def page_names(path: Path, pages: Sequence[tifffile.TiffPage], planes: int) -> tuple[str, ...] | None:
    """Names of the channels in the tag PageName, as written by MCDViewer; None if they only number the pages."""
    names = [str(page.tags.valueof(PAGE_NAME, default="")).strip() for page in pages]
    numbered = re.compile(rf"({RUNNING}|{re.escape(stem(path))})?[\W_]*\d*\W*(of)?\W*\d*", re.IGNORECASE)
    useful = len(set(names)) == len(names) == planes > 1 and not any(numbered.fullmatch(name) for name in names)
    return tuple(names) if useful else None
