"""The units that are compared, images or patients, with their group and covariates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nextmarker._errors import listed, no_such
from nextmarker._table import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

PATIENT, GROUP = "__patient", "__group"
"""Columns of the units, beside which covariates have their own names."""
ADD = "nm.pp.add_samples(adata, sheet), or name another column"


def read_images(
    adata: AnnData, image: str, patient: str, group: str, covariates: Sequence[str], reference: str | None
) -> pd.DataFrame:
    """Read the patient, group and covariates of each image.

    Parameters
    ----------
    image, patient, group, covariates
        Columns of `.obs`.
    reference
        The group that the others are compared with; by default the first.

    Returns
    -------
    A row for each image, by name: `PATIENT`, text; `GROUP`, with the reference as first category; and the covariates.
    All are missing where not known.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If a column has several values in an image, or there are fewer than two groups, or not that reference.
    """
    columns = list(dict.fromkeys([image, patient, group, *covariates]))
    for column in columns:
        require(adata, "obs", column, ADD)
    known = adata.obs[columns].loc[adata.obs[image].notna()].drop_duplicates()
    for column in columns:
        _refuse_several(known, column, image, "Add it again with nm.pp.add_samples(adata, sheet).")
    known = known.set_axis(known[image].astype(str)).rename_axis(None).sort_index()
    names = known[patient].astype(object).map(str, na_action="ignore")
    groups = _as_groups(known[group], group, reference)
    return pd.DataFrame({PATIENT: names, GROUP: groups, **{name: known[name] for name in covariates}})


def pool_images(images: pd.DataFrame) -> pd.DataFrame:
    """Summarize the images of each patient: numbers are averaged, all else must be the same.

    Raises
    ------
    ValueError
        If images of a patient differ in group or another category.
    """
    known = images[images[PATIENT].notna()]
    patients = known.groupby(PATIENT)
    pooled = {}
    for name in [name for name in known if name != PATIENT]:
        if pd.api.types.is_numeric_dtype(known[name]):
            pooled[name] = patients[[name]].mean()[name]
        else:
            fix = "Compare images within patients: mixed=True."
            if name != GROUP:
                fix = f"Give each patient one value of {str(name)!r}, or compare images: mixed=True."
            _refuse_several(known, str(name), PATIENT, fix)
            pooled[name] = patients[[name]].first()[name]
    units = pd.DataFrame(pooled)
    return units.assign(**{PATIENT: units.index}).rename_axis(None)


def _refuse_several(rows: pd.DataFrame, column: str, unit: str, fix: str) -> None:
    """Refuse a column that has several values in a unit."""
    if column == unit:
        return
    several = rows.groupby(unit, observed=True)[column].nunique(dropna=False).loc[lambda values: values > 1].index
    if len(several):
        names = column.removeprefix("__"), unit.removeprefix("__")
        msg = f"Several values of {names[0]!r} in {names[1]} {listed(several)}. {fix}"
        raise ValueError(msg)


def _as_groups(column: pd.Series, name: str, reference: str | None) -> pd.Series:
    """Make groups categories of text, the reference first, without those that have no image."""
    groups = column.astype("category").cat.remove_unused_categories().cat.rename_categories(str)
    names = list(groups.cat.categories)
    if reference is not None and str(reference) not in names:
        raise ValueError(no_such("group", str(reference), f".obs[{name!r}]", names, "Choose another: reference=..."))
    if len(names) < 2:
        msg = f"There is only one group in .obs[{name!r}]: {listed(names)}. Name another column: group_key=..."
        raise ValueError(msg)
    first = names[0] if reference is None else str(reference)
    return groups.cat.reorder_categories([first, *(other for other in names if other != first)])
