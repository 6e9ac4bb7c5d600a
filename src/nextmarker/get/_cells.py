"""Single cells of a table, and the pixels around them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from nextmarker._tiles import occupied_windows, read_window
from nextmarker.nn.patches import CellTile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from nextmarker._regions import Region


def find_row(adata: AnnData, cell: str | int) -> int:
    """Row number of a cell in the table."""
    if isinstance(cell, str) and cell in adata.obs_names:
        rows = np.flatnonzero(adata.obs_names == cell)
        if len(rows) > 1:
            fix = f"Give a row number, such as {rows[0]}, or make names unique: adata.obs_names_make_unique()."
            msg = f"{len(rows)} cells are named {cell!r}. {fix}"
            raise ValueError(msg)
        return int(rows[0])
    if not isinstance(cell, str) and 0 <= cell < adata.n_obs:
        return int(cell)
    first, last = adata.obs_names[[0, -1]]
    numbers = f"a row number, 0 to {adata.n_obs - 1}"
    msg = f"The table has no cell {cell!r}. Give a name, {first!r} to {last!r}, or {numbers}."
    raise KeyError(msg)


def read_cells(region: Region, rows: Sequence[int], markers: Sequence[str], scale: float, margin: int) -> CellTile:
    """Read the pixels around some cells of an image, and stack them vertically."""
    tiles = []
    for row in rows:
        mine = region.rows == row
        alone = replace(region, centres=region.centres[mine], rows=region.rows[mine])
        (window,) = occupied_windows(alone, size=1)
        tiles.append(read_window(alone, markers, window, margin=margin))
    width = max(tile.pixels.shape[1] for tile in tiles)
    pixels = np.concatenate(
        [np.pad(tile.pixels, [(0, 0), (0, width - tile.pixels.shape[1]), (0, 0)]) for tile in tiles]
    )
    top = np.cumsum([0, *(len(tile.pixels) for tile in tiles[:-1])])
    centres = np.concatenate([tile.centres + [0, row] for tile, row in zip(tiles, top, strict=True)])
    return CellTile(torch.from_numpy(pixels), torch.from_numpy(centres), scale)


def label_patch(counts: np.ndarray, name: str, markers: Sequence[str], where: Mapping[str, str]) -> xr.DataArray:
    """Label values of a patch, (marker, y, x), with the distance from the centre in pixels as y and x."""
    offset = np.arange(counts.shape[-1]) - (counts.shape[-1] - 1) / 2
    coords = {"marker": list(markers), "y": offset, "x": offset}
    return xr.DataArray(counts, coords, ("marker", "y", "x"), name, dict(where))
