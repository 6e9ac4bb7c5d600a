"""The views of a cell, as training draws them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from nextmarker import _keys
from nextmarker._errors import check_value
from nextmarker._regions import read_regions, shared_markers
from nextmarker._table import get_table
from nextmarker._tiles import cut_fields, read_field
from nextmarker.nn.device import to_device
from nextmarker.nn.model import MIN_PATCH_SIZE
from nextmarker.nn.training import Settings, random_views, view_sizes
from nextmarker.nn.views import Crops, cut_patches, reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region


def draw_views(
    sdata: SpatialData,
    cell: str | int = 0,
    *,
    patch_size: int | None = None,
    settings: Settings | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> list[xr.DataArray]:
    """Draw views of a cell at random, as training does, to look at them with `nm.pl.views`.

    They are cut by the code that training uses: shifted, rotated, scaled and flipped in one resampling of the image,
    set into the surroundings of another cell of the image, drawn at random, and then scaled in their raw counts, or
    hidden, marker by marker. Only the surroundings of these cells are read.

    Parameters
    ----------
    sdata
        Images, and a table of cells.
    cell
        Name of the cell in `.obs_names` of the table, or its position.
    patch_size
        Side of a patch in pixels; by default that of the training.
    settings
        Number of views, patch scales and augmentations; by default those of the training, and `nm.nn.Settings()` before
        any.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed of the views.

    Returns
    -------
    The cell as it is, and then its views: first all of the first patch scale, and so on. Each holds raw counts, float32
    (marker, y, x), with the distance from the centre in pixels as y and x.

    Raises
    ------
    KeyError
        If the table, its image or the cell is missing, or the patch size is not known.
    ValueError
        If the patch size is too small, several cells have this name, the image lacks a marker of the table, or its
        pixels are not finite.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> cell, *views = nm.tl.draw_views(sdata, 17, patch_size=10, settings=nm.nn.Settings(patch_scales=(1.0, 0.6)))
    >>> cell.shape, [view.shape for view in views]
    ((14, 10, 10), [(14, 10, 10), (14, 10, 10), (14, 6, 6), (14, 6, 6)])
    """
    adata = get_table(sdata, table_key)
    trained = adata.uns.get(_keys.RECORD, {}).get("train", {})
    settings = settings or _recorded_settings(trained)
    patch_size = _check_patch_size(trained.get("patch_size") if patch_size is None else patch_size)
    row = _row(adata, cell)
    region = next(region for region in read_regions(sdata, table_key) if row in region.rows)
    markers = shared_markers(sdata, [region.image], adata.var_names)
    step = region.step(trained.get("pixel_size"))
    halo = reach(patch_size, step, settings.size_scaling)
    others = region.rows[region.rows != row] if settings.swap_surroundings else []

    seed = torch.Generator().manual_seed(random_state)
    patches = [cut_patches(_crop(region, [row], markers, step, halo), patch_size, torch.eye(2)[None])]
    for size in np.repeat(view_sizes(patch_size, settings), settings.views).tolist():
        donor = others[torch.randint(len(others), (1,), generator=seed).numpy()] if len(others) else []
        crops = _crop(region, [row, *donor], markers, step, halo)
        patches.append(random_views([crops], size, settings, seed)[0][:1])
    names = ["cell", *(f"view {number}" for number in range(1, len(patches)))]
    where = {"cell": str(adata.obs_names[row]), "image": region.image}
    return [_label(patch[0].numpy(), name, markers, where) for patch, name in zip(patches, names, strict=True)]


def _recorded_settings(trained: Mapping[str, Any]) -> Settings:
    """What a training recorded of its settings, as far as views depend on them."""
    if not trained:
        return Settings()
    ranges: dict[str, Any] = {
        name: tuple(np.asarray(trained[name]).tolist())
        for name in ("patch_scales", "intensity_scaling", "size_scaling")
    }
    return Settings(
        views=int(trained["views"]),
        hidden_markers=float(trained["hidden_markers"]),
        swap_surroundings=bool(trained.get("swap_surroundings")),
        **ranges,
    )


def _check_patch_size(patch_size: int | None) -> int:
    if patch_size is None:
        msg = "No model was trained on this table. Give the patch size in pixels: patch_size=..."
        raise KeyError(msg)
    check_value("patch_size", patch_size, patch_size >= MIN_PATCH_SIZE, f"at least {MIN_PATCH_SIZE} pixels")
    return int(patch_size)


def _row(adata: AnnData, cell: str | int) -> int:
    """Position of a cell in the table."""
    if isinstance(cell, str) and cell in adata.obs_names:
        rows = np.flatnonzero(adata.obs_names == cell)
        if len(rows) > 1:
            mend = f"Give a position, first {rows[0]}, or make names unique: adata.obs_names_make_unique()."
            msg = f"{len(rows)} cells are named {cell!r}. {mend}"
            raise ValueError(msg)
        return int(rows[0])
    if not isinstance(cell, str) and 0 <= cell < adata.n_obs:
        return int(cell)
    first, last = adata.obs_names[[0, -1]]
    msg = f"No cell {cell!r} in the table. Name one, {first!r} to {last!r}, or its position, 0 to {adata.n_obs - 1}."
    raise KeyError(msg)


def _crop(region: Region, rows: Sequence[int], markers: Sequence[str], step: float, halo: int) -> Crops:
    """The pixels around some cells of an image, one below the other."""
    tiles = []
    for row in rows:
        mine = region.rows == row
        alone = replace(region, centres=region.centres[mine], rows=region.rows[mine])
        (field,) = cut_fields(alone, size=1)
        tiles.append(read_field(alone, markers, field, halo=halo))
    width = max(tile.pixels.shape[1] for tile in tiles)
    pixels = np.concatenate(
        [np.pad(tile.pixels, [(0, 0), (0, width - tile.pixels.shape[1]), (0, 0)]) for tile in tiles]
    )
    top = np.cumsum([0, *(len(tile.pixels) for tile in tiles[:-1])])
    centres = np.concatenate([tile.centres + [0, row] for tile, row in zip(tiles, top, strict=True)])
    return Crops(to_device(pixels, torch.device("cpu")), torch.from_numpy(centres), step)


def _label(counts: np.ndarray, name: str, markers: Sequence[str], where: Mapping[str, str]) -> xr.DataArray:
    offset = np.arange(counts.shape[-1]) - (counts.shape[-1] - 1) / 2
    coords = {"marker": list(markers), "y": offset, "x": offset}
    return xr.DataArray(counts, coords, ("marker", "y", "x"), name, dict(where))
