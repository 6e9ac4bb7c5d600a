"""Learned normalization: one sigmoid per marker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from dask.base import compute
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator
from scipy.special import expit

from nextmarker import _keys
from nextmarker._record import read_record
from nextmarker._regions import Region, read_regions
from nextmarker._table import get_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

BLUE, ORANGE, GREEN, GREY = "#56B4E9", "#D55E00", "#009E73", "0.8"
N_WINDOWS = 32
WINDOW_SIZE = 128
MOST_BINS = 40
SHOWN = {"linear": (0, 4), "log": (1 / 8, 64)}  # times the centre of the sigmoid


def normalization(data: AnnData | SpatialData, *, table_key: str = _keys.TABLE) -> np.ndarray:
    """Draw the learned sigmoid of each marker on top of the histogram of its pixels.

    Thin vertical lines show the background of each image, in mean counts per pixel: the signal in empty places, whose
    response `nm.tl.embed` subtracts from that of the cells. A background of zero cannot be shown on a logarithmic axis,
    and values beyond the axis are not drawn.

    The histogram shows the density of the positive pixels, with the highest bar at 1. The axis ends where the sigmoid
    is close to 1, at four times its centre; for sigmoids on the logarithmic axis it is logarithmic, from 1/8 to 64
    times the centre. The pixels are sampled from 32 windows of 128 x 128 pixels around cells of all
    images, so memory is limited.

    Sigmoids act on counts above the offset that a camera adds to every pixel. So the offset of the image is subtracted
    from the pixels and backgrounds shown.

    Parameters
    ----------
    data
        SpatialData object after `nm.tl.embed`. For a table alone, the sigmoids are drawn without histograms.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    Axes, one per marker in the order of the model, object array (markers,).

    Raises
    ------
    KeyError
        If the table does not exist or is not embedded.

    Examples
    --------
    >>> import numpy as np, nextmarker as nm
    >>> from anndata import AnnData
    >>> centre = np.array([10.0, 500.0])
    >>> record = {"markers": np.array(["CD3", "DNA1"]), "axis": "linear", "x_c": centre, "slope": 2 / centre}
    >>> record |= {"x_c_start": centre * 0.8, "slope_start": 2.5 / centre}
    >>> axes = nm.pl.normalization(AnnData(uns={"nextmarker": {"embed": record}}))
    >>> [ax.get_title() for ax in axes]
    ['CD3', 'DNA1']
    """
    sigmoids = read_record(get_table(data, table_key), _keys.EMBED_STEP)
    if not sigmoids:
        msg = "The table has no sigmoids, since it is not embedded: nm.tl.embed(sdata)."
        raise KeyError(msg)
    markers = [str(name) for name in sigmoids["markers"]]
    pixels = None if isinstance(data, AnnData) else _sample_pixels(data, markers, table_key, _offsets(sigmoids))

    figure, axes = _grid(len(markers))
    for m, (ax, marker) in enumerate(zip(axes, markers, strict=True)):
        shown = _shown(sigmoids, m)
        if pixels is not None:
            _draw_histogram(ax, pixels[:, m], shown, sigmoids["axis"])
        _draw_sigmoids(ax, sigmoids, m, shown)
        if "background" in sigmoids:
            _draw_backgrounds(ax, sigmoids["background"][:, m] - sigmoids["offset"][:, m], shown)
        ax.set_title(marker, fontsize="small", pad=3)
    above = "offset" in sigmoids and np.any(sigmoids["offset"])
    figure.supxlabel("counts per pixel above the offset" if above else "raw counts per pixel", fontsize="medium")
    figure.supylabel("normalized intensity", fontsize="medium")
    handles, labels = axes[0].get_legend_handles_labels()
    if any(line.get_color() == GREEN for ax in axes for line in ax.lines):
        handles.append(Line2D([], [], color=GREEN, linewidth=0.8, alpha=0.6))
        labels.append("background of each image")
    columns = min(len(labels), axes[0].get_gridspec().ncols)
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False, fontsize="small")
    return axes


def _offsets(sigmoids: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Offset of each image, (markers,); missing in older tables."""
    return dict(zip(sigmoids.get("images", ()), sigmoids.get("offset", ()), strict=True))


def _sample_pixels(
    sdata: SpatialData, markers: Sequence[str], table_key: str, offsets: dict[str, np.ndarray]
) -> np.ndarray:
    """Read a limited sample of pixels around cells, (pixels, markers), minus the offset of their image.

    Markers that an image lacks are zero.
    """
    cells = [(region, centre) for region in read_regions(sdata, table_key) for centre in region.centres]
    chosen = np.unique(np.linspace(0, len(cells) - 1, N_WINDOWS).round().astype(int))
    windows = [_window(*cells[index]).reindex(c=list(markers), fill_value=0).data for index in chosen]
    pixels = []
    for index, counts in zip(chosen, compute(*windows), strict=True):
        flat = counts.reshape(len(markers), -1).T
        offset = offsets.get(cells[index][0].image, np.zeros(len(markers)))
        # counts remain integers
        pixels.append(np.maximum(flat, offset.astype(flat.dtype)) - offset.astype(flat.dtype))
    return np.concatenate(pixels)


def _window(region: Region, centre: np.ndarray) -> xr.DataArray:
    left, top = np.maximum(centre - WINDOW_SIZE / 2, 0).astype(int)
    return region.pixels.isel(y=slice(top, top + WINDOW_SIZE), x=slice(left, left + WINDOW_SIZE))


def _grid(n: int) -> tuple[Any, np.ndarray]:
    rows = -(-n // int(np.ceil(np.sqrt(1.5 * n))))
    columns = -(-n // rows)  # as few empty places as possible
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(1.6 * columns + 0.5, 1.35 * rows + 0.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for unused in grid.ravel()[n:]:
        unused.remove()
    return figure, grid.ravel()[:n]


def _shown(sigmoids: Mapping[str, Any], m: int) -> tuple[float, float]:
    """Lowest and highest counts on the axis of a marker."""
    low, high = SHOWN[sigmoids["axis"]]
    centres = sigmoids["x_c"][m], sigmoids["x_c_start"][m]
    return low * min(centres), high * max(centres)


def _draw_histogram(ax: Axes, pixels: np.ndarray, shown: tuple[float, float], axis: str) -> None:
    edges = _edges(shown, axis, whole=pixels.dtype.kind in "iu")
    counts, _ = np.histogram(pixels[pixels > 0], edges)
    heights = counts / np.diff(np.log(edges) if axis == "log" else edges)
    ax.stairs(heights / (heights.max() or 1), edges, fill=True, color=GREY, label="positive pixels (relative)")


def _edges(shown: tuple[float, float], axis: str, *, whole: bool) -> np.ndarray:
    """Edges of the bars; for integer counts between integers, so that no count falls on an edge."""
    low, high = shown
    if axis == "log":
        edges = np.geomspace(low, max(high, 2) if whole else high, MOST_BINS + 1)
        return np.unique(edges.round().clip(1)) - 0.5 if whole else edges
    width = np.ceil(high / MOST_BINS) if whole else high / MOST_BINS
    return np.arange(0.5 if whole else 0.0, high + width, width)


def _draw_sigmoids(ax: Axes, sigmoids: Mapping[str, Any], m: int, shown: tuple[float, float]) -> None:
    counts = (np.geomspace if sigmoids["axis"] == "log" else np.linspace)(*shown, 200)
    start = _sigmoid(counts, sigmoids["x_c_start"][m], sigmoids["slope_start"][m], sigmoids["axis"])
    learned = _sigmoid(counts, sigmoids["x_c"][m], sigmoids["slope"][m], sigmoids["axis"])
    ax.plot(counts, learned, color=BLUE, linewidth=3, label="learned")
    ax.plot(counts, start, color=ORANGE, linestyle="--", linewidth=1.2, label="start")  # often nearly the same
    ax.set(xscale=sigmoids["axis"], xlim=shown, ylim=(0, 1.05), yticks=(0, 0.5, 1))
    ax.xaxis.set_major_locator(LogLocator(numticks=4) if sigmoids["axis"] == "log" else MaxNLocator(3))
    ax.minorticks_off()
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(labelsize="x-small")


def _draw_backgrounds(ax: Axes, backgrounds: np.ndarray, shown: tuple[float, float]) -> None:
    low, high = shown
    for background in backgrounds[(backgrounds > 0) & (backgrounds >= low) & (backgrounds <= high)]:
        ax.axvline(background, color=GREEN, linewidth=0.8, alpha=0.6, zorder=1.5)


def _sigmoid(counts: np.ndarray, centre: float, slope: float, axis: str) -> np.ndarray:
    """Eq. 1, on the linear or the logarithmic axis."""
    if axis == "linear":
        return expit(4 * slope * (counts - centre))
    power = (counts / centre) ** (4 * slope)
    return power / (power + 1)
