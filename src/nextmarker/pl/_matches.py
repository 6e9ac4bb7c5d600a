"""Cell centres and segmented objects: which were matched and which were not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from nextmarker import _keys
from nextmarker._coordinates import apply
from nextmarker._errors import listed, no_such
from nextmarker._objects import Objects, read_objects
from nextmarker._record import read_record, record_name
from nextmarker._regions import as_list, read_regions, require_images
from nextmarker._table import get_table, require
from nextmarker.pl._overlay import draw_scale_bar
from nextmarker.pl._pixels import check_channels, choose_frame, choose_limits, read_frame, scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from nextmarker._regions import Region
    from nextmarker.pl._pixels import Frame

# Okabe and Ito: told apart by colour-blind readers
MATCHED, LONE_CENTRE, LONE_OBJECT, LEFT_OUT = "#56B4E9", "#F0E442", "#D55E00", "#CC79A7"
WIDTH = 6.0
"""Width of the image in inches."""
MOST_PIXELS = 2048


def matches(
    sdata: SpatialData,
    image: str | None = None,
    *,
    channels: str | Sequence[str] | None = None,
    crop: tuple[float, float, float, float] | None = None,
    key: str = _keys.MATCHED,
    reference: str | None = None,
    table_key: str = _keys.TABLE,
    ax: Axes | None = None,
) -> Axes:
    """Draw the outlines of segmented objects and the cell centres of an image, coloured by whether they were matched.

    Matched centres and their objects are blue, centres without an object yellow, and objects without a centre
    vermilion. Objects that the reference lacks are purple. Only the crop is read. If it is wider or higher than 2,048
    pixels, it is downsampled. The scale bar is in micrometres if the pixel size is known, otherwise in pixels.

    Parameters
    ----------
    sdata
        Images with cell centres that :func:`nextmarker.pp.match_cells` matched.
    image
        Name of the image; by default the first with cells.
    channels
        Channel to draw, or several, averaged. By default the nuclear channels that were given to `nm.pp.detect_cells`.
        Each is scaled to its brightest pixels.
    crop
        (x, y, width, height) in pixels, where x and y are the upper left corner; by default the whole image.
    key
        Column of `.obs` with the names of the matched objects.
    reference
        Table of the objects; by default the one that they were matched to.
    table_key
        Name of the table of cell centres.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes, in pixels of the image with y pointing down. The numbers in the legend are those in the crop.

    Raises
    ------
    KeyError
        If a table, column, image or channel does not exist, or the nuclear channel is not known.
    ValueError
        If the crop is outside the image, or the reference lacks a matched object.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.dense_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, "DNA", diameter=7, progress=False)
    >>> nm.pp.integrate(sdata, "masks", progress=False)
    >>> nm.pp.match_cells(sdata, progress=False)
    >>> ax = nm.pl.matches(sdata)
    >>> [entry.get_text() for entry in ax.get_legend().get_texts()]
    ['matched (98)', 'centre without object (0)', 'object without centre (2)']
    """
    require_images(sdata)
    adata = get_table(sdata, table_key)
    names = require(adata, "obs", key, "nm.pp.match_cells(sdata)")
    reference = _choose_reference(adata, key, reference)
    region = _choose_region(read_regions(sdata, table_key), image)
    channel_names = _choose_channels(adata, region, channels)
    frame = choose_frame(region, crop)
    objects = next((found for found in read_objects(sdata, reference) if found.image == region.image), None)
    matched_rows = _find(sdata.tables[reference], names.dropna(), reference)

    ax = _new_axes(frame) if ax is None else ax
    _draw_background(ax, region.pixels.sel(c=channel_names), frame)
    lone, left_out = (0, 0) if objects is None else _draw_outlines(ax, objects, matched_rows, frame)
    n_matched, n_lone = _draw_centres(ax, region, names.notna().to_numpy(), frame)
    entries: list[tuple[str, dict[str, Any]]] = [
        (f"matched ({n_matched:,})", {"color": MATCHED, "marker": "o", "linestyle": "-"}),
        (f"centre without object ({n_lone:,})", {"color": LONE_CENTRE, "marker": "X", "linestyle": ""}),
        (f"object without centre ({lone:,})", {"color": LONE_OBJECT, "linestyle": "-"}),
    ]
    if left_out:
        entries.append((f"object not in {reference!r} ({left_out:,})", {"color": LEFT_OUT, "linestyle": "-"}))
    _draw_legend(ax, entries)
    left, top, right, bottom = frame
    ax.set(xlim=(left, right), ylim=(bottom, top), xlabel="x (pixels)", ylabel="y (pixels)")
    ax.set_title(f"{region.image}: {' + '.join(channel_names)}", fontsize="medium")
    draw_scale_bar(ax, right - left, region.pixel_size)
    return ax


def _choose_reference(adata: AnnData, key: str, reference: str | None) -> str:
    recorded = read_record(adata, record_name(_keys.MATCH_STEP, key)).get("reference", reference)
    if recorded is None:
        msg = f"It is not known to which table {key!r} was matched. Name it: reference=..."
        raise KeyError(msg)
    return str(reference or recorded)


def _choose_region(regions: Sequence[Region], image: str | None) -> Region:
    for region in regions:
        if image in (None, region.image):
            return region
    there = [region.image for region in regions]
    raise KeyError(no_such("image", str(image), "the table of cells", there, "Choose one of these."))


def _choose_channels(adata: AnnData, region: Region, channels: str | Sequence[str] | None) -> list[str]:
    chosen = read_record(adata, "detect_cells").get("nuclear_channels") if channels is None else as_list(channels)
    if chosen is None:
        panel = region.pixels["c"].to_numpy().tolist()
        msg = f"The nuclear channel of these cells is not known. Choose one: channels=..., from {listed(panel)}."
        raise KeyError(msg)
    names = [str(name) for name in chosen]
    check_channels([region], names, "channels")
    return names


def _find(table: AnnData, names: Sequence[str], reference: str) -> np.ndarray:
    """Rows of the matched objects in the reference."""
    rows = table.obs_names.get_indexer(list(names))
    if (rows < 0).any():
        lost = [name for name, row in zip(names, rows, strict=True) if row < 0]
        fix = "Match again: nm.pp.match_cells(sdata, ...)."
        msg = f"The table {reference!r} lacks {listed(lost)}, to which cells were matched. {fix}"
        raise ValueError(msg)
    return rows


def _new_axes(frame: Frame) -> Axes:
    left, top, right, bottom = frame
    height = min(max(WIDTH * (bottom - top) / (right - left), 2.0), 12.0)
    return plt.subplots(figsize=(WIDTH + 2.2, height), layout="compressed")[1]


def _draw_background(ax: Axes, pixels: xr.DataArray, frame: Frame) -> None:
    """Draw the square root of the mean of the channels, each relative to its brightest pixels."""
    counts, extent = read_frame(pixels, frame, MOST_PIXELS)
    names = pixels["c"].to_numpy().tolist()
    scaled = scale(counts, choose_limits(None, names, [counts]))
    ax.imshow(np.sqrt(scaled.mean(axis=0)), cmap="gray", vmin=0, vmax=1, extent=extent)


def _draw_outlines(ax: Axes, objects: Objects, matched_rows: np.ndarray, frame: Frame) -> tuple[int, int]:
    """Draw the outlines of all objects, and count those without a centre and those that the table lacks."""
    labels, corner, step = _read_labels(objects, frame)
    is_matched = np.isin(objects.rows, matched_rows)
    shown = np.unique(labels[labels > 0])
    lone = np.intersect1d(shown, objects.instances[~is_matched])
    left_out = np.setdiff1d(shown, objects.instances)
    # of an edge between two objects, the last of these decides
    kind = np.where(labels > 0, np.where(np.isin(labels, lone), 3, np.where(np.isin(labels, left_out), 1, 2)), 0)
    linewidth = float(np.clip(0.6 * _points_per_pixel(frame), 0.15, 1))
    for number, color in enumerate([LEFT_OUT, MATCHED, LONE_OBJECT], start=1):
        edges = apply(objects.matrix, _edges(labels, kind, number) * step + corner)
        ax.add_collection(LineCollection(list(edges), colors=color, linewidths=linewidth, capstyle="projecting"))
    return len(lone), len(left_out)


def _read_labels(objects: Objects, frame: Frame) -> tuple[np.ndarray, np.ndarray, int]:
    """Read the labels in a frame of the image, downsampled if large, with their upper left corner (x, y) and step."""
    left, top, right, bottom = frame
    corners = np.array([[left, top], [right, top], [left, bottom], [right, bottom]], float)
    places = apply(np.linalg.inv(objects.matrix), corners)
    sizes = np.array([objects.labels.sizes["x"], objects.labels.sizes["y"]])
    first = np.floor(places.min(axis=0)).astype(int).clip(0, sizes)
    last = np.ceil(places.max(axis=0)).astype(int).clip(0, sizes)
    step = max(-(-int((last - first).max()) // MOST_PIXELS), 1)
    window = objects.labels.isel(x=slice(first[0], last[0], step), y=slice(first[1], last[1], step))
    return window.to_numpy().astype(np.int64), first, step


def _edges(labels: np.ndarray, kind: np.ndarray, number: int) -> np.ndarray:
    """Edges of pixels between two labels of which the higher kind is `number`: both ends (x, y), (edges, 2, 2)."""
    all_but_last, all_but_first, every = slice(None, -1), slice(1, None), slice(None)
    neighbours = [
        ((all_but_last, every), (all_but_first, every), [(0, 1), (1, 1)]),  # the edge below a pixel
        ((every, all_but_last), (every, all_but_first), [(1, 0), (1, 1)]),  # the edge to its right
    ]
    edges = []
    for one, other, ends in neighbours:
        of_kind = np.maximum(kind[one], kind[other]) == number
        row, column = np.nonzero((labels[one] != labels[other]) & of_kind)
        edges.append(np.stack([column, row], axis=1)[:, None] + np.array(ends))
    return np.concatenate(edges)


def _draw_centres(ax: Axes, region: Region, is_matched: np.ndarray, frame: Frame) -> tuple[int, int]:
    """Draw the centres, and count those with and without an object."""
    left, top, right, bottom = frame
    x, y = region.centres.T
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    matched = is_matched[region.rows]
    distance = np.sqrt((right - left) * (bottom - top) / max(inside.sum(), 1))
    size = float(np.clip(0.25 * distance * _points_per_pixel(frame), 1, 6) ** 2)
    for chosen, color, marker, larger in [(matched, MATCHED, "o", 1), (~matched, LONE_CENTRE, "X", 3)]:
        own = inside & chosen
        ax.scatter(x[own], y[own], s=size * larger, color=color, marker=marker, linewidths=0, zorder=3)
    return int((inside & matched).sum()), int((inside & ~matched).sum())


def _points_per_pixel(frame: Frame) -> float:
    return 72 * WIDTH / (frame[2] - frame[0])


def _draw_legend(ax: Axes, entries: Sequence[tuple[str, dict[str, Any]]]) -> None:
    keys = [Line2D([], [], label=label, markersize=5, **style) for label, style in entries]
    ax.legend(handles=keys, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small", frameon=False)
