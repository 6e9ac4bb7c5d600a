"""What sets one cell apart from all others: which markers, and where in its patch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from nextmarker import _keys
from nextmarker._contributions import contributions, read_embedding
from nextmarker._record import embedded_as, read_record
from nextmarker._regions import read_regions, require_images
from nextmarker._table import get_table
from nextmarker.get._cells import find_row, label_patch, read_cells
from nextmarker.nn.model import NeXtMarker, load_model
from nextmarker.nn.patches import cut_patches, patch_margin

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def cell_attribution(
    sdata: SpatialData, cell: str | int, model: NeXtMarker | str | Path, *, table_key: str = _keys.TABLE
) -> xr.Dataset:
    """Compute which markers set a cell apart from all others, and where in its patch, for `nm.pl.cell_attribution`.

    The difference between the embedding of the cell and the mean embedding of all cells is split exactly among the
    markers, as in `nm.tl.marker_attribution`. The contribution of each feature of a marker is then divided among the
    pixels of the patch as its response is: by how much each position adds to the average over the patch. A marker that
    contributes by its absence has no response; its contribution is divided evenly among all pixels.

    Parameters
    ----------
    sdata
        Images and a table after `nm.tl.embed`.
    cell
        Name of the cell in the table, or its row number.
    model
        The model that embedded the cell, or the path of the saved model.
    table_key
        Name of the table.

    Returns
    -------
    Two float32 variables, (marker, y, x), with the distance from the centre in pixels as y and x:

    - `counts`: raw counts of the patch
    - `contribution`: sums to the contribution of the marker over its pixels, and to 1 over all markers. Large patches
      are computed at half the resolution

    Raises
    ------
    KeyError
        If the table, its image, the cell or a part of the embedding is missing.
    TypeError
        If `sdata` is a table without images.
    ValueError
        If the model did not embed the cell, several cells have this name, or the image lacks a marker of the model.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> model = nm.tl.train(sdata, patch_size=12, training=nm.nn.TrainingConfig(steps=2), progress=False)
    >>> nm.tl.embed(sdata, model, progress=False)
    >>> attribution = nm.get.cell_attribution(sdata, 17, model)
    >>> round(float(attribution["contribution"].sum()), 3)
    1.0
    """
    require_images(sdata)
    adata = get_table(sdata, table_key)
    model = model if isinstance(model, NeXtMarker) else load_model(model)
    row = find_row(adata, cell)
    _refuse_other_model(adata, row, model)
    _, features, crosstalk = read_embedding(adata)
    difference = features[row] - features.mean(axis=0, dtype=np.float64)
    by_feature = contributions(difference[None], crosstalk)[0]  # (markers of the table, features)

    region = next(region for region in read_regions(sdata, table_key) if row in region.rows)
    markers = list(model.config.markers)
    scale = region.scale(model.config.pixel_size)
    tile = read_cells(region, [row], markers, scale, patch_margin(model.config.patch_size, scale))
    counts = cut_patches(tile, model.config.patch_size, torch.eye(2)[None])  # (1, markers, height, width)
    above = cut_patches(replace(tile, offset=_offset(adata, region.image)), model.config.patch_size, torch.eye(2)[None])
    with torch.inference_mode():
        parts = model.locate(above)[0].double().numpy()  # (markers, features, height, width)
    own = by_feature[adata.var_names.get_indexer(markers)][:, :, None, None]
    contribution = _enlarge((own * _shares(parts)).sum(axis=1), model.config.patch_size)
    where = {"cell": str(adata.obs_names[row]), "image": region.image}
    return xr.Dataset(
        {
            "counts": label_patch(counts[0].numpy(), "counts", markers, where),
            "contribution": label_patch(contribution.astype(np.float32), "contribution", markers, where),
        },
        attrs=where,
    )


def _refuse_other_model(adata: AnnData, row: int, model: NeXtMarker) -> None:
    name = embedded_as(adata).iloc[row]
    if not str(name).startswith(f"{model.digest()}-"):
        cell = adata.obs_names[row]
        msg = f"Another model embedded the cell {cell!r}. Give that model, or embed again: nm.tl.embed(sdata, model)."
        raise ValueError(msg)


def _offset(adata: AnnData, image: str) -> torch.Tensor | None:
    """Read the offset of the camera in an image, (markers,), that was subtracted when the cells were embedded."""
    record = read_record(adata, _keys.EMBED_STEP)
    images = list(record.get("images", []))
    return torch.from_numpy(np.asarray(record["offset"])[images.index(image)]) if image in images else None


def _shares(parts: np.ndarray) -> np.ndarray:
    """Divide the parts of each feature, (..., height, width), by their sum; equal parts where it is zero."""
    total = parts.sum(axis=(-2, -1), keepdims=True)
    return np.divide(parts, total, out=np.full_like(parts, 1 / parts[0, 0].size), where=total > 0)


def _enlarge(values: np.ndarray, side: int) -> np.ndarray:
    """Enlarge maps (markers, height, width) to `side` pixels, and keep their sums."""
    nearest = np.arange(side) * values.shape[-1] // side
    large = values[:, nearest[:, None], nearest]
    times = np.bincount(nearest)
    return large / (times[nearest][:, None] * times[nearest])
