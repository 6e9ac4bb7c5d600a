"""The table: find it, write results into it, keep a record of what was done."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from spatialdata import SpatialData

_WRITTEN = "written"


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


def read_attribution(adata: AnnData, key: str, groupby: str | None = None, mend: str = "") -> pd.DataFrame:
    """Look up an attribution, and refuse it if it is of other clusters than the table has now.

    Parameters
    ----------
    key
        Name of the attribution in `.uns`.
    groupby
        The clusters it must be of; by default those it was made of.
    mend
        What else helps, beside writing it again.
    """
    call = f"nm.tl.marker_attribution(adata{f', groupby={groupby!r}' if groupby else ''}){mend}"
    table = require(adata, "uns", key, call)
    groupby = groupby or adata.uns.get(_keys.RECORD, {}).get(key, {}).get("groupby")
    if groupby not in adata.obs:
        return table
    sizes = {str(name): size for name, size in adata.obs[groupby].value_counts().items() if size}
    if sizes != {str(name): size for name, size in zip(table["cluster"], table["n_cells"], strict=True)}:
        msg = (
            f".uns[{key!r}] is the attribution of other clusters than .obs[{groupby!r}], which has the sizes {sizes}. "
            f"Write it again with {call}."
        )
        raise ValueError(msg)
    return table


def refuse_foreign_keys(adata: AnnData, keys: list[str], argument: str | None = "key_added") -> None:
    """Refuse to replace what nextmarker did not write; a step that is run again replaces its own result.

    Parameters
    ----------
    keys
        Places about to be written, as `"slot/key"`.
    argument
        The argument by which the user chooses another name, where there is one.
    """
    own = set(adata.uns.get(_keys.RECORD, {}).get(_WRITTEN, []))
    for place in keys:
        slot, key = place.split("/", 1)
        if key in getattr(adata, slot) and place not in own:
            choice = f"Choose another name with {argument}=..., or remove" if argument else "Remove"
            msg = (
                f"The table already has {key!r} in .{slot}, and nextmarker did not write it. "
                f"{choice} it: del adata.{slot}[{key!r}]."
            )
            raise ValueError(msg)


def write_results(adata: AnnData, step: str, results: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Write the results of a step and its record, all at once.

    Parameters
    ----------
    step
        Name of the step, under which `.uns["nextmarker"]` keeps its record.
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
