"""The list of acquisitions at the end of an .mcd file; missing labels and names of channels are filled in."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from readimc import MCDFile
from readimc.mcd_parser import MCDParser, MCDParserError

from nextmarker.io._panel import metal_or_nothing

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from readimc.data import Acquisition

UNKNOWN = "Unknown"  # metal of channels without one in the file
PLACES = {"X", "Y", "Z"}


def acquisitions_of(path: Path) -> list[Acquisition]:
    """List the acquisitions of a file.

    Raises
    ------
    ValueError
        If the list is missing, damaged or empty.
    """
    file = MCDFile(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about overlaps, which are checked by the positions of the pixels
            acquisitions = [acquisition for slide in _slides(file) for acquisition in slide.acquisitions]
    except (OSError, ValueError, KeyError, ElementTree.ParseError, MCDParserError) as error:
        msg = f"its list of acquisitions is missing or damaged ({error})"
        raise ValueError(msg) from error
    finally:
        file.close()
    if not acquisitions:
        msg = "it lists no acquisitions"
        raise ValueError(msg)
    return acquisitions


def metals_of(acquisition: Acquisition) -> tuple[str, ...]:
    """Symbol and mass of the metal of each channel, "" if the file has none."""
    return tuple("" if name.startswith(UNKNOWN) else name for name in acquisition.channel_names)


def _slides(file: MCDFile) -> list:
    try:
        file.open()
    except OSError as error:
        if not isinstance(error.__cause__, MCDParserError):
            raise
        return MCDParser(_completed(file.schema_xml)).parse_slides()
    return file.slides


def _completed(xml: str) -> str:
    """Give every channel a label, and a name with its metal."""
    root = ElementTree.fromstring(xml)
    namespace = root.tag[: root.tag.find("}") + 1]
    for number, channel in enumerate(root.iter(f"{namespace}AcquisitionChannel")):
        _entry(channel, f"{namespace}ChannelLabel")
        name = _entry(channel, f"{namespace}ChannelName")
        if (name.text or "") not in PLACES:
            metal = re.fullmatch(r"([A-Za-z]+)\(?(\d+)\)?", metal_or_nothing(name.text or "") or (name.text or ""))
            name.text = f"{metal[1]}({metal[2]})" if metal else f"{UNKNOWN}({number})"
    return ElementTree.tostring(root, encoding="unicode")


def _entry(channel: Element, tag: str) -> Element:
    found = channel.find(tag)
    return ElementTree.SubElement(channel, tag) if found is None else found
