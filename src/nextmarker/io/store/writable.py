"""Finds values that a Zarr store cannot hold, before anything is written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, write_elem
from pandas.api.types import infer_dtype
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.models import TableModel, get_table_keys

SLOTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")


def check_writable(sdata: SpatialData) -> None:
    """Raise one error for all values that a store cannot hold or would change, with place and remedy.

    Raises
    ------
    TypeError
        If `sdata` is not a SpatialData object.
    ValueError
        If a value or name cannot be written.
    """
    if not isinstance(sdata, SpatialData):
        msg = f"Expected SpatialData, got {type(sdata).__name__}. Write a table alone with adata.write_h5ad(path)."
        raise TypeError(msg)
    problems = list(_problems(sdata))
    if problems:
        msg = "Not written, since a store cannot hold all of it:\n" + "\n".join(f"- {problem}" for problem in problems)
        raise ValueError(msg)


def any_text() -> AbstractContextManager[None]:
    """Let anndata write all text types of pandas; before version 0.13 this is off by default."""
    return anndata.settings.override(allow_write_nullable_strings=True)


def _problems(sdata: SpatialData) -> Iterator[str]:
    yield from _json_problems("sdata.attrs", sdata.attrs)
    for name, frame in sdata.shapes.items():
        yield from _shapes_problems(f"sdata[{name!r}]", frame)
    for name, adata in sdata.tables.items():
        place = f"sdata[{name!r}]"
        yield from _table_value_problems(place, adata)
        yield from _model_problems(place, adata) or _cell_problems(sdata, place, adata)


def _json_problems(place: str, value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _json_problems(f"{place}[{key!r}]", inner)
            else:
                yield f"{place} has the key {key!r}, and keys must be strings: use {str(key)!r}"
        return
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        yield (
            f"{place} is of {type(value).__name__}, and attrs hold only what JSON knows: use str, float, int, lists "
            f"and dicts of them, or remove it: del {place}"
        )


def _shapes_problems(place: str, frame: pd.DataFrame) -> Iterator[str]:
    columns = pd.DataFrame(frame.drop(columns=frame.geometry.name))
    try:
        columns.to_parquet(BytesIO())
    except (ValueError, TypeError, NotImplementedError) as error:
        yield f"{place} has columns of mixed types ({error}); make them one: {place}[column].astype(str)"


def _table_value_problems(place: str, adata: AnnData) -> Iterator[str]:
    yield from _value_problems(f"{place}.X", adata.X)
    for slot in SLOTS:
        holder = getattr(adata, slot)
        if slot in ("obs", "var"):
            yield from _frame_problems(f"{place}.{slot}", holder)
        else:
            yield from _value_problems(f"{place}.{slot}", {key: holder[key] for key in _names(adata, slot)})
    if adata.raw is not None:
        yield from _frame_problems(f"{place}.raw.var", adata.raw.var)


def _names(adata: AnnData, slot: str) -> list[Any]:
    """Keys of a slot. Since anndata 0.13, the layers also list `X`, as None."""
    return [name for name in getattr(adata, slot) if not (slot == "layers" and name is None)]


def _value_problems(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str) and key.strip("/.") and "/" not in key:
                yield from _value_problems(f"{place}[{key!r}]", inner)
            else:
                new = f"{place}.pop({key!r})"
                yield f"{place} has the key {key!r}, and keys must be strings without '/'; rename it: {new}"
    elif isinstance(value, pd.DataFrame):
        yield from _frame_problems(place, value)
    elif not _is_kept(value):
        yield f"{place} is {_kind(value)}; convert it: {place} = {_remedy(place, value)}, or remove it"


def _frame_problems(place: str, frame: pd.DataFrame) -> Iterator[str]:
    wrong = [name for name in frame.columns if not isinstance(name, str) or not name or "/" in name]
    if wrong or not frame.columns.is_unique:
        what = f"has the columns {wrong}" if wrong else "has columns of one name"
        yield f"{place} {what}, and each needs a name without '/'; rename them: {place}.rename(columns=...)"
        return
    for name, column in frame.items():
        if not _is_column_kept(column):
            where = f"{place}[{name!r}]"
            yield f"{where} is {_kind(column)}; convert it: {where} = {_column_remedy(where, column)}"
    if not _is_column_kept(frame.index.to_series()):
        yield f"The index of {place} is {_kind(frame.index)}; make it text: {place}.index = {place}.index.map(str)"


def _is_kept(value: Any) -> bool:
    """Whether a value is read as it was written; anndata silently converts objects to text, and rejects other types."""
    if _is_plain(value):
        return True
    sample = _sample(value)
    try:
        read = _read_again(sample)
    except Exception:  # noqa: BLE001 the reason does not matter here
        return False
    try:
        return _comparable(read).equals(_comparable(sample))
    except Exception:  # noqa: BLE001 awkward arrays and other types that are no table
        return True


def _is_plain(value: Any) -> bool:
    """Whether this is one of the values of which records mostly consist, and which can always be written."""
    if type(value) is str:
        return value.isascii()
    return type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)


def _is_column_kept(column: pd.Series) -> bool:
    """Whether a column or index is read as it was written; categories of some types become text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories.to_series()
    sample = column.drop_duplicates() if column.dtype == np.dtype(object) else column.iloc[:1]
    return _is_kept(sample.reset_index(drop=True).to_frame("column"))


def _sample(value: Any) -> Any:
    """All objects, but only the first row of numbers, so that nothing large is copied."""
    dtype = getattr(value, "dtype", None)
    is_of_numbers = isinstance(dtype, np.dtype) and not dtype.hasobject and bool(getattr(value, "ndim", 0))
    return value[:1] if is_of_numbers and getattr(value, "format", "csr") in ("csr", "csc") else value


def _read_again(value: Any) -> Any:
    """The value after it was written to a store in memory."""
    with warnings.catch_warnings(), any_text():
        warnings.simplefilter("ignore")  # notes of anndata for developers
        group = zarr.create_group(store=zarr.storage.MemoryStore(), zarr_format=3)
        write_elem(group, "value", value)
        return read_elem(group["value"])


def _comparable(value: Any) -> pd.DataFrame:
    """The value as objects, of which 1 and "1" differ, and missing values are alike."""
    if sparse.issparse(value):
        value = value.toarray()
    if not isinstance(value, pd.DataFrame):
        is_record = getattr(getattr(value, "dtype", None), "names", None)
        value = pd.DataFrame(value if is_record else np.ravel(np.asarray(value, dtype=object)))
    return value.astype(object)


def _kind(value: Any) -> str:
    """Description of a value for a message: its type and that of its content."""
    dtype = getattr(value, "dtype", None)
    if isinstance(value, list) or dtype == np.dtype(object):
        dtype = infer_dtype(value if isinstance(value, list) else np.ravel(value), skipna=False)
    return f"a {type(value).__name__}" + (f" of {dtype}" if dtype is not None else "")


def _remedy(place: str, value: Any) -> str:
    """Code that converts a value to one that a store can hold."""
    if sparse.issparse(value):
        return f"{place}.tocsr()" if value.ndim == 2 else f"{place}.toarray()"
    if isinstance(value, np.ma.MaskedArray):
        return f"{place}.filled()"
    if isinstance(value, pd.Series):
        return f"{place}.to_frame(name='value')"
    if isinstance(value, (tuple, set, pd.Index)):
        return f"list({place})"
    if not isinstance(value, (list, np.ndarray)):
        return f"str({place})"
    if any(isinstance(part, Mapping) for part in value):
        return f"pandas.DataFrame({place})"
    if any(isinstance(part, (list, tuple, np.ndarray)) for part in value):
        return f"str({place})"
    dtype = {"f": "float", "c": "complex"}.get(getattr(value, "dtype", np.dtype(object)).kind, "str")
    return f"numpy.array({place}, dtype={dtype})"


def _column_remedy(place: str, column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column):
        return f"{place}.astype(float)"
    is_text = infer_dtype(column, skipna=True) == "string"  # with missing values
    return f'{place}.astype("category")' if is_text else f'{place}.astype(str).astype("category")'


def _model_problems(place: str, adata: AnnData) -> list[str]:
    """What spatialdata does not accept: names that some file systems cannot hold, and records of other elements."""
    try:
        TableModel().validate(adata)
    except AttributeError:  # a key that is not a string, which the values name
        return []
    except (ValueError, KeyError, TypeError) as error:
        names = getattr(error, "errors", [])
        if names:
            return [_name_problem(place, name.location, name.message) for name in names]
        remedy = f"{place} = spatialdata.SpatialData.update_annotated_regions_metadata({place})"
        return [f"{place} does not match itself ({error}); after cells were removed: {remedy}"]
    return []


def _name_problem(place: str, location: tuple[str, ...], message: str) -> str:
    slot, name = location
    return f"{place}.{slot}[{name!r}]: {message.rstrip('.')}; rename it: spatialdata.sanitize_table({place})"


def _cell_problems(sdata: SpatialData, place: str, adata: AnnData) -> Iterator[str]:
    """Cells that the annotated elements lack."""
    if TableModel.ATTRS_KEY not in adata.uns:
        return
    _, region_key, instance_key = get_table_keys(adata)
    for region, instances in adata.obs.groupby(region_key, observed=True)[instance_key]:
        rows = f"{place} = {place}[{place}.obs[{region_key!r}] != {region!r}].copy()"
        if region not in sdata:
            yield f"{place} has cells of {region!r}, which is no element; add it, or drop these cells: {rows}"
        elif region in sdata.shapes and not instances.isin(sdata.shapes[region].index).all():
            lost = instances[~instances.isin(sdata.shapes[region].index)]
            yield (
                f"{place} does not match sdata[{region!r}]: {len(lost)} of its cells are missing, first "
                f"{lost.iloc[0]}; filter both alike, or find the cells again: nm.pp.detect_cells(sdata, ...)"
            )
