"""The one reader of SpatialData: which images, which cells, where, in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
import xarray as xr
from scipy.spatial import KDTree

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData


@dataclass(frozen=True)
class Region:
    """One image and the cells of the table that lie in it."""

    name: str
    """Element of `sdata.shapes` that holds the circles."""
    image: str
    """Element of `sdata.images`."""
    pixels: xr.DataArray
    """Raw counts at full resolution, lazy, (c, y, x), with channel names in `c`."""
    centres: np.ndarray
    """Centres (x, y) in intrinsic coordinates of the image (pixels), float64 (cells, 2)."""
    rows: np.ndarray
    """Positions of the cells in the table, int (cells,)."""
    pixel_size: float | None
    """Micrometres per pixel, where known."""

    def step(self, pixel_size: float | None) -> float:
        """Pixels of this image per pixel of `pixel_size` micrometres; 1 where that is None."""
        if pixel_size is None:
            return 1.0
        if self.pixel_size is None:
            msg = (
                f"The model sees pixels of {pixel_size} um, and the pixel size of image {self.image!r} is not known. "
                "Give it when reading: nm.io.read(paths, pixel_size=...)."
            )
            raise ValueError(msg)
        return pixel_size / self.pixel_size

    def neighbour_distances(self) -> np.ndarray:
        """Distance of every centre to the next in pixels, float64 (cells,); empty if there is only one."""
        if len(self.centres) < 2:
            return np.empty(0)
        return KDTree(self.centres).query(self.centres, k=2)[0][:, 1]


def read_regions(sdata: SpatialData, table_key: str = _keys.TABLE) -> list[Region]:
    """Read which cells of the table lie in which image.

    Raises
    ------
    KeyError
        If the table, its columns, or an element it names is missing.
    ValueError
        If the table has no cells, or cells that their element does not hold.
    """
    obs = _table_obs(sdata, table_key)
    regions = []
    pairs = obs.groupby([_keys.REGION, _keys.IMAGE], observed=True, sort=False).indices
    for (name, image), rows in cast("dict[tuple[str, str], np.ndarray]", pairs).items():
        if name not in sdata.shapes:
            msg = f"The table {table_key!r} annotates {name!r}, but sdata.shapes holds {_listed(sdata.shapes)}."
            raise KeyError(msg)
        circles = sdata.shapes[name]
        wanted = obs[_keys.INSTANCE].to_numpy()[rows]
        found = circles.index.get_indexer(wanted)
        if (found < 0).any():
            lost = wanted[found < 0]
            msg = (
                f"The table {table_key!r} and sdata.shapes[{name!r}] are out of step: {len(lost)} cells of the table "
                f"are not among the circles, first {lost[0]!r}. Filter both, or call nm.pp.detect_cells again."
            )
            raise ValueError(msg)
        points = circles.geometry.iloc[found]
        centres = np.column_stack([points.x, points.y]).astype(np.float64)
        pixels = read_image(sdata, image)
        regions.append(Region(name, image, pixels, centres, np.asarray(rows), pixel_size(sdata, image)))
    return regions


def _table_obs(sdata: SpatialData, table_key: str) -> pd.DataFrame:
    if table_key not in sdata.tables:
        msg = (
            f"No table {table_key!r} in sdata.tables, which holds {_listed(sdata.tables)}. Make the cells first: "
            "nm.pp.detect_cells(sdata, nuclear=[...]) or nm.pp.add_cells(sdata, ...)."
        )
        raise KeyError(msg)
    obs = sdata.tables[table_key].obs
    missing = [column for column in (_keys.REGION, _keys.INSTANCE, _keys.IMAGE) if column not in obs]
    if missing:
        msg = (
            f"The table {table_key!r} lacks the columns {missing} that link its cells to an image. Make it with "
            "nm.pp.add_cells(sdata, ...), which takes centres from labels, shapes, points or a table."
        )
        raise KeyError(msg)
    if len(obs) == 0:
        msg = f"The table {table_key!r} has no cells. Detect them again: nm.pp.detect_cells(sdata, nuclear=[...])."
        raise ValueError(msg)
    return obs


def read_image(sdata: SpatialData, image: str) -> xr.DataArray:
    """Read an image at full resolution, lazily.

    Returns
    -------
    Raw counts, (c, y, x), with channel names as strings in `c`.
    """
    if image not in sdata.images:
        msg = f"No image {image!r} in sdata.images, which holds {_listed(sdata.images)}."
        raise KeyError(msg)
    element = sdata.images[image]
    if isinstance(element, xr.DataTree):
        element = next(iter(element["scale0"].data_vars.values()))
    names = [str(name) for name in element["c"].to_numpy()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = (
            f"Image {image!r} has several channels of one name: {repeated}. Rename them: sdata.set_channel_names(...)."
        )
        raise ValueError(msg)
    return element.transpose("c", "y", "x").assign_coords(c=names)


def read_pixels(image: str, pixels: xr.DataArray, rows: slice, columns: slice) -> np.ndarray:
    """Load a part of an image, (c, y, x), in the byte order of the machine.

    Raises
    ------
    ValueError
        If a pixel is not finite.
    """
    block = pixels.isel(y=rows, x=columns).to_numpy()
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        broken = pixels["c"].to_numpy()[~np.isfinite(block).all(axis=(1, 2))].tolist()
        msg = (
            f"Image {image!r} holds pixels that are not finite (NaN or infinite) in the channels {broken}. "
            f"Replace them, for example by zero: sdata.images[{image!r}] = sdata.images[{image!r}].fillna(0)."
        )
        raise ValueError(msg)
    return block.astype(block.dtype.newbyteorder("="), copy=False)  # torch knows no other


def shared_markers(sdata: SpatialData, images: Sequence[str], markers: Sequence[str] | None = None) -> list[str]:
    """Choose the markers that every image has.

    Parameters
    ----------
    images
        Names of the images.
    markers
        The channels to keep, in this order; by default all channels of the first image.

    Raises
    ------
    ValueError
        If an image lacks one of the markers, or, without `markers`, has another panel than the first.
    """
    panels = {image: read_image(sdata, image)["c"].to_numpy().tolist() for image in images}
    if markers is not None:
        for image, panel in panels.items():
            missing = [name for name in markers if name not in panel]
            if missing:
                msg = (
                    f"Image {image!r} has no channels {missing}; its channels are {panel}. Choose among these, or "
                    f"rename them: sdata.set_channel_names({image!r}, [...])."
                )
                raise ValueError(msg)
        return list(markers)
    first, *_ = panels.values()
    for image, panel in panels.items():
        missing = [name for name in first if name not in panel]
        extra = [name for name in panel if name not in first]
        if missing or extra:
            common = [name for name in first if all(name in other for other in panels.values())]
            msg = (
                f"Image {image!r} has another panel: it lacks {missing} and has {extra} besides; "
                f"its channels are {panel}. Match the panels, nm.pp.match_panels(sdata), with aliases=... where "
                f"spellings differ, or name the markers to use, for example markers={common}."
            )
            raise ValueError(msg)
    return first


def pixel_size(sdata: SpatialData, image: str) -> float | None:
    """Micrometres per pixel of an image, as recorded by `nm.io.read`; None where unknown."""
    known = sdata.attrs.get(_keys.PIXEL_SIZE, {})
    return float(known[image]) if image in known else None


def _listed(elements: object) -> str:
    return str(sorted(elements)) if elements else "nothing"  # type: ignore[call-overload]
