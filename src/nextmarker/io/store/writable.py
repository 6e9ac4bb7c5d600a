"""Finds values that a Zarr store cannot hold, before anything is written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import anndata
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import write_elem
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
    names = [name for _, name, _ in sdata.gen_elements()]
    yield from _name_problems("sdata", names, "rename the element: sdata[new] = sdata[old]; del sdata[old]")
    yield from _json_problems("sdata.attrs", sdata.attrs)
    for name, frame in sdata.shapes.items():
        yield from _shapes_problems(f"sdata[{name!r}]", frame)
    for name, adata in sdata.tables.items():
        place = f"sdata[{name!r}]"
        named_wrongly = list(_slot_name_problems(place, adata))
        yield from named_wrongly
        yield from _table_value_problems(place, adata)
        if not named_wrongly:
            yield from _step_problems(sdata, place, adata)


def _slot_name_problems(place: str, adata: AnnData) -> Iterator[str]:
    remedy = f"spatialdata.sanitize_table({place}) renames it"
    for slot in SLOTS:
        yield from _name_problems(f"{place}.{slot}", _names(adata, slot), remedy, column=slot in ("obs", "var"))


def _name_problems(place: str, names: Iterable[object], remedy: str, *, column: bool = False) -> Iterator[str]:
    """Names that spatialdata does not accept, so that stores can be read on every file system."""
    seen: dict[str, str] = {}
    for name in names:
        if not isinstance(name, str) or not _is_valid(name) or (column and name == "_index"):
            yield f"{place} has the name {name!r}: only letters, digits, '_', '-' and '.' are allowed; {remedy}"
        elif name.lower() in seen:
            yield f"{place} has {seen[name.lower()]!r} and {name!r}, which differ in case only; {remedy}"
        else:
            seen[name.lower()] = name


def _is_valid(name: str) -> bool:
    allowed = all(letter.isalnum() or letter in "_-." for letter in name)
    return allowed and name not in ("", ".", "..") and not name.startswith("__")


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
            for key in _names(adata, slot):
                yield from _value_problems(f"{place}.{slot}[{key!r}]", holder[key])
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
    """Whether a value is read as it was written; anndata silently converts objects to text, and rejects other types.

    Plain values and numbers are not tried, and only the first value of other arrays, so nothing large is copied.
    """
    if _is_plain(value):
        return True
    if isinstance(value, list):
        return _is_list_kept(value)
    if isinstance(value, (pd.Series, pd.Index, np.ma.MaskedArray)):
        return False
    if sparse.issparse(value):
        return value.ndim == 2 and value.format in ("csr", "csc")
    dtype = getattr(value, "dtype", None)
    if dtype == np.dtype(object):
        return _is_text(np.ravel(value))
    return _is_number(dtype) or _can_be_written(value[:1] if dtype is not None and np.ndim(value) else value)


def _is_plain(value: Any) -> bool:
    """Whether this is one of the values of which records mostly consist, and which can always be written."""
    if type(value) is str:
        return value.isascii()
    return type(value) in (bool, float) or (type(value) is int and abs(value) < 2**63)


def _is_column_kept(column: pd.Series) -> bool:
    """Whether a column or index is read as it was written; categories of some types become text."""
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if values.dtype == np.dtype(object):
        return _is_text(values)
    if isinstance(values.dtype, (pd.IntervalDtype, pd.PeriodDtype, pd.DatetimeTZDtype)):
        return False
    return _is_number(values.dtype) or _can_be_written(column.iloc[:1].reset_index(drop=True).to_frame("column"))


def _is_list_kept(values: list[Any]) -> bool:
    """Whether a list has only text or only numbers."""
    if _is_text(values):
        return True
    try:
        array = np.array(values)
    except ValueError:  # lists of different lengths
        return False
    return array.ndim == 1 and array.dtype.kind not in "OU" and _can_be_written(array[:1])


def _is_number(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.itemsize <= 8


def _is_text(objects: Any) -> bool:
    return infer_dtype(objects, skipna=False) in ("string", "empty")


def _can_be_written(value: Any) -> bool:
    """Try to write the value in memory."""
    try:
        with warnings.catch_warnings(), any_text():
            warnings.simplefilter("ignore")  # notes of anndata for developers
            write_elem(zarr.create_group(store=zarr.storage.MemoryStore(), zarr_format=3), "value", value)
    except Exception:  # noqa: BLE001 the reason does not matter here
        return False
    return True


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
    if isinstance(value, list) and any(isinstance(part, (list, tuple, np.ndarray)) for part in value):
        return f"numpy.array({place})"
    dtype = {"f": "float", "c": "complex"}.get(getattr(value, "dtype", np.dtype(object)).kind, "str")
    return f"numpy.array({place}, dtype={dtype})"


def _column_remedy(place: str, column: pd.Series) -> str:
    if pd.api.types.is_numeric_dtype(column):
        return f"{place}.astype(float)"
    is_text = column.dtype == object and _is_text(column.dropna())  # with missing values
    return f'{place}.astype("category")' if is_text else f'{place}.astype(str).astype("category")'


def _step_problems(sdata: SpatialData, place: str, adata: AnnData) -> Iterator[str]:
    """Find differences between a table and the elements that it annotates."""
    if TableModel.ATTRS_KEY not in adata.uns:
        return
    try:
        TableModel().validate(adata)
    except (ValueError, KeyError, TypeError) as error:
        remedy = f"{place} = spatialdata.SpatialData.update_annotated_regions_metadata({place})"
        yield f"{place} does not match itself ({error}); after cells were removed: {remedy}"
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
