"""The table: find it, write results into it, keep a record of what was done."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata import SpatialData

_WRITTEN = "written"
_EMBEDDING_NAME = re.compile("[0-9a-f]{16}-[0-9a-f]{8}")  # the digest of the model, and that of the embedding
# by step, the name that its result has by default
_DEFAULT_NAMES = {_keys.CLUSTER_STEP: _keys.CLUSTERS, _keys.ATTRIBUTION: _keys.ATTRIBUTION}
_DEFAULT_PLACES = {
    f"obsm/{_keys.EMBEDDING}",
    f"obsm/{_keys.INTERPRETABILITY_FEATURES}",
    f"layers/{_keys.INTERPRETABILITY}",
    f"varm/{_keys.CROSSTALK}",
    f"obs/{_keys.EMBEDDED}",
    f"obs/{_keys.CLUSTERS}",
    f"obsp/{_keys.CLUSTERS}_{_keys.CONNECTIVITIES}",
    f"obsp/{_keys.CLUSTERS}_{_keys.DISTANCES}",
    f"uns/{_keys.CLUSTERS}_{_keys.NEIGHBORS}",
    f"uns/{_keys.ATTRIBUTION}",
}


def get_table(data: AnnData | SpatialData, table_key: str = _keys.TABLE) -> AnnData:
    """Take the table itself, or out of a SpatialData object.

    Raises
    ------
    KeyError
        If the SpatialData object has no such table.
    TypeError
        If `data` is something else.
    """
    if isinstance(data, AnnData):
        return data
    tables = getattr(data, "tables", None)
    if tables is None:
        msg = f"Expected AnnData or SpatialData, got {type(data).__name__}. Pass sdata or sdata['{table_key}']."
        raise TypeError(msg)
    if table_key not in tables:
        msg = (
            f"No table {table_key!r} in sdata.tables, which holds {sorted(tables) or 'nothing'}. Make the cells first: "
            "nm.pp.detect_cells(sdata, nuclear=[...]) or nm.pp.add_cells(sdata, ...)."
        )
        raise KeyError(msg)
    return tables[table_key]


def require(adata: AnnData, slot: str, key: str, mend: str) -> Any:
    """Look up `adata.<slot>[key]`, or say what is there and which call writes it."""
    holder = getattr(adata, slot)
    if key not in holder:
        msg = f"No {key!r} in .{slot} of the table, which holds {sorted(holder) or 'nothing'}. Write it with {mend}."
        raise KeyError(msg)
    return holder[key]


def refuse_foreign_keys(adata: AnnData, keys: list[str], argument: str | None = "key_added") -> None:
    """Refuse to replace what nextmarker did not write; a step that is run again replaces its own result.

    `.uns`, and the record with it, is lost when tables are joined. So the default names are taken for ours as well
    wherever the cells show that nextmarker embedded them.

    Parameters
    ----------
    keys
        Places about to be written, as `"slot/key"`.
    argument
        The argument by which the user chooses another name, where there is one.
    """
    own = set(adata.uns.get(_keys.RECORD, {}).get(_WRITTEN, []))
    if embedded_as(adata).notna().any():
        own |= _DEFAULT_PLACES
    for place in keys:
        slot, key = place.split("/", 1)
        if key in getattr(adata, slot) and place not in own:
            choice = f"Choose another name with {argument}=..., or remove" if argument else "Remove"
            msg = (
                f"The table already has {key!r} in .{slot}, and nextmarker did not write it. "
                f"{choice} it: del adata.{slot}[{key!r}]."
            )
            raise ValueError(msg)


def embedded_as(adata: AnnData) -> pd.Series:
    """Read the name of the embedding of each cell, as `nm.tl.embed` wrote it: categorical, missing where unknown."""
    column = adata.obs.get(_keys.EMBEDDED, pd.Series(index=adata.obs_names, dtype=object)).astype("category")
    others = [name for name in column.cat.categories if not _EMBEDDING_NAME.fullmatch(str(name))]
    return column.cat.remove_categories(others).cat.remove_unused_categories()


def record_name(step: str, key: str) -> str:
    """Name the record of a result, so that each `key_added` has its own."""
    return step if key == _DEFAULT_NAMES[step] else f"{step}_{key}"


def read_record(adata: AnnData, name: str) -> Mapping[str, Any]:
    """Read what a step was run with; empty where that is not known."""
    return adata.uns.get(_keys.RECORD, {}).get(name, {})


def write_results(adata: AnnData, step: str, results: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Write the results of a step and its record, all at once.

    Parameters
    ----------
    step
        Name of the record, under which `.uns["nextmarker"]` keeps it.
    results
        Values by place, `"slot/key"`.
    parameters
        What the step was run with; entries that are None are left out, since files cannot hold them.
    """
    for place, value in results.items():
        slot, key = place.split("/", 1)
        getattr(adata, slot)[key] = value
    record = adata.uns.setdefault(_keys.RECORD, {})
    known = {name: value for name, value in parameters.items() if value is not None}
    record[step] = {"version": version("nextmarker"), **known}
    record[_WRITTEN] = np.array(sorted({*record.get(_WRITTEN, []), *results}), dtype=object)
