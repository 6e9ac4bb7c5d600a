"""Joins a sample sheet to the cells: patient, group and further columns of each image."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_each_once, check_value, listed, no_such
from nextmarker._record import refuse_foreign_keys, write_results
from nextmarker._table import get_table, read_labels, refuse_joined
from nextmarker.pp.sources.tables import as_numbers, image_column, match_images, read_sheet

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def add_samples(
    data: AnnData | SpatialData,
    sheet: str | Path | pd.DataFrame | None = None,
    *,
    on: str = _keys.IMAGE,
    columns: Sequence[str] | None = None,
    acquisitions: Sequence[str] = (),
    patient_key: str = _keys.PATIENT,
    group_key: str = _keys.GROUP,
    time_key: str | None = None,
    table_key: str = _keys.TABLE,
) -> None:
    """Add patient, group and other columns of a sample sheet to the cells of each image.

    Parameters
    ----------
    data
        Table of cells, or the SpatialData object that contains it.
    sheet
        A table with one row for each image: a DataFrame, or a file with comma, semicolon or tab separated values. None
        if only `acquisitions` are added.
    on
        Column of the sheet and of `.obs` by which they are joined: `"image"`, `"sample"`, or `"patient"` if the sheet
        has one row for each patient. Names match with or without folder and file extension.
    columns
        Columns of the sheet to add; by default all others.
    acquisitions
        What the image files tell of their acquisition and is to be added, such as `["start_time"]`. Needs the
        SpatialData object, which lists it in `.attrs["nextmarker_acquisitions"]`.
    patient_key, group_key
        Columns of the sheet with patient and group. A patient belongs to one group.
    time_key
        Column that allows a patient to be in several groups, such as the time point: one group at each time.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    `.obs[column]`
        A column is numeric if it has only numbers, otherwise categorical, in alphabetical order unless the DataFrame
        has an order. Patient, group and time are always categorical. Cells of images that the sheet lacks have no
        value. Characters that a file cannot have in a name become `_`: `"Age (years)"` is written as `Age_years`.
    `.uns["nextmarker"]["add_samples"]`
        A record: the arguments, `added` columns, `unused` rows of the sheet, and images `without_row`.

    Columns that were added before are replaced.

    Warns
    -----
    UserWarning
        If rows of the sheet have no cells, or cells have no row, with their names.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If the table or a column is missing, or the files tell nothing of that name.
    ValueError
        If no row matches, two rows or several images have the same name, a patient is in several groups, or a column
        exists that nextmarker did not write. The table is not changed.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> adata = AnnData(obs=pd.DataFrame({"image": ["a", "a", "b"]}, index=["1", "2", "3"]))
    >>> sheet = pd.DataFrame({"image": ["a.tiff", "b.tiff"], "patient": [1, 2], "group": ["case", "control"]})
    >>> nm.pp.add_samples(adata, sheet)
    >>> adata.obs["group"].tolist()
    ['case', 'case', 'control']
    """
    adata = get_table(data, table_key)
    check_value("sheet", sheet, sheet is not None or len(acquisitions) > 0, "a table, or acquisitions=[...] be given")
    labels = _read_keys(adata, on)
    parts: list[pd.DataFrame] = []
    record: dict[str, Any] = {}
    if sheet is not None:
        frame = _choose_columns(_tidy(_read(sheet), on), columns)
        rows, record = _match(frame.index, labels, on)
        keys = [_name(key) for key in (patient_key, group_key, time_key) if key is not None]
        tidied = _as_numbers_or_categories(frame, keys)
        _check_groups(tidied.reset_index(), *keys)
        parts.append(tidied.reindex(labels.map(rows)).set_axis(adata.obs_names))
    if len(acquisitions) > 0:
        told = _as_numbers_or_categories(_read_acquisitions(data, acquisitions), [])
        parts.append(told.reindex(_read_keys(adata, _keys.IMAGE)).set_axis(adata.obs_names))
    added = pd.concat(parts, axis=1)
    _check_names(added.columns, adata.obs.columns)
    refuse_foreign_keys(adata, [f"obs/{name}" for name in added], _keys.SAMPLES_STEP, "columns")
    record |= {"on": on, "added": added.columns.to_numpy(object), "patient_key": patient_key, "group_key": group_key}
    record |= {"time_key": time_key, "sheet": str(sheet) if isinstance(sheet, str | Path) else None}
    write_results(adata, _keys.SAMPLES_STEP, {f"obs/{name}": column for name, column in added.items()}, record)
    _warn_of_unmatched(record, on)


def _read_keys(adata: AnnData, on: str) -> pd.Series:
    """Read the name by which each cell is looked up in the sheet; missing where it has none."""
    read_labels(adata, {"on": on})  # checks the column
    if on == _keys.IMAGE:
        refuse_joined(adata, on, "on")
    return adata.obs[on].astype(object).map(str, na_action="ignore")


def _read(sheet: str | Path | pd.DataFrame) -> pd.DataFrame:
    if isinstance(sheet, pd.DataFrame):
        return sheet if sheet.index.name in (None, *sheet.columns) else sheet.reset_index()
    return read_sheet(Path(sheet))


def _tidy(sheet: pd.DataFrame, on: str) -> pd.DataFrame:
    """Name columns as files allow, index rows by what they are joined on, and leave out what is empty."""
    key = on if on in sheet or on != _keys.IMAGE else image_column(sheet.columns)
    if key not in sheet:
        raise KeyError(no_such("column", on, "the sheet", sheet.columns, "Join by another: on=..."))
    sheet = sheet.dropna(how="all").dropna(axis="columns", how="all").drop_duplicates()
    nameless = sheet[key].isna()
    if nameless.any():
        msg = f"{nameless.sum()} rows of the sheet have nothing in column {key!r}. Fill it, or remove the rows."
        raise ValueError(msg)
    rows = pd.Index(sheet[key].astype(str).str.strip(), name=on)
    if not rows.is_unique:
        again = rows[rows.duplicated()].unique()
        msg = f"The sheet has several rows for {on} {listed(again)}. Keep one, or join by another column: on=..."
        raise ValueError(msg)
    return sheet.set_axis(rows).drop(columns=key).rename(columns=lambda name: _name(str(name)))


def _name(column: str) -> str:
    return re.sub(r"[^\w.-]+", "_", column).strip("_") or "column"


def _choose_columns(frame: pd.DataFrame, columns: Sequence[str] | None) -> pd.DataFrame:
    if columns is None:
        return frame
    chosen = [_name(column) for column in ([columns] if isinstance(columns, str) else columns)]
    check_each_once("columns", chosen)
    lacking = [name for name in chosen if name not in frame]
    if lacking:
        raise KeyError(no_such("column", lacking, "the sheet", frame.columns, "Choose others: columns=[...]."))
    return frame[chosen]


def _match(rows: pd.Index, labels: pd.Series, on: str) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Find the row of each name that cells have, and list the names that match nothing on either side."""
    names = list(labels.dropna().unique())
    matched = match_images(rows, set(names))
    others = [name for name in names if name not in matched.values()]  # which may have the extension themselves
    matched |= {row: name for name, row in match_images(others, set(rows) - set(matched)).items()}
    if not matched:
        raise ValueError(no_such(on, rows, f".obs[{on!r}]", names, "Correct the sheet, or join by another: on=..."))
    if len(set(matched.values())) < len(matched):
        msg = f"The sheet has several names for the same {on}: {matched}. Keep one of them."
        raise ValueError(msg)
    found = {name: row for row, name in matched.items()}
    unused = np.array([row for row in rows if row not in matched], dtype=object)
    return found, {"unused": unused, "without_row": np.array([n for n in names if n not in found], dtype=object)}


def _check_groups(frame: pd.DataFrame, patient: str, group: str, time: str | None = None) -> None:
    """Refuse patients in several groups, at least at the same time."""
    if time is not None and time not in frame:
        raise KeyError(no_such("column", time, "the sheet", frame.columns, "Name another: time_key=..."))
    if not {patient, group} <= {*frame.columns}:
        return
    by = [patient] if time is None else [patient, time]
    contradictory = frame.groupby(by, observed=True)[group].nunique().loc[lambda groups: groups > 1]
    if len(contradictory):
        several = contradictory.index.get_level_values(0).unique()
        fix = "name the column that tells them apart: time_key=..." if time is None else "give each time one group."
        msg = f"Several groups for patients {listed(several)}. Correct the sheet, or {fix}"
        raise ValueError(msg)


def _as_numbers_or_categories(frame: pd.DataFrame, labels: Collection[str]) -> pd.DataFrame:
    """Make each column numeric, if it has only numbers and is none of the labels, or categorical."""
    return frame.apply(lambda column: _as_category(column) if column.name in labels else _as_number(column))


def _as_number(column: pd.Series) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(column):
        return _as_category(column)
    numbers = as_numbers(column)
    return numbers if numbers.notna().equals(column.notna()) else _as_category(column)


def _as_category(column: pd.Series) -> pd.Series:
    names = column.astype(object).map(lambda value: str(value).strip(), na_action="ignore")
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return names.astype("category")
    order = column.cat.remove_unused_categories().cat.categories.map(lambda value: str(value).strip()).unique()
    return names.astype(pd.CategoricalDtype(order, column.cat.ordered))


def _read_acquisitions(data: AnnData | SpatialData, wanted: Sequence[str]) -> pd.DataFrame:
    """Read what the files tell of the acquisition of each image."""
    told = pd.DataFrame.from_dict(getattr(data, "attrs", {}).get(_keys.ACQUISITIONS, {}), orient="index")
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    lacking = [name for name in names if name not in told]
    if lacking:
        fix = "Choose others: acquisitions=[...]."
        raise KeyError(no_such("entry", lacking, "sdata.attrs['nextmarker_acquisitions']", told.columns, fix))
    return told[names].rename(columns=_name)


def _check_names(added: pd.Index, present: pd.Index) -> None:
    """Refuse names that repeat or differ only in case, which files cannot hold beside each other."""
    names = pd.Series([*added, *present.difference(added)], dtype=object)
    again = names[names.str.casefold().duplicated(keep=False)].unique()
    if len(again):
        msg = f"Columns {listed(again)} would have the same name, or differ only in case. Rename them in the sheet."
        raise ValueError(msg)


def _warn_of_unmatched(record: Mapping[str, Any], on: str) -> None:
    unused, without = record.get("unused", ()), record.get("without_row", ())
    parts = [f"rows of the sheet without cells: {listed(unused)}"] if len(unused) else []
    parts += [f"cells without a row, by {on}: {listed(without)}"] if len(without) else []
    if parts:
        text = "; ".join(parts)
        warnings.warn(f"{text[0].upper()}{text[1:]}.", UserWarning, stacklevel=3)
