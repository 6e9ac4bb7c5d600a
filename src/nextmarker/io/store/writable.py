"""Find what a Zarr store cannot hold, before it is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import anndata
import dask.array as da
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
TEXT = ("string", "empty")


def check_writable(sdata: SpatialData) -> None:
    """Refuse what a store cannot hold or would change: all of it at once, with place and remedy.

    Raises
    ------
    TypeError
        If `sdata` is not a SpatialData object.
    ValueError
        If something cannot be written.
    """
    if not isinstance(sdata, SpatialData):
        msg = f"Expected SpatialData, got {type(sdata).__name__}. Write a table alone with adata.write_h5ad(path)."
        raise TypeError(msg)
    problems = list(_problems(sdata))
    if problems:
        msg = "Not written, since a store cannot hold all of it:\n" + "\n".join(f"- {problem}" for problem in problems)
        raise ValueError(msg)


def any_text() -> AbstractContextManager[None]:
    """Let anndata write text in each of the types that pandas has for it; before 0.13 this is off by default."""
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
    """Names that spatialdata refuses: its rules keep stores readable on every file system."""
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
    """Names of what a slot holds. From anndata 0.13 on, the layers list `X` too, under None."""
    return [name for name in getattr(adata, slot) if not (slot == "layers" and name is None)]


def _value_problems(place: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _mapping_problems(place, value)
    elif isinstance(value, pd.DataFrame):
        yield from _frame_problems(place, value)
    elif isinstance(value, (list, np.ndarray)):
        yield from _array_problems(place, value)
    elif sparse.issparse(value):
        yield from _sparse_problems(place, value)
    elif isinstance(value, pd.Series):
        yield f"{place} is a pandas Series; make it a table: {place} = {place}.to_frame(name='value')"
    elif isinstance(value, (tuple, set, pd.Index)):
        yield f"{place} is a {type(value).__name__}; make it a list: {place} = list({place})"
    elif not _is_plain(value) and not _can_be_written(value):
        yield f"{place} is of {type(value).__name__}; write it in words, {place} = str({place}), or remove it"


def _mapping_problems(place: str, value: Mapping[Any, Any]) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(key, str) and key.strip("/.") and "/" not in key:
            yield from _value_problems(f"{place}[{key!r}]", inner)
        else:
            yield f"{place} has the key {key!r}, and keys must be strings without '/'; rename it: {place}.pop({key!r})"


def _frame_problems(place: str, frame: pd.DataFrame) -> Iterator[str]:
    wrong = [name for name in frame.columns if not isinstance(name, str) or not name or "/" in name]
    if wrong or not frame.columns.is_unique:
        what = f"has the columns {wrong}" if wrong else "has columns of one name"
        yield f"{place} {what}, and each needs a name without '/'; rename them: {place}.rename(columns=...)"
        return
    for name in frame.columns:
        yield from _column_problems(f"{place}[{name!r}]", frame[name])
    if not _is_kept(frame.index.to_series()):
        what = "mixes types" if frame.index.dtype == object else f"is of the type {frame.index.dtype}"
        yield f"The index of {place} {what}; make it text: {place}.index = {place}.index.map(str)"


def _column_problems(place: str, column: pd.Series) -> Iterator[str]:
    if _is_kept(column):
        return
    values = _values(column)
    in_words = f'{place} = {place}.astype(str).astype("category")'
    if values.dtype != object:
        remedy = f"{place} = {place}.astype(float)" if pd.api.types.is_numeric_dtype(column) else in_words
        yield f"{place} is of the type {values.dtype}; convert it: {remedy}"
    elif infer_dtype(values, skipna=True) in TEXT:
        yield f'{place} has text and missing values; make it categorical: {place} = {place}.astype("category")'
    else:
        yield f"{place} mixes types ({infer_dtype(values)}); make them one: {in_words}"


def _is_kept(column: pd.Series) -> bool:
    """Whether a column, or an index, is read as it was written."""
    values = _values(column)
    if _is_plain(values) or _is_text(values):
        return True
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = pd.Series(values.astype(column.dtype))
    elif isinstance(column.dtype, pd.api.extensions.ExtensionDtype):  # a value and a missing one stand for all
        column = column[~column.isna().duplicated()]
    return _comes_back(column)


def _values(column: pd.Series) -> pd.Series | pd.Index:
    return column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column


def _array_problems(place: str, values: list[Any] | np.ndarray) -> Iterator[str]:
    """Find what would become text: files know numbers and text, but no objects."""
    if _is_plain(values) or _is_text(values):
        return
    flat = values.ravel() if isinstance(values, np.ndarray) else np.fromiter(values, dtype=object)
    if isinstance(values, np.ma.MaskedArray):
        yield f"{place} is a masked array; fill in what is masked: {place} = {place}.filled()"
    elif flat.dtype != object:
        yield from _typed_array_problems(place, flat)
    elif _comes_back(values):
        return
    elif any(isinstance(value, Mapping) for value in flat):
        yield f"{place} is a list of dicts; make it a table: {place} = pandas.DataFrame({place})"
    elif any(isinstance(value, (list, tuple, np.ndarray)) for value in flat):
        yield f"{place} is a list of lists; make it an array: {place} = numpy.array({place})"
    else:
        kind = infer_dtype(flat, skipna=False)
        yield f"{place} mixes types ({kind}); make them one: {place} = numpy.array({place}, dtype=str)"


def _typed_array_problems(place: str, flat: np.ndarray) -> Iterator[str]:
    if not _can_be_written(flat[:1]):
        kind = {"f": "float", "c": "complex"}.get(flat.dtype.kind, "str")
        yield f"{place} is an array of {flat.dtype}; convert it: {place} = {place}.astype({kind})"


def _sparse_problems(place: str, value: Any) -> Iterator[str]:
    if value.ndim != 2:
        yield f"{place} is a sparse array of {value.ndim} dimensions; convert it: {place} = {place}.toarray()"
    elif value.format not in ("csr", "csc"):
        yield f"{place} is a sparse matrix of the form {value.format}; convert it: {place} = {place}.tocsr()"


def _is_plain(value: Any) -> bool:
    """Whether something can certainly be written, so that it need not be tried."""
    if isinstance(value, str):
        return value.isascii()
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, (np.ndarray, np.generic, da.Array, pd.Series, pd.Index)):
        dtype, is_masked = value.dtype, isinstance(value, np.ma.MaskedArray)
        return isinstance(dtype, np.dtype) and not is_masked and dtype.kind in "biuf" and dtype.itemsize <= 8
    return value is None or isinstance(value, float)


def _is_text(values: Any) -> bool:
    """Whether all objects in a list, an array or a column are text."""
    if not isinstance(values, list) and values.dtype != object:
        return False
    return infer_dtype(values.ravel() if isinstance(values, np.ndarray) else values, skipna=False) in TEXT


def _can_be_written(value: Any) -> bool:
    """Try it in memory: the writer itself knows best."""
    try:
        _write_in_memory(value)
    except Exception:  # noqa: BLE001 the reason does not matter here
        return False
    return True


def _comes_back(value: pd.Series | np.ndarray | list[Any]) -> bool:
    """Whether a column, or an array or a list of objects, is read as it was written."""
    try:
        written = value.reset_index(drop=True).to_frame("column") if isinstance(value, pd.Series) else value
        read = read_elem(_write_in_memory(written)["value"])
        return _as_objects(written).equals(_as_objects(read))
    except Exception:  # noqa: BLE001 the reason does not matter here
        return False


def _as_objects(value: Any) -> pd.DataFrame:
    """Values with their types; None, NaN and NA are one."""
    if isinstance(value, list):
        value = np.fromiter(value, dtype=object)
    frame = value if isinstance(value, pd.DataFrame) else pd.DataFrame(np.ravel(np.asarray(value, dtype=object)))
    return frame.astype(object).where(frame.notna(), None)


def _write_in_memory(value: Any) -> zarr.Group:
    group = zarr.create_group(store=zarr.storage.MemoryStore(), zarr_format=3)
    with any_text():
        write_elem(group, "value", value)
    return group


def _step_problems(sdata: SpatialData, place: str, adata: AnnData) -> Iterator[str]:
    """Tell where a table and the elements it annotates disagree."""
    if TableModel.ATTRS_KEY not in adata.uns:
        return
    try:
        TableModel().validate(adata)
    except (ValueError, KeyError, TypeError) as error:
        remedy = f"{place} = spatialdata.SpatialData.update_annotated_regions_metadata({place})"
        yield f"{place} is out of step with itself ({error}); after cells were removed: {remedy}"
        return
    _, region_key, instance_key = get_table_keys(adata)
    for region, instances in adata.obs.groupby(region_key, observed=True)[instance_key]:
        rows = f"{place} = {place}[{place}.obs[{region_key!r}] != {region!r}].copy()"
        if region not in sdata:
            yield f"{place} has cells of {region!r}, which is no element; add it, or drop these cells: {rows}"
        elif region in sdata.shapes and not instances.isin(sdata.shapes[region].index).all():
            lost = instances[~instances.isin(sdata.shapes[region].index)]
            yield (
                f"{place} is out of step with sdata[{region!r}]: {len(lost)} of its cells are not there, first "
                f"{lost.iloc[0]}; filter both alike, or find the cells again: nm.pp.detect_cells(sdata, ...)"
            )
