"""Random views of a cell, as in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nextmarker import _keys
from nextmarker._errors import check_value, listed
from nextmarker._regions import read_regions, require_images, shared_markers
from nextmarker._table import get_table
from nextmarker.get._cells import find_row, label_patch, read_cells
from nextmarker.nn.model import MIN_PATCH_SIZE
from nextmarker.nn.patches import cut_patches, patch_margin
from nextmarker.nn.training import TrainingConfig, random_views, view_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from spatialdata import SpatialData


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
    TypeError
        If `sdata` is a table without images.
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
    require_images(sdata)
    adata = get_table(sdata, table_key)
    trained = adata.uns.get(_keys.RECORD, {}).get("train", {})
    training = training or _recorded_training(trained)
    patch_size = _check_patch_size(trained.get("patch_size") if patch_size is None else patch_size)
    row = find_row(adata, cell)
    region = next(region for region in read_regions(sdata, table_key) if row in region.rows)
    markers = shared_markers(sdata, [region.image], adata.var_names)
    scale = region.scale(trained.get("pixel_size"))
    margin = patch_margin(patch_size, scale, training.size_scaling)
    others = region.rows[region.rows != row] if training.swap_surroundings else []

    generator = torch.Generator().manual_seed(random_state)
    patches = [cut_patches(read_cells(region, [row], markers, scale, margin), patch_size, torch.eye(2)[None])]
    for size in np.repeat(view_sizes(patch_size, training), training.views).tolist():
        donor = others[torch.randint(len(others), (1,), generator=generator).numpy()] if len(others) else []
        cells = read_cells(region, [row, *donor], markers, scale, margin)
        patches.append(random_views([cells], size, training, generator)[0][:1])
    names = ["cell", *(f"view {number}" for number in range(1, len(patches)))]
    where = {"cell": str(adata.obs_names[row]), "image": region.image}
    return [label_patch(patch[0].numpy(), name, markers, where) for patch, name in zip(patches, names, strict=True)]


def _recorded_training(trained: Mapping[str, Any]) -> TrainingConfig:
    """Read the configuration of a training from its record, as far as views depend on it."""
    if not trained:
        return TrainingConfig()
    names = ("patch_scales", "intensity_scaling", "size_scaling")
    lacking = [name for name in ("views", "marker_dropout", "swap_surroundings", *names) if name not in trained]
    if lacking:
        msg = (
            f"The record of the training, by another version of nextmarker, lacks {listed(lacking)}. Give them: "
            "training=nm.nn.TrainingConfig(...)."
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
        msg = "No model was trained on this table. Give a size in pixels: patch_size=..."
        raise KeyError(msg)
    check_value("patch_size", patch_size, patch_size >= MIN_PATCH_SIZE, f"at least {MIN_PATCH_SIZE} pixels")
    return int(patch_size)
