"""Channels of mass spectrometry without an antibody: plasma gases, elements of the tissue, background."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from nextmarker.io._image import Image

# never bound to an antibody
NEVER = {"Ar": "argon", "ArAr": "argon", "Kr": "krypton", "Xe": "xenon", "BCKG": "background"}
# may be bound to an antibody; the channel then has a label
UNLABELLED = {"I": "iodine", "Ba": "barium", "Pb": "lead"}
# in MIBI, without a mass
ELEMENTS = {"C": "carbon", "Ca": "calcium", "Fe": "iron", "Na": "sodium", "P": "phosphorus", "Si": "silicon"}
ELEMENTS |= {"Ta": "tantalum", "Au": "gold", "Background": "background", "totalIon": "all ions"}


def with_note(image: Image) -> Image:
    """Add a note on channels without an antibody, and how to leave them out."""
    metals = image.metals or [""] * len(image.channels)
    elements = {} if _are_letters(image.channels) else ELEMENTS
    found = [
        f"{channel} ({element})"
        for channel, metal in zip(image.channels, metals, strict=True)
        if (element := _element(channel, metal) or elements.get(channel))
    ]
    if not found:
        return image
    note = f"channels without an antibody: {', '.join(found)}; to leave them out: panel=..."
    return replace(image, notes=(*image.notes, note))


def _are_letters(channels: Collection[str]) -> bool:
    """Whether channels are called A, B, C and so on."""
    return all(len(channel) == 1 for channel in channels)


def _element(channel: str, metal: str) -> str:
    """Element of a channel without an antibody, "" for other channels."""
    tag = _symbol(channel)
    symbol = _symbol(metal) or tag
    return NEVER.get(symbol, "") or (UNLABELLED.get(symbol, "") if tag == symbol else "")


def _symbol(name: str) -> str:
    """Symbol of an element if a name is only symbol and mass: ``131Xe``, ``Xe131``, ``80ArAr``."""
    found = re.fullmatch(r"(\d{2,3})?([A-Za-z]+)(\d{2,3})?(Di)?", name.strip())
    return found[2] if found and (found[1] is None) != (found[3] is None) else ""
