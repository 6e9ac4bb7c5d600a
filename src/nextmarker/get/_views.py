"""Random views of a cell, as in training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from nextmarker import _keys
from nextmarker._errors import check_value, listed
from nextmarker._regions import read_regions, shared_markers
from nextmarker._table import get_table
from nextmarker._tiles import occupied_windows, read_window
from nextmarker.nn.model import MIN_PATCH_SIZE
from nextmarker.nn.patches import CellTile, cut_patches, patch_margin
from nextmarker.nn.training import TrainingConfig, random_views, view_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region


def views(
    sdata: SpatialData,
    cell: str | int = 0,
    *,
    patch_size: int | None = None,
    training: TrainingConfig | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> list[xr.DataArray]:
    """Draw random views of a cell, as in training, to show them with `nm.pl.views`.

    The code is that of training: a view is shifted, rotated, scaled and flipped in one resampling of the image, its
    surroundings are replaced by those of another cell of the image, and the raw counts of each marker are multiplied
    by a random factor or hidden. Only the pixels around these cells are read.

    Parameters
    ----------
    sdata
        Images, and a table of cells.
    cell
        Name of the cell in `.obs_names` of the table, or its row number.
    patch_size
        Width of a patch in pixels, by default that of the trained model.
    training
        Number of views, patch scales and augmentations. By default those the model was trained with, or
        `nm.nn.TrainingConfig()` if none was trained.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed of the views.

    Returns
    -------
    The unchanged cell, then its views, ordered by patch scale: raw counts, float32 (marker, y, x), with the distance
    from the centre in pixels as y and x.

    Raises
    ------
    KeyError
        If the table, its image or the cell is missing, or the patch size is unknown.
    ValueError
        If the patch size is too small, several cells have this name, the image lacks a marker of the table, pixels are
        not finite, or the training was recorded by another version of nextmarker.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> cell, *views = nm.get.views(sdata, 17, patch_size=10, training=nm.nn.TrainingConfig(patch_scales=(1.0, 0.6)))
    >>> cell.shape, [view.shape for view in views]
    ((14, 10, 10), [(14, 10, 10), (14, 10, 10), (14, 6, 6), (14, 6, 6)])
    """
    adata = get_table(sdata, table_key)
    trained = adata.uns.get(_keys.RECORD, {}).get("train", {})
    training = training or _recorded_training(trained)
    patch_size = _check_patch_size(trained.get("patch_size") if patch_size is None else patch_size)
    row = _row(adata, cell)
    region = next(region for region in read_regions(sdata, table_key) if row in region.rows)
    markers = shared_markers(sdata, [region.image], adata.var_names)
    scale = region.scale(trained.get("pixel_size"))
    margin = patch_margin(patch_size, scale, training.size_scaling)
    others = region.rows[region.rows != row] if training.swap_surroundings else []

    generator = torch.Generator().manual_seed(random_state)
    patches = [cut_patches(_read_cells(region, [row], markers, scale, margin), patch_size, torch.eye(2)[None])]
    for size in np.repeat(view_sizes(patch_size, training), training.views).tolist():
        donor = others[torch.randint(len(others), (1,), generator=generator).numpy()] if len(others) else []
        cells = _read_cells(region, [row, *donor], markers, scale, margin)
        patches.append(random_views([cells], size, training, generator)[0][:1])
    names = ["cell", *(f"view {number}" for number in range(1, len(patches)))]
    where = {"cell": str(adata.obs_names[row]), "image": region.image}
    return [_label(patch[0].numpy(), name, markers, where) for patch, name in zip(patches, names, strict=True)]


def _recorded_training(trained: Mapping[str, Any]) -> TrainingConfig:
    """Read the configuration of a training from its record, as far as views depend on it."""
    if not trained:
        return TrainingConfig()
    names = ("patch_scales", "intensity_scaling", "size_scaling")
    lacking = [name for name in ("views", "marker_dropout", "swap_surroundings", *names) if name not in trained]
    if lacking:
        msg = (
            f"The training was recorded by another version of nextmarker, without {listed(lacking)}. Train again, or "
            "give the configuration: training=nm.nn.TrainingConfig(...)."
        )
        raise ValueError(msg)
    ranges: dict[str, Any] = {name: tuple(np.asarray(trained[name]).tolist()) for name in names}
    return TrainingConfig(
        views=int(trained["views"]),
        marker_dropout=float(trained["marker_dropout"]),
        swap_surroundings=bool(trained["swap_surroundings"]),
        **ranges,
    )


def _check_patch_size(patch_size: int | None) -> int:
    if patch_size is None:
        msg = "No model was trained on this table. Give a patch size in pixels: patch_size=..."
        raise KeyError(msg)
    check_value("patch_size", patch_size, patch_size >= MIN_PATCH_SIZE, f"at least {MIN_PATCH_SIZE} pixels")
    return int(patch_size)


def _row(adata: AnnData, cell: str | int) -> int:
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


def _read_cells(region: Region, rows: Sequence[int], markers: Sequence[str], scale: float, margin: int) -> CellTile:
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


def _label(counts: np.ndarray, name: str, markers: Sequence[str], where: Mapping[str, str]) -> xr.DataArray:
    offset = np.arange(counts.shape[-1]) - (counts.shape[-1] - 1) / 2
    coords = {"marker": list(markers), "y": offset, "x": offset}
    return xr.DataArray(counts, coords, ("marker", "y", "x"), name, dict(where))
