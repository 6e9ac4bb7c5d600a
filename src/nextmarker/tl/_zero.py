"""Measures the zero of an image on a sample of its pixels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch

from nextmarker._errors import in_images, listed
from nextmarker._tiles import sample_windows
from nextmarker.nn.patches import CellTile, patch_margin
from nextmarker.nn.zero import EMPTY, cut_turned, empty_response, pixel_offset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nextmarker._regions import Region
    from nextmarker.nn.model import NeXtMarker

NO_SIGNAL = 6
"""A marker has no signal if no cell exceeds the zero of its image by this many standard deviations of the noise."""
NAMED = 3
"""Maximum number of images that a warning lists for a marker."""
NO_STRUCTURE = 0.05
"""Correlation of neighbouring pixels below which an image may be pure noise."""


@dataclass(frozen=True)
class Zero:
    """The empty places of an image, as a model sees them."""

    response: torch.Tensor
    """Response, (markers, features)."""
    noise: torch.Tensor
    """Standard deviation of the response over all places, (markers, features)."""
    structure: torch.Tensor
    """Correlation of neighbouring pixels, (markers,): about 0 for pure noise."""
    offset: torch.Tensor
    """Counts that the camera added to every pixel, (markers,)."""
    background: torch.Tensor
    """Mean counts per pixel, including the offset, (markers,)."""

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return the fields, each under the name `zero_<field>`."""
        return {f"zero_{field.name}": getattr(self, field.name).cpu().numpy() for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Zero:
        """Make it from the result of `as_arrays`."""
        return cls(**{field.name: torch.from_numpy(arrays[f"zero_{field.name}"]) for field in fields(cls)})


def measure_zero(model: NeXtMarker, region: Region, device: torch.device) -> Zero | None:
    """Measure the zero of an image, or return None if the model does not subtract it.

    Parameters
    ----------
    model
        On `device`.
    region
        The image; its cells are not used.
    """
    known = model.config
    if not known.network.zero:
        return None
    scale = region.scale(known.pixel_size)
    margin = patch_margin(known.patch_size, scale)
    tiles = [*sample_windows(region, known.markers, margin=margin)]
    counts = np.concatenate([tile.pixels.reshape(-1, len(known.markers)) for tile in tiles])
    offset = torch.from_numpy(pixel_offset(counts)).to(device)
    responses, levels, pairs = [], [], []
    for tile in tiles:
        places = CellTile(torch.from_numpy(tile.pixels), torch.from_numpy(tile.centres), scale, offset).to(device)
        for patches in cut_turned(places, known.patch_size):
            responses.append(model.respond(patches))
            levels.append(patches.mean((2, 3)))
        inside = (places.pixels[margin:-margin, margin:-margin].float() - offset).clamp(min=0).permute(2, 0, 1)
        pairs.append(_neighbours(model.normalization.signal(inside[None])[0]))
    response = torch.cat(responses)
    background = offset + torch.cat(levels).quantile(EMPTY, dim=0)
    return Zero(empty_response(response), response.std(0), _correlate(torch.cat(pairs, 1)), offset, background)


def _neighbours(signal: torch.Tensor) -> torch.Tensor:
    """Pair each pixel of (markers, height, width) with its right neighbour, (markers, pairs, 2)."""
    return torch.stack([signal[..., :-1], signal[..., 1:]], -1).flatten(1, 2)


def _correlate(pairs: torch.Tensor) -> torch.Tensor:
    """Correlation of the pairs of each marker, (markers, pairs, 2); 0 if all pixels are equal."""
    first, second = (pairs - pairs.mean(1, keepdim=True)).unbind(-1)
    return (first * second).mean(1) / ((first**2).mean(1) * (second**2).mean(1)).sqrt().clamp(min=1e-12)


def warn_of_no_signal(
    model: NeXtMarker,
    regions: Sequence[Region],
    lacking: Mapping[str, Sequence[str]],
    interpretability: np.ndarray,
    zeros: Mapping[str, Zero],
) -> None:
    """Warn of markers that show only noise in an image, in all of its cells."""
    markers = np.array(model.config.markers)
    silent: dict[str, list[str]] = {}
    for image, zero in zeros.items():
        rows = np.concatenate([region.rows for region in regions if region.image == image])
        noise = model.activation(model.interpret(NO_SIGNAL * zero.noise.cpu()[None]).numpy())[0]
        brightest = model.activation(interpretability[rows]).max(0)
        none = (zero.structure.cpu().numpy() < NO_STRUCTURE) & (brightest <= noise.clip(min=1e-3))  # rounding errors
        for name in markers[none].tolist():
            if name not in lacking.get(image, []):
                silent.setdefault(name, []).append(image)
    if silent:
        where = [
            f"{name} {in_images(len(own), len(zeros))}{f' ({listed(own, NAMED)})' * (len(own) < len(zeros))}"
            for name, own in silent.items()
        ]
        msg = f"Markers without signal above the background: {', '.join(where)}. Check them there."
        warnings.warn(msg, stacklevel=3)


def describe_zeros(zeros: Mapping[str, Zero]) -> dict[str, np.ndarray]:
    """Collect the zeros of all images in arrays, (images, markers), for the record."""
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
