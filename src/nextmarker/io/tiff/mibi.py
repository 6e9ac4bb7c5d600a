"""MIBItiff of Ionpath: each page has a description in JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nextmarker.io._image import Skipped
from nextmarker.io.tiff.stack import Stack, make_stack, resolution

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tifffile

PREFIX = "mibi."
COUNTS = "SIMS"  # image.type of channels
PHOTOGRAPHS = {"SED", "Optical", "Label"}


def is_mibi(page: tifffile.TiffPage) -> bool:
    """Whether the first page is that of a MIBItiff."""
    return page.software.startswith("IonpathMIBI") or '"channel.target"' in page.description


def mibi_stacks(path: Path, pages: Sequence[tifffile.TiffPage]) -> tuple[list[Stack], list[Skipped]]:
    """Combine the pages with ion counts; optical and electron images are left out."""
    headers = [_header(path, page) for page in pages]
    kinds = [str(header.get("image.type", COUNTS)) for header in headers]
    counts = [
        (page, header) for page, header, kind in zip(pages, headers, kinds, strict=True) if kind.upper() == COUNTS
    ]
    left_out = sorted({kind for kind in kinds if kind.upper() != COUNTS})
    skipped = [Skipped(f"{path}: {kind}", "no image of ion counts", expected=kind in PHOTOGRAPHS) for kind in left_out]
    if not counts:
        msg = f"{path} has no page of ion counts (SIMS): it has {left_out}."
        raise ValueError(msg)
    targets = [header.get("channel.target") for _, header in counts]
    masses = [str(header.get("channel.mass", "")) for _, header in counts]
    names = [str(target or f"mass {mass}") for target, mass in zip(targets, masses, strict=True)]
    first, header = counts[0]
    stack = make_stack(
        path,
        [page for page, _ in counts],
        channels=tuple(names),
        metals=tuple(masses),
        stated=resolution(first),
        metadata=_metadata(header) | ({"date": first.datetime.isoformat()} if first.datetime else {}),
    )
    return [stack], skipped


def _header(path: Path, page: tifffile.TiffPage) -> dict[str, Any]:
    try:
        header = json.loads(page.description)
    except (ValueError, RecursionError) as error:
        msg = f"{path} is damaged: the JSON in the header of page {page.index} cannot be read ({error})."
        raise ValueError(msg) from error
    if not isinstance(header, dict):
        msg = f"{path} is damaged: the header of page {page.index} is not a JSON object."
        raise ValueError(msg)
    return header


def _metadata(header: dict[str, Any]) -> dict[str, str | float | int]:
    """Metadata that all pages share, such as ``run``, ``fov_id`` and ``mass_range``; lists as JSON."""
    of_channel = {"image.type", "channel.mass", "channel.target", "shape"}
    kept = {key.removeprefix(PREFIX): value for key, value in header.items() if key not in of_channel}
    plain = {key: value if isinstance(value, (str, int, float)) else json.dumps(value) for key, value in kept.items()}
    return {key: value for key, value in plain.items() if header.get(key, header.get(PREFIX + key)) is not None}
