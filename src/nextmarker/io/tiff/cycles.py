"""Folders in a folder, with one TIFF per channel: cycles of one image, or separate images."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextmarker.io._names import stem
from nextmarker.io.tiff.channels import difference, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nextmarker.io.tiff.stack import Stack

CYCLE = re.compile(r"(cycle|cyc|round|rnd)[\W_]*\d|\d[\W_]*([a-z]*cycle|cyc|round)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A folder of one TIFF per channel."""

    folder: Path
    stacks: list[Stack]


def all_channels(parts: Sequence[Part]) -> list[Stack]:
    """Channels of all cycles, in numerical order: cycle 2 before cycle 10."""

    def place(part: Part) -> list[str | int]:
        return [int(text) if text.isdigit() else text for text in re.split(r"(\d+)", part.folder.name)]

    return [stack for part in sorted(parts, key=place) for stack in part.stacks]


def are_cycles(parts: Sequence[Part]) -> bool:
    """Whether folders are cycles of one image: they share few channels, while fields of view share their panel."""
    names = [_keys(part) for part in parts]
    count = Counter(name for part in names for name in part)
    of_one = {name for name, times in count.items() if times == 1}
    with_own = sum(bool(part & of_one) for part in names)
    return len(parts) > 1 and 2 * with_own > len(parts) and len(of_one) >= len(count) - len(of_one)


def _keys(part: Part) -> set[str]:
    """Names of the channels, without the part that all files of a folder share with its name."""
    names, _ = names_of(part.stacks)
    if list(names) != [stem(stack.path) for stack in part.stacks]:
        return set(names)
    common = len(os.path.commonprefix(list(names))) if len(names) > 1 else 0
    return {name[common:].replace(part.folder.name, "") for name in names}


def verdict(parent: Path, parts: Sequence[Part], pixel_size: float | None) -> tuple[bool, str]:
    """Whether to combine the folders in one image; if not, a note if they may be cycles of one."""
    if not are_cycles(parts):
        named = len(parts) > 1 and all(CYCLE.search(part.folder.name) for part in parts)
        return False, _same_channels(parent) if named else ""
    problem = difference(all_channels(parts), pixel_size)
    if not all(CYCLE.search(part.folder.name) for part in parts):
        why = (
            f"they differ in {problem}"
            if problem
            else f"if they are cycles of one image: nm.io.read_folder({str(parent)!r})"
        )
        return False, f"its channels differ from those of the folders next to it: read as separate images; {why}"
    if problem:
        why = "read as an image of its own, since the cycles differ in"
        return False, f"{why} {problem}. Align them first, and save them with the same size and type"
    return True, ""


def _same_channels(parent: Path) -> str:
    return (
        f"the folders in {parent.name} are called cycles and have the same channels: read as separate images. "
        "If they are cycles of one image, name the files differently"
    )
