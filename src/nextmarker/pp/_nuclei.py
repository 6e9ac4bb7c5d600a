"""Detects nuclei in the pixels of the nuclear channels.

Images are read tile by tile, and the result does not depend on the size of the tiles: each pixel is filtered with all
pixels in reach, sums over an image are sums of integers, and steps that depend on the order of the cells come after all
of them are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from scipy import ndimage as ndi
from scipy.spatial import KDTree
from skimage.filters import threshold_otsu

from nextmarker._progress import Advance, ignore
from nextmarker._regions import read_pixels
from nextmarker.pp._labels import TILE_SIZE, Pieces, connected_groups, grid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

Method = Literal["maxima", "blobs", "threshold"]
METHODS = get_args(Method)

# Limits of the sample on which the contrast is measured, so that a slide takes no longer than a small image.
_CHECKED_CELLS = 300
_CHECKED_TILES = 8

# Widths of the Gaussians for estimating the size of the nuclei, half an octave apart.
_WIDTHS = 2.0 ** np.arange(0, 4.75, 0.5)
# The mean square of the difference of the Gaussians w and sqrt(2) w is largest for nuclei that are Gaussians of width
# w / 1.185; the diameter of such a nucleus is taken as four times its width.
_DIAMETER_PER_WIDTH = 4 / 1.185
_REACH = 4.0  # Gaussians are truncated at so many widths


@dataclass(frozen=True)
class _Block:
    """A part of an image in memory, with a halo."""

    pixels: np.ndarray
    """(height, width), float64."""
    core: tuple[slice, ...]
    """The part of `pixels` without the halo."""
    origin: tuple[int, int]
    """Row and column in the image of the first pixel of the core."""

    @property
    def size(self) -> int:
        """Number of pixels of the core."""
        return self.pixels[self.core].size


@dataclass(frozen=True)
class NuclearImage:
    """The nuclear channels of one image, combined into one and read in tiles.

    A single channel is used as it is. Several are divided by the 99th percentile of their nonzero pixels and summed, so
    that they have equal weight.
    """

    name: str
    pixels: xr.DataArray
    """Raw counts of all channels, lazy, (c, y, x)."""
    channels: Sequence[str]
    tile_size: int = TILE_SIZE

    def tiles(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the tiles that cover the image."""
        return grid(self.pixels, self.tile_size)

    def blocks(self, halo: int, tiles: Sequence[tuple[slice, slice]] | None = None) -> Iterator[_Block]:
        """Iterate over the image, or over some tiles, with a halo of `halo` pixels where the image continues."""
        for rows, columns in self.tiles() if tiles is None else tiles:
            top, left = min(rows.start, halo), min(columns.start, halo)
            raw = self._read(
                slice(rows.start - top, rows.stop + halo), slice(columns.start - left, columns.stop + halo)
            )
            core = (slice(top, top + rows.stop - rows.start), slice(left, left + columns.stop - columns.start))
            yield _Block(self._join(raw), core, (rows.start, columns.start))

    def _read(self, rows: slice, columns: slice) -> np.ndarray:
        return read_pixels(self.name, self.pixels.sel(c=list(self.channels)), rows, columns)

    def _join(self, raw: np.ndarray) -> np.ndarray:
        joined = np.zeros(raw.shape[1:])
        for channel, weight in zip(raw, self.weights, strict=True):
            joined += channel * weight
        return joined

    @cached_property
    def weights(self) -> np.ndarray:
        """Factor of each channel; the image is read for it."""
        if len(self.channels) == 1:
            return np.ones(1)
        histograms = [_Histogram() for _ in self.channels]
        for rows, columns in self.tiles():
            for histogram, channel in zip(histograms, self._read(rows, columns), strict=True):
                histogram.add(channel)
        scales = np.array([histogram.quantile_of_nonzero(0.99) for histogram in histograms])
        return np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)


class _Histogram:
    """Histogram in bins of 1/32 octave, from zero to the largest float; negative values count as zero."""

    # Exponent and first five bits of the mantissa give the bin: exact, and as fine for counts of 1 as of 10,000.
    _SHIFT = 52 - 5

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 16, np.int64)

    def add(self, values: np.ndarray) -> None:
        not_negative = np.maximum(values, 0, dtype=np.float64) + 0.0  # turns -0.0 into 0.0
        bits = not_negative.ravel().view(np.int64)
        self._counts += np.bincount(bits >> self._SHIFT, minlength=self._counts.size)

    def _filled(self) -> tuple[np.ndarray, np.ndarray]:
        bins = np.flatnonzero(self._counts)
        return self._counts[bins], (bins << self._SHIFT).view(np.float64)

    def quantile_of_nonzero(self, q: float) -> float:
        counts, values = self._filled()
        counts, values = counts[values > 0], values[values > 0]
        return float(values[np.searchsorted(np.cumsum(counts), q * counts.sum())]) if counts.size else 0.0

    def foreground_level(self) -> float:
        """Otsu's threshold of the square roots, whose noise is equal in bright and dim pixels."""
        counts, values = self._filled()
        if counts.size < 2:
            return np.inf
        return float(threshold_otsu(hist=(counts, np.sqrt(values))) ** 2)


def detail_by_width(image: NuclearImage, advance: Advance = ignore) -> np.ndarray:
    """Measure how much detail an image shows at each of several scales, float64 (widths,).

    The square roots of the pixels are filtered with differences of Gaussians of increasing width, and the squares of
    the differences are summed.
    """
    energy = np.zeros(len(_WIDTHS) - 1)
    for block in image.blocks(_reach(_WIDTHS[-1])):
        pixels = np.sqrt(np.maximum(block.pixels, 0))
        finer = _smooth(pixels, _WIDTHS[0])
        for scale, width in enumerate(_WIDTHS[1:]):
            coarser = _smooth(pixels, width)
            energy[scale] += np.square((finer - coarser)[block.core]).sum()
            finer = coarser
        advance(block.size)
    return energy


def estimate_diameter(detail: Sequence[np.ndarray]) -> float | None:
    """Estimate the diameter of the nuclei from the scale at which the images show most detail.

    For noise alone, the mean square of the difference falls with the square of the width; the excess over this has its
    peak at the nuclei.

    Parameters
    ----------
    detail
        `detail_by_width` of each image.

    Returns
    -------
    Pixels, with one decimal, or None if there is no signal.
    """
    # Rounded, so that the order in which tiles are summed has no effect.
    energy = np.sum(detail, axis=0).astype(np.float32).astype(np.float64)
    if energy.max() == 0:
        return None
    excess = np.maximum(energy - energy[0] * (_WIDTHS[0] / _WIDTHS[:-1]) ** 2, 0)
    return round(_DIAMETER_PER_WIDTH * _peak(_WIDTHS[:-1], excess if excess.any() else energy), 1)


def _peak(widths: np.ndarray, energy: np.ndarray) -> float:
    """Width of the largest energy, from a parabola through three points on logarithmic axes."""
    best = int(np.argmax(energy))
    if not 0 < best < len(energy) - 1 or not energy[best - 1 : best + 2].all():
        return float(widths[best])
    left, centre, right = np.log(energy[best - 1 : best + 2])
    offset = 0.5 * (left - right) / (left - 2 * centre + right) if left + right < 2 * centre else 0.0
    return float(widths[best] * (widths[1] / widths[0]) ** offset)


def find_nuclei(image: NuclearImage, method: Method, diameter: float, advance: Advance = ignore) -> np.ndarray:
    """Detect the nuclei of an image.

    Parameters
    ----------
    method
        See :func:`nextmarker.pp.detect_cells`.
    diameter
        Diameter of a nucleus in pixels.

    Returns
    -------
    Centres (x, y) in intrinsic coordinates, float64 (cells, 2), from top to bottom.
    """
    if method == "threshold":
        return _as_centres(_components(image, diameter, advance))
    return _as_centres(_peaks(image, method, diameter, advance))


def _as_centres(row_column: np.ndarray) -> np.ndarray:
    ordered = row_column[np.lexsort(row_column.T[::-1])]
    return ordered[:, ::-1] + 0.5  # pixel i spans [i, i + 1) in SpatialData


def _peaks(image: NuclearImage, method: Method, diameter: float, advance: Advance) -> np.ndarray:
    """Row and column of the strongest responses in the foreground, at least half a diameter apart."""
    levels = _Histogram()
    found = []
    blob_width = diameter / np.sqrt(8)  # at which the Laplacian of Gaussian responds most to a disc of this diameter
    for block in image.blocks(_reach(blob_width) + 1):
        smooth = _smooth(block.pixels, diameter / 4)
        levels.add(smooth[block.core])
        response = smooth if method == "maxima" else -ndi.gaussian_laplace(block.pixels, blob_width, truncate=_REACH)
        # Only the rim of a flat top counts; a flat image has no peak.
        is_peak = (response == ndi.maximum_filter(response, 3)) & (response > ndi.minimum_filter(response, 3))
        is_peak &= response > 0
        rows, columns = np.nonzero(is_peak[block.core])
        at = (rows + block.core[0].start, columns + block.core[1].start)
        found.append(np.column_stack([rows + block.origin[0], columns + block.origin[1], response[at], smooth[at]]))
        advance(block.size)
    peaks = np.concatenate(found)
    peaks = peaks[peaks[:, 3] > levels.foreground_level()]
    return _apart(*_join_ties(peaks[:, :2], peaks[:, 2]), distance=diameter / 2)


def _join_ties(position: np.ndarray, response: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replace neighbouring peaks, which are equally high, by one in their middle."""
    if len(position) == 0:
        return position, response
    first, second = KDTree(position).query_pairs(1.5, output_type="ndarray").T
    n_groups, group = connected_groups(first, second, len(position))
    size = np.bincount(group, minlength=n_groups)
    middle = np.column_stack([np.bincount(group, axis, n_groups) / size for axis in position.T])
    height = np.zeros(n_groups)
    height[group] = response
    return middle, height


def _apart(position: np.ndarray, response: np.ndarray, distance: float) -> np.ndarray:
    """Keep the strongest peaks, and drop all others within `distance` of one that is kept."""
    if len(position) == 0:
        return position
    position = position[np.lexsort((position[:, 1], position[:, 0], -response))]
    keep = np.ones(len(position), bool)
    for index, near in enumerate(KDTree(position).query_ball_point(position, distance)):
        if keep[index]:
            keep[[other for other in near if other > index]] = False
    return position[keep]


def _components(image: NuclearImage, diameter: float, advance: Advance) -> np.ndarray:
    """Row and column of the centroids of connected foreground, without pieces below a quarter of a nucleus."""
    width = diameter / 8  # enough to connect the counts of one nucleus
    levels = _Histogram()
    for block in image.blocks(_reach(width)):
        levels.add(_smooth(block.pixels, width)[block.core])
        advance(block.size / 2)
    level = levels.foreground_level()

    pieces = Pieces(image.pixels.sizes["x"])
    for block in image.blocks(_reach(width)):
        pieces.add(_smooth(block.pixels, width)[block.core] > level, block.origin)
        advance(block.size / 2)
    area, centroids = pieces.join()
    return centroids[area >= np.pi * diameter**2 / 16]


def contrast_to_noise(image: NuclearImage, centres: np.ndarray, diameter: float) -> np.ndarray:
    """Measure the contrast of cells to their surroundings, in standard deviations of the noise.

    The signal is the mean at the centre minus that around it, weighted by Gaussians with widths of a quarter and half
    of the diameter. The noise is the difference between neighbouring pixels at the same place. It is independent in
    each pixel, so its effect on the signal is known: shot noise at any rate, camera noise and hot pixels give values
    around 1.6, and nuclei, which are larger than a pixel, 5 and more.

    Parameters
    ----------
    centres
        Centres (x, y) in intrinsic coordinates, float64 (cells, 2), from top to bottom.
    diameter
        Diameter of a nucleus in pixels.

    Returns
    -------
    One value for each cell of a sample of a few hundred cells across the image, float64 (cells,).
    """
    sample = np.floor(centres[:: -(-len(centres) // _CHECKED_CELLS) or 1, ::-1]).astype(int)
    tiles = [tile for tile in image.tiles() if _within(sample, tile).any()]
    tiles = tiles[:: -(-len(tiles) // _CHECKED_TILES) or 1]
    reach = int(1.5 * diameter) + 1  # three widths of the wider Gaussian
    values: list[float] = []
    for tile, block in zip(tiles, image.blocks(reach, tiles), strict=True):
        shift = [part.start - start for part, start in zip(block.core, block.origin, strict=True)]
        values += [
            _contrast(_window(block.pixels, centre + shift, reach), diameter / 4)
            for centre in sample[_within(sample, tile)]
        ]
    return np.array(values)


def _within(row_column: np.ndarray, tile: tuple[slice, slice]) -> np.ndarray:
    inside = np.ones(len(row_column), bool)
    for position, part in zip(row_column.T, tile, strict=True):
        inside &= (position >= part.start) & (position < part.stop)
    return inside


def _window(pixels: np.ndarray, centre: np.ndarray, reach: int) -> np.ndarray:
    """Cut out a square around a pixel; beyond the border the image is mirrored."""
    places = []
    for middle, size in zip(centre, pixels.shape, strict=True):
        mirrored = (size - 1) - np.abs((size - 1) - np.abs(np.arange(middle - reach, middle + reach + 1)))
        places.append(np.clip(mirrored, 0, size - 1))  # if the image is smaller than the square
    return pixels[np.ix_(*places)]


def _contrast(window: np.ndarray, width: float) -> float:
    offsets = np.arange(len(window)) - len(window) // 2
    narrow, wide = (np.exp(-((offsets / w) ** 2) / 2) for w in (width, 2 * width))
    narrow, wide = (np.outer(profile, profile) / profile.sum() ** 2 for profile in (narrow, wide))
    weights = narrow - wide
    # The mean squared difference of neighbours with independent noise is twice its variance, along rows and columns.
    differences = np.square(np.diff(window, axis=0)[:, 1:]) + np.square(np.diff(window, axis=1)[1:])
    variance = (differences * narrow[1:, 1:]).sum() / 4
    signal = (window * weights).sum()
    if signal <= 0:
        return 0.0
    return float(signal / np.sqrt(variance * np.square(weights).sum())) if variance > 0 else np.inf


def _smooth(pixels: np.ndarray, width: float) -> np.ndarray:
    return ndi.gaussian_filter(pixels, width, truncate=_REACH)


def _reach(width: float) -> int:
    """Pixels that a Gaussian of this width uses on either side."""
    return int(_REACH * width + 0.5)
