"""Channels of imaging mass cytometry that carry no antibody: gases of the plasma, contaminants, background."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextmarker.io._image import Image

# nothing can be labelled with these
NEVER = {"Ar": "argon", "ArAr": "argon", "Kr": "krypton", "Xe": "xenon", "BCKG": "background"}
# with these it can, and the channel has a label then
UNLABELLED = {"I": "iodine", "Ba": "barium", "Pb": "lead"}


def with_note(image: Image) -> Image:
    """Say which channels of an image carry no marker, and how to leave them out."""
    metals = image.metals or [""] * len(image.channels)
    found = [
        f"{channel} ({element})"
        for channel, metal in zip(image.channels, metals, strict=True)
        if (element := _element(channel, metal))
    ]
    if not found:
        return image
    note = (
        f"channels without an antibody: {', '.join(found)}; to leave them out, give the channels to keep as panel=..."
    )
    return replace(image, notes=(*image.notes, note))


def _element(channel: str, metal: str) -> str:
    """The element of a channel without an antibody, "" for all others."""
    tag = _symbol(channel)
    symbol = _symbol(metal) or tag
    return NEVER.get(symbol, "") or (UNLABELLED.get(symbol, "") if tag == symbol else "")


def _symbol(name: str) -> str:
    """Symbol of an element, if a name is that with a mass and nothing else: ``131Xe``, ``Xe131``, ``80ArAr``."""
    found = re.fullmatch(r"(\d{2,3})?([A-Za-z]+)(\d{2,3})?(Di)?", name.strip())
    return found[2] if found and (found[1] is None) != (found[3] is None) else ""
