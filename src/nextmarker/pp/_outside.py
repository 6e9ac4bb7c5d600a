"""Removes cells that lie outside their image after cropping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from spatialdata import SpatialData

from nextmarker import _keys
from nextmarker._coordinates import outside
from nextmarker._regions import locate_cells

if TYPE_CHECKING:
    from anndata import AnnData


def remove_outside_cells(sdata: SpatialData, *, table_key: str = _keys.TABLE) -> int:
    """Remove cells whose centre is outside their image or not a number.

    `spatialdata.polygon_query` keeps every cell whose circle touches the polygon, even if its centre is outside the
    cropped image. Such cells cannot be embedded.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    table_key
        Name of the table in `sdata.tables`.

    Returns
    -------
    Number of cells removed. They are removed in place from `sdata.tables[table_key]`, and their circles from
    `sdata.shapes`. All results of the other cells are kept.

    Raises
    ------
    KeyError
        If the table, or an element that it refers to, does not exist.
    ValueError
        If no cell would remain.

    Examples
    --------
    >>> import nextmarker as nm, shapely
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> crop = sdata.query.polygon(shapely.box(20, 20, 60, 50), target_coordinate_system="tissue_1")
    >>> removed = nm.pp.remove_outside_cells(crop)
    >>> len(crop["cells"]) == crop["table"].n_obs
    True
    """
    regions = locate_cells(sdata, table_key)
    adata = sdata.tables[table_key]
    kept = np.ones(adata.n_obs, bool)
    for region in regions:
        kept[region.rows] = ~outside(region.pixels, region.centres)
    if not kept.any():
        msg = "No cell is inside its image. Detect them again: nm.pp.detect_cells(sdata, ..., overwrite=True)."
        raise ValueError(msg)
    if not kept.all():
        _keep(sdata, table_key, adata, kept)
    return int((~kept).sum())


def _keep(sdata: SpatialData, table_key: str, adata: AnnData, kept: np.ndarray) -> None:
    removed = adata.obs[~kept].groupby(_keys.REGION, observed=True)[_keys.INSTANCE]
    circles = {name: sdata.shapes[name].drop(index=instances) for name, instances in removed}
    del sdata.tables[table_key]
    for name, frame in circles.items():
        del sdata.shapes[name]
        if len(frame):
            sdata.shapes[name] = frame
    sdata.tables[table_key] = SpatialData.update_annotated_regions_metadata(adata[kept].copy())
