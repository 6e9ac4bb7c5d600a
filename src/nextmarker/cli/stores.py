"""Stores that commands wrote: read, and joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import spatialdata
from spatialdata import SpatialData
from spatialdata.models import TableModel

from nextmarker import _keys
from nextmarker._errors import listed
from nextmarker._record import owner_of, read_record, write_results
from nextmarker._table import get_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

ELEMENTS = ("images", "labels", "points", "shapes")
STEPS = ("detect_cells", _keys.EMBED_STEP, _keys.SAMPLES_STEP)
"""Steps whose results are kept when stores are joined; clusters and types were found in each store by itself."""
BY_IMAGE = ("images", "offset", "background", "zero_response")
"""Entries of a record with one row for each image."""


def read(path: Path) -> SpatialData:
    """Read a store that has a table of cells.

    Raises
    ------
    KeyError
        If it has none.
    """
    sdata = spatialdata.read_zarr(path)
    get_table(sdata)
    return sdata


def join(stores: Mapping[Path, SpatialData]) -> SpatialData:
    """Join stores of different images into one object, with the same names as if all had been analysed together.

    Raises
    ------
    ValueError
        If images of several stores have the same name, or tables have other markers.
    """
    if len(stores) == 1:
        return next(iter(stores.values()))
    parts = {path: _with_own_names(sdata) for path, sdata in stores.items()}
    names = [name for part in parts.values() for kind in ELEMENTS for name in getattr(part, kind)]
    shared = sorted({name for name in names if names.count(name) > 1})
    if shared:
        msg = f"Several stores have {listed(shared)}: give the image files different names, and embed them again."
        raise ValueError(msg)
    return SpatialData(
        **{kind: _merge([getattr(part, kind) for part in parts.values()]) for kind in ELEMENTS},
        tables={_keys.TABLE: _join_tables({str(path): part.table for path, part in parts.items()})},
        attrs=_merge([part.attrs for part in parts.values()]),
    )


def _with_own_names(sdata: SpatialData) -> SimpleNamespace:
    """List the elements of a store; the circles of an only image are named after it, as they are if there are more."""
    adata = sdata[_keys.TABLE]
    elements = {kind: dict(getattr(sdata, kind)) for kind in ELEMENTS}
    if _keys.CELLS in elements["shapes"]:
        own = f"{_keys.CELLS}_{adata.obs[_keys.IMAGE].iloc[0]}"
        elements["shapes"][own] = elements["shapes"].pop(_keys.CELLS)
        adata.obs[_keys.REGION] = adata.obs[_keys.REGION].cat.rename_categories({_keys.CELLS: own})
    return SimpleNamespace(**elements, table=adata, attrs=sdata.attrs)


def _join_tables(tables: Mapping[str, AnnData]) -> AnnData:
    """Join tables of the same markers, with the results of `STEPS`."""
    first_name, first = next(iter(tables.items()))
    for name, adata in tables.items():
        if list(adata.var_names) != list(first.var_names):
            there = f"{listed(adata.var_names)} in {name!r}, {listed(first.var_names)} in {first_name!r}"
            msg = f"The stores have other markers: {there}. Embed all images with the same model and markers."
            raise ValueError(msg)
    joined = anndata.concat(list(tables.values()), merge="same")
    columns = {step: _columns(tables.values(), step) for step in STEPS}
    others = [name for name in joined.obs if any(owner_of(adata, f"obs/{name}") for adata in tables.values())]
    joined.obs = joined.obs.drop(columns=[name for name in others if name not in set().union(*columns.values())])
    joined.uns = {}
    joined = TableModel.parse(
        joined, region=list(joined.obs[_keys.REGION].unique()), region_key=_keys.REGION, instance_key=_keys.INSTANCE
    )
    for step, own in columns.items():
        records = [record for adata in tables.values() if (record := read_record(adata, step))]
        if records:
            write_results(joined, step, {f"obs/{name}": joined.obs[name] for name in own}, _merge(records))
    return joined


def _columns(tables: Iterable[AnnData], step: str) -> set[str]:
    """Columns of `.obs` that a step wrote in all tables."""
    written = [{name for name in adata.obs if owner_of(adata, f"obs/{name}") == step} for adata in tables]
    return set.intersection(*written)


def _merge(parts: Sequence[Any], key: str = "") -> Any:
    """Merge entries of several stores: what each has for its own images is joined, all else is that of the first."""
    if all(isinstance(part, Mapping) for part in parts):
        keys = dict.fromkeys(key for part in parts for key in part)
        return {key: _merge([part[key] for part in parts if key in part], key) for key in keys}
    return np.concatenate(parts) if key in BY_IMAGE else parts[0]
