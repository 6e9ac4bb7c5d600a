"""Positions of cells in AnnData tables, from nextmarker or other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from spatialdata.transformations import get_transformation

from nextmarker import _keys
from nextmarker._coordinates import apply, from_system, spatial_system
from nextmarker._errors import no_such
from nextmarker._regions import locate_cells, read_image

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def is_own_table(adata: AnnData) -> bool:
    """Whether nextmarker wrote a table; its coordinates are then those of SpatialData, not of pixel centres."""
    return {_keys.REGION, _keys.INSTANCE, _keys.IMAGE} <= set(adata.obs)


def own_positions(sdata: SpatialData, adata: AnnData) -> pd.DataFrame:
    """Read `x` and `y` in pixels, and `image`, of the cells of such a table, also if it is not in the object.

    Raises
    ------
    KeyError
        If the table has no coordinates, or the object lacks one of its images or their coordinate systems.
    """
    held = next((key for key, table in sdata.tables.items() if table is adata), None)
    frame = pd.DataFrame(np.nan, index=adata.obs_names, columns=["x", "y"]).assign(image="")
    if held is not None:
        parts = [(region.image, region.rows, region.centres) for region in locate_cells(sdata, held)]
    else:
        parts = [(image, *_positions_in(sdata, adata, image)) for image in adata.obs[_keys.IMAGE].unique()]
    for image, rows, centres in parts:
        frame.iloc[rows, :2] = centres
        frame.iloc[rows, 2] = image
    return frame


def _positions_in(sdata: SpatialData, adata: AnnData, image: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the cells of one image, and their coordinates in its pixels."""
    read_image(sdata, image)
    system = _recorded_system(adata, image) or _only_system(sdata, image)
    systems = get_transformation(sdata.images[image], get_all=True)
    fix = "Pass x and y in pixels: nm.pp.add_cells(sdata, frame)."
    if _keys.SPATIAL not in adata.obsm:
        raise KeyError(no_such("", _keys.SPATIAL, ".obsm of the cells", adata.obsm, fix))
    if system not in systems:
        raise KeyError(no_such("coordinate system", system, f"image {image!r}", systems, fix))
    rows = np.flatnonzero(adata.obs[_keys.IMAGE] == image)
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[rows, :2]
    return rows, apply(from_system(sdata, image, system), xy)


def _recorded_system(adata: AnnData, image: str) -> str | None:
    """Look up the coordinate system of the positions in a table; None if its record was lost."""
    records = adata.uns.get(_keys.RECORD, {})
    recorded = [records.get(step, {}).get("coordinate_system", {}) for step in ("detect_cells", "add_cells")]
    return next((systems[image] for systems in recorded if image in systems), None)


def _only_system(sdata: SpatialData, image: str) -> str:
    """Choose a coordinate system of an image if all are equivalent."""
    systems = list(get_transformation(sdata.images[image], get_all=True))
    matrices = [from_system(sdata, image, system) for system in systems]
    if not np.allclose(matrices, matrices[0]):
        msg = (
            f"The record of the cells is lost: are they in {systems} of image {image!r}? Keep it when joining: "
            "anndata.concat(tables, uns_merge='first')."
        )
        raise ValueError(msg)
    return spatial_system(sdata, image)


def foreign_positions(adata: AnnData) -> pd.DataFrame:
    """Read `x` and `y` of a table of another program without conversion, and `image` if there is one.

    Raises
    ------
    KeyError
        If the table has no coordinates.
    """
    if _keys.SPATIAL not in adata.obsm:
        raise KeyError(no_such("", _keys.SPATIAL, ".obsm of the cells", adata.obsm, "Pass a DataFrame with x and y."))
    frame = pd.DataFrame(np.asarray(adata.obsm[_keys.SPATIAL])[:, :2], index=adata.obs_names, columns=["x", "y"])
    return frame.assign(image=adata.obs[_keys.IMAGE]) if _keys.IMAGE in adata.obs else frame
