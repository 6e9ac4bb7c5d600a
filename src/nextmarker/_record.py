"""The record: which step wrote each result, with which parameters and from which embedding."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

_WRITTEN = "written"
_WRITTEN_BY = "written_by"
_EMBEDDING_NAME = re.compile("[0-9a-f]{16}-[0-9a-f]{8}")  # digests of the model and of the embedding
# default name of the result of a step
_DEFAULT_NAMES = {
    _keys.CLUSTER_STEP: _keys.CLUSTERS,
    _keys.ATTRIBUTION: _keys.ATTRIBUTION,
    _keys.ANNOTATE_STEP: _keys.CELL_TYPE,
    _keys.MATCH_STEP: _keys.MATCHED,
    _keys.NEIGHBORHOOD: _keys.NEIGHBORHOOD,
    _keys.CO_OCCURRENCE: _keys.CO_OCCURRENCE,
    _keys.NICHES_STEP: _keys.NICHE,
    _keys.COMPARE_STEP: _keys.COMPARISON,
}
_DEFAULT_PLACES = {
    f"obsm/{_keys.EMBEDDING}",
    f"obsm/{_keys.INTERPRETABILITY_FEATURES}",
    f"layers/{_keys.INTERPRETABILITY}",
    f"varm/{_keys.CROSSTALK}",
    f"varm/{_keys.ACTIVATION_WEIGHTS}",
    f"obs/{_keys.EMBEDDED}",
    f"obs/{_keys.CLUSTERS}",
    f"obsp/{_keys.CLUSTERS}_{_keys.CONNECTIVITIES}",
    f"obsp/{_keys.CLUSTERS}_{_keys.DISTANCES}",
    f"uns/{_keys.CLUSTERS}_{_keys.NEIGHBORS}",
    f"uns/{_keys.ATTRIBUTION}",
    f"obs/{_keys.MATCHED}",
    f"obs/{_keys.MATCHED}_{_keys.DISTANCE}",
    f"uns/{_keys.COMPARISON}",
    f"uns/{_keys.COMPARISON}_{_keys.VALUES}",
}


def record_name(step: str, key: str) -> str:
    """Name of the record of a result; each `key_added` has its own."""
    return step if key == _DEFAULT_NAMES.get(step) else f"{step}_{key}"


def results_of(adata: AnnData, step: str) -> list[str]:
    """Names of the results of a step, by their records: the inverse of `record_name`."""
    records = adata.uns.get(_keys.RECORD, {})
    default = [_DEFAULT_NAMES[step]] if step in records else []
    return default + sorted(name.removeprefix(f"{step}_") for name in records if name.startswith(f"{step}_"))


def read_record(adata: AnnData, name: str) -> Mapping[str, Any]:
    """Read the parameters of a step; empty if unknown."""
    return adata.uns.get(_keys.RECORD, {}).get(name, {})


def fields_of(config: object) -> dict[str, Any]:
    """Fields of a configuration, with tuples as arrays, which an h5ad file can hold."""
    return {name: np.array(value) if isinstance(value, tuple) else value for name, value in vars(config).items()}


def write_results(
    adata: AnnData, step: str, results: Mapping[str, Any], parameters: Mapping[str, Any], *, owner: str | None = None
) -> None:
    """Write the results of a step and its record.

    Parameters
    ----------
    step
        Key of the record in `.uns["nextmarker"]`.
    results
        Values by place, `"slot/key"`; None removes what an earlier call wrote.
    parameters
        Content of the record; entries that are None are left out, since files cannot hold them.
    owner
        The step that may replace these results, if it is not this one.
    """
    owners = dict(sorted({**_owners(adata), **dict.fromkeys(results, owner or step)}.items()))
    for place, value in results.items():
        slot, key = place.split("/", 1)
        holder = getattr(adata, slot)
        if value is not None:
            holder[key] = value
        elif key in holder:
            del holder[key]
    record = adata.uns.setdefault(_keys.RECORD, {})
    known = {name: value for name, value in parameters.items() if value is not None}
    record[step] = {"version": version("nextmarker"), **known}
    record[_WRITTEN], record[_WRITTEN_BY] = (np.array(list(each), dtype=object) for each in (owners, owners.values()))


def refuse_foreign_keys(adata: AnnData, keys: list[str], step: str | None, argument: str | None = "key_added") -> None:
    """Raise an error before replacing what another step or the user wrote; a step may replace its own results.

    Also raise one for a view, such as `adata[rows]`: its results would never reach the table, and be lost with it.

    `.uns` with the record is lost when tables are joined. So default names also count as written by the step if the
    cells show that nextmarker embedded them.

    Parameters
    ----------
    keys
        Places about to be written, as `"slot/key"`.
    step
        The step that writes them; None for one that may replace the results of all steps.
    argument
        The argument for choosing another name, if there is one.
    """
    if adata.is_view:
        msg = "The table is a view of another, which the results would not reach. Copy it: adata = adata[...].copy()."
        raise ValueError(msg)
    owners = _owners(adata)
    defaults = _DEFAULT_PLACES if embedded_as(adata).notna().any() else set()
    for place in keys:
        slot, key = place.split("/", 1)
        owner = owners.get(place)
        ours = place in defaults if owner is None else step is None or f"{owner}_".startswith(f"{step}_")
        if key in getattr(adata, slot) and not ours:
            choice = f"Choose another name, {argument}=..., or remove" if argument else "Remove"
            where = f"{key!r} in .{slot} of the table"
            unknown = f"nextmarker did not write {where}, or its record was lost when tables were joined."
            wrote = unknown if owner is None else f"The step {owner!r} wrote {where}."
            msg = f"{wrote} {choice} it: del adata.{slot}[{key!r}]."
            raise ValueError(msg)


def owner_of(adata: AnnData, place: str) -> str | None:
    """Find the step that wrote a place, `"slot/key"`; None if none did."""
    return _owners(adata).get(place)


def _owners(adata: AnnData) -> dict[str, str]:
    """Read which step wrote each place, by the name of its record."""
    record = adata.uns.get(_keys.RECORD, {})
    return dict(zip(record.get(_WRITTEN, ()), record.get(_WRITTEN_BY, ()), strict=False))


def embedded_as(adata: AnnData) -> pd.Series:
    """Read the name of the embedding of each cell, written by `nm.tl.embed`: categorical, missing if unknown."""
    column = adata.obs.get(_keys.EMBEDDED, pd.Series(index=adata.obs_names, dtype=object)).astype("category")
    others = [name for name in column.cat.categories if not _EMBEDDING_NAME.fullmatch(str(name))]
    return column.cat.remove_categories(others).cat.remove_unused_categories()


def made_from(adata: AnnData, cells: np.ndarray | None = None) -> dict[str, Any]:
    """Names of the model and embeddings of some or all cells, for the record of a result; empty if unknown."""
    names = embedded_as(adata if cells is None else adata[cells]).cat.categories
    if names.empty:
        return {}
    return {"model": _model(names[0]), "embedded_as": names.to_numpy(dtype=object)}


def refuse_several_models(adata: AnnData, cells: np.ndarray | None = None) -> None:
    """Raise an error if cells were embedded by several models, whose embeddings cannot be compared.

    Parameters
    ----------
    cells
        Which cells, bool (cells,); by default all.
    """
    names = embedded_as(adata) if cells is None else embedded_as(adata)[cells]
    sizes = names.value_counts().groupby(_model, observed=True).sum().loc[lambda cells: cells > 0]
    if len(sizes) > 1:
        msg = f"The cells were embedded by {len(sizes)} models: {sizes.to_dict()}. Use one: nm.tl.embed(sdata, model)."
        raise ValueError(msg)


def _model(name: str) -> str:
    return str(name).partition("-")[0]
