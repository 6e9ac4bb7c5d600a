"""The zero of an image, measured on a bounded sample of its pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker._errors import listed
from nextmarker._tiles import read_windows
from nextmarker.nn.device import to_device
from nextmarker.nn.views import Crops, reach
from nextmarker.nn.zero import EMPTY, cut_turned, empty_response, pixel_offset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nextmarker._regions import Region
    from nextmarker.nn.model import NeXtMarker

NO_SIGNAL = 6
"""Standard deviations of the noise that no cell rises above its image's zero where a marker has no signal."""
NAMED = 3
"""Images without signal of a marker that are named."""
NO_STRUCTURE = 0.05
"""Correlation of neighbouring pixels below which an image may be noise alone."""


@dataclass(frozen=True)
class Zero:
    """What a model meets in the empty places of an image."""

    response: torch.Tensor
    """Response of every marker, (markers, features)."""
    noise: torch.Tensor
    """Standard deviation of the response from place to place, (markers, features)."""
    structure: torch.Tensor
    """Correlation of neighbouring pixels, (markers,): about 0 where the image shows noise alone."""
    offset: torch.Tensor
    """Counts that a camera added to every pixel, (markers,)."""
    background: torch.Tensor
    """Mean counts of a pixel, the offset among them, (markers,)."""


def measure_zero(model: NeXtMarker, region: Region, device: torch.device) -> Zero | None:
    """Measure the zero of an image; None for a model that subtracts none.

    Parameters
    ----------
    model
        On `device`.
    region
        The image; its cells do not matter.
    """
    known = model.config
    if not known.network.zero:
        return None
    step = region.step(known.pixel_size)
    halo = reach(known.patch_size, step)
    tiles = [*read_windows(region, known.markers, halo=halo)]
    pixels = np.concatenate([tile.pixels.reshape(-1, len(known.markers)) for tile in tiles])
    offset = torch.from_numpy(pixel_offset(pixels)).to(device)
    responses, levels, pairs = [], [], []
    for tile in tiles:
        crops = Crops(to_device(tile.pixels, device), torch.from_numpy(tile.centres).to(device), step, offset)
        for patches in cut_turned(crops, known.patch_size):
            responses.append(model.respond(patches))
            levels.append(patches.mean((2, 3)))
        inside = (crops.pixels[halo:-halo, halo:-halo].float() - offset).clamp(min=0).permute(2, 0, 1)
        pairs.append(_neighbours(model.normalization.signal(inside[None])[0]))
    response = torch.cat(responses)
    background = offset + torch.cat(levels).quantile(EMPTY, dim=0)
    return Zero(empty_response(response), response.std(0), _correlate(torch.cat(pairs, 1)), offset, background)


def _neighbours(signal: torch.Tensor) -> torch.Tensor:
    """Pixels of (markers, height, width) and their neighbours to the right, (markers, pairs, 2)."""
    return torch.stack([signal[..., :-1], signal[..., 1:]], -1).flatten(1, 2)


def _correlate(pairs: torch.Tensor) -> torch.Tensor:
    """Correlation of pairs, (markers, pairs, 2), for each marker; 0 where all pixels are alike."""
    first, second = (pairs - pairs.mean(1, keepdim=True)).unbind(-1)
    return (first * second).mean(1) / ((first**2).mean(1) * (second**2).mean(1)).sqrt().clamp(min=1e-12)


def warn_of_no_signal(
    model: NeXtMarker,
    regions: Sequence[Region],
    lacking: Mapping[str, Sequence[str]],
    interpretability: np.ndarray,
    zeros: Mapping[str, Zero],
) -> None:
    """Warn of markers of which an image shows noise alone, and no cell more than that."""
    markers = np.array(model.config.markers)
    silent: dict[str, list[str]] = {}
    for image, zero in zeros.items():
        rows = np.concatenate([region.rows for region in regions if region.image == image])
        noise = model.interpret(NO_SIGNAL * zero.noise.cpu()[None]).numpy()[0].mean(1).clip(min=1e-3)  # of rounding
        brightest = interpretability[rows].mean(2).max(0)
        none = (zero.structure.cpu().numpy() < NO_STRUCTURE) & (brightest <= noise)
        for name in markers[none].tolist():
            if name not in lacking.get(image, []):
                silent.setdefault(name, []).append(image)
    if silent:
        where = [f"{name} in {len(s)} of {len(zeros)} images ({listed(s, NAMED)})" for name, s in silent.items()]
        msg = f"Markers without signal above the background: {', '.join(where)}. Look at them before you trust them."
        warnings.warn(msg, stacklevel=3)


def describe_zeros(zeros: Mapping[str, Zero]) -> dict[str, np.ndarray]:
    """The zeros of all images as arrays, (images, markers), for the record."""
    if not zeros:
        return {}
    columns = {
        "offset": [zero.offset for zero in zeros.values()],
        "background": [zero.background for zero in zeros.values()],
        "zero_response": [zero.response.mean(1) for zero in zeros.values()],
    }
    return {
        "images": np.array(list(zeros), dtype=object),
        **{name: torch.stack(values).cpu().numpy() for name, values in columns.items()},
    }
