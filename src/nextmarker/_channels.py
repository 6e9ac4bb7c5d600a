"""How viewers show the channels of an image at first: colours, limits, and which of them are visible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextmarker._palette import CHANNEL_COLORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

N_SHOWN = 3
"""Channels that viewers show at first."""
WINDOW = 512
"""Width of the windows from which the limits are chosen: four, so that little of a large image is read again."""
BRIGHTEST = 99.5
"""Percentile of the pixels that is shown at full brightness, as in figures."""


def describe(names: Sequence[str], pixels: Any) -> list[dict[str, Any]]:
    """Describe channels as OME-Zarr does in ``omero``.

    Each has a name, a colour and a window: the range of the values (``min``, ``max``), and that which is shown
    (``start``, ``end``).

    Parameters
    ----------
    pixels
        Array of any kind, (channels, ..., height, width).
    """
    return [
        {
            "label": name,
            "color": CHANNEL_COLORS[place % len(CHANNEL_COLORS)].removeprefix("#"),
            "window": limits,
            "active": place < N_SHOWN,
        }
        for place, (name, limits) in enumerate(zip(names, _windows(pixels), strict=True))
    ]


def _windows(pixels: Any) -> Iterator[dict[str, float]]:
    """Limits of each channel."""
    sample = np.concatenate(
        [
            np.asarray(pixels[..., y : y + WINDOW, x : x + WINDOW]).reshape(pixels.shape[0], -1)
            for y in _starts(pixels.shape[-2])
            for x in _starts(pixels.shape[-1])
        ],
        axis=1,
    )
    for channel in sample:
        known = channel[np.isfinite(channel)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
        start = min(low, 0.0)
        shown = float(np.percentile(known, BRIGHTEST)) if len(known) else 0.0
        end = next((value for value in (shown, high) if value > start), start + 1)  # also of a channel without signal
        yield {"min": start, "max": max(high, end), "start": start, "end": end}


def _starts(length: int) -> list[int]:
    """Where windows start: around the quarters of an axis, without overlap."""
    if length <= WINDOW:
        return [0]
    return sorted({max(length // 4 - WINDOW // 2, 0), max(3 * length // 4 - WINDOW // 2, WINDOW)})
