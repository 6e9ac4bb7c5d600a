"""Compares groups of patients: shares of cell types, activation of markers, or neighbourhoods."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import fdrcorrection

from nextmarker import _keys
from nextmarker._errors import check_value, listed, no_such
from nextmarker._provenance import check_clusters, warn_of_other_cells
from nextmarker._record import made_from, read_record, record_name, refuse_foreign_keys, write_results
from nextmarker._table import get_table, refuse_joined
from nextmarker.tl.groups.model import GroupModel, compare_variable, covariate_columns, design
from nextmarker.tl.groups.units import GROUP, PATIENT, pool_images, read_images
from nextmarker.tl.groups.values import SHARE, Values, read_activation, read_shares, read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

COMPOSITION, ACTIVATION = "composition", "activation"
BETWEEN = " | "
"""Between the names of a variable: a type and a marker, or two types."""


def compare_groups(
    data: AnnData | SpatialData,
    group_key: str = _keys.GROUP,
    *,
    value: str | pd.DataFrame = COMPOSITION,
    groupby: str = _keys.CELL_TYPE,
    patient_key: str = _keys.PATIENT,
    image_key: str = _keys.IMAGE,
    reference: str | None = None,
    covariates: str | Sequence[str] = (),
    mixed: bool = False,
    permutations: int = 0,
    column: str = "log2_ratio",
    layer: str = _keys.INTERPRETABILITY,
    min_cells: int = 10,
    key_added: str = _keys.COMPARISON,
    random_state: int = 0,
    table_key: str = _keys.TABLE,
) -> None:
    """Compare groups of patients in the shares of cell types, the activation of markers, or their neighbourhoods.

    The units are patients, not cells or images: ten images of a patient are still one patient. All cells of a patient
    are counted together, and each variable is compared by a linear model of the patients. Shares are compared by their
    odds: an effect of 1 means that the odds of a type are doubled, so a rare type is about twice as frequent.

    Parameters
    ----------
    data
        Table of cells, or the SpatialData object that contains it.
    group_key
        Column of `.obs` with the groups. Each is compared with the reference.
    value
        What is compared: `"composition"`, the share of each type; `"activation"`, the mean of each marker over the
        cells of each type; or a tidy table with a row for each image and variable, as a DataFrame or by its name in
        `.uns`, such as `"neighborhood"`. The variables of a table are named by its columns of text, and images of a
        patient are averaged.
    groupby
        Column of `.obs` with cell types or clusters. Cells without one are left out.
    patient_key, image_key
        Columns of `.obs` with patient and image; both are the same if each patient has one image.
    reference
        The group that the others are compared with; by default the first category.
    covariates
        Columns of `.obs` to adjust for, such as `["age", "sex"]`, or the right side of a formula of statsmodels, such
        as `"age + C(batch)"`. Numbers are averaged over the images of a patient.
    mixed
        Take images as units, with a random intercept for each patient (a mixed model). Use it where images of a patient
        differ in group or covariate; otherwise it finds about the same as patients do.
    permutations
        Number of permutations of patients for a p that needs no normal distribution: a check where patients are few.
        All possible ones are used if they are not more, and there are no covariates. Not with `mixed`.
    column
        Column with the values of a tidy table.
    layer
        Layer for `value="activation"`.
    min_cells
        Fewest cells of a type in a patient, or with `mixed` in an image, for its mean activation to count.
    key_added
        Name of the result.
    random_state
        Seed of the permutations.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    `.uns[key_added]` : DataFrame with one row for each variable and each group but the reference
        - `variable`: the type, and with the marker or the other type of a pair, `"T cell | CD8"`. Then they also have a
          column each
        - `group`, `reference`: what is compared with what
        - `n`, `n_reference`: patients of each in which the variable is known
        - `mean`, `mean_reference`: mean of their shares, activations or values, without regard to covariates
        - `effect`, `low`, `high`: difference of the group from the reference and its 95 % confidence interval
        - `unit` of the effect, such as `"log2 odds ratio"`
        - `p`, and `q` after Benjamini and Hochberg over all rows; `p_permutation` if asked for
        - `method`: the model
        - `note`: why there is no number, or which patients were left out

        Numbers are NaN where nothing can be said: a group has one patient, the type is absent or has too few cells, the
        covariates determine the group, or the model fails. If a type is absent in one group only, it has p but no
        effect, since its odds would depend on the small share that is added to zeros.
    `.uns[f"{key_added}_values"]` : DataFrame
        `variable`, `patient`, `group` and `value`, as drawn by `nm.pl.groups`.
    `.uns["nextmarker"]["compare_groups"]`
        A record of the parameters and of what was left out. For another `key_added`, in `compare_groups_<key_added>`.

    Warns
    -----
    UserWarning
        If images or patients are left out since patient, group or a covariate is missing, nothing could be compared,
        cells or types have changed since neighbours were counted, or `groupby` is a clustering of an earlier embedding.

    Raises
    ------
    KeyError
        If a column, layer or table is missing.
    ValueError
        If there are not two groups, a patient is in several groups without `mixed`, several images have the same name,
        or `mixed` is asked for where no patient has several images. The table is not changed.

    See Also
    --------
    nextmarker.pp.add_samples : adds patient, group and covariates.
    nextmarker.pl.groups : draws the patients.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> t_cells = {"P1": 10, "P2": 14, "P3": 12, "P4": 31, "P5": 24, "P6": 28}
    >>> types = np.concatenate([["T"] * n + ["B"] * (100 - n) for n in t_cells.values()])
    >>> patient = np.repeat(list(t_cells), 100)
    >>> obs = pd.DataFrame({"cell_type": types, "patient": patient, "group": np.repeat(["control", "case"], 300)})
    >>> adata = AnnData(obs=obs.set_axis(np.arange(600).astype(str)))
    >>> nm.tl.compare_groups(adata, image_key="patient", reference="control")
    >>> adata.uns["group_comparison"][["variable", "mean", "mean_reference", "effect", "p", "q"]].round(3)
      variable   mean  mean_reference  effect      p      q
    0        B  0.723            0.88  -1.459  0.002  0.002
    1        T  0.277            0.12   1.459  0.002  0.002
    """
    adata = get_table(data, table_key)
    check_value("permutations", permutations, permutations >= 0, "0 or more")
    check_value("permutations", permutations, not (mixed and permutations), "0 with mixed=True")
    refuse_foreign_keys(adata, [f"uns/{key_added}", f"uns/{key_added}_{_keys.VALUES}"], _keys.COMPARE_STEP)
    counted = read_record(adata, record_name(_keys.NEIGHBORHOOD, value)) if isinstance(value, str) else {}
    check_value("image_key", image_key, counted.get("image_key", image_key) == image_key, _as_counted(counted))
    if image_key == _keys.IMAGE:
        refuse_joined(adata, image_key)
    names = covariate_columns(covariates, adata.obs.columns, group_key)
    images, left_out = _drop_unknown(read_images(adata, image_key, patient_key, group_key, names, reference))
    several = bool(images[PATIENT].duplicated().any())
    check_value("mixed", mixed, several or not mixed, "False, since no patient has several images")
    units = images if mixed else pool_images(images)
    left_out += [f"{listed(units.index[units[name].isna()])} (no {name})" for name in names if units[name].isna().any()]
    units = units.dropna(subset=names)
    if units.empty:
        msg = f"No patient is left: {'; '.join(left_out)}. Add what is missing: nm.pp.add_samples(adata, sheet)."
        raise ValueError(msg)
    given = covariates if isinstance(covariates, str) else " + ".join(covariates)
    model = GroupModel(units, design(units, covariates, names), given, mixed, permutations, random_state)

    unit = pd.Series(images.index, images.index) if mixed else images[PATIENT]
    of_cells = isinstance(value, str) and value in (COMPOSITION, ACTIVATION)
    if not of_cells:
        source = _find_table(adata, value)
        values = read_table(source, image_key, unit, column)
        if counted:
            warn_of_other_cells(adata, source, counted)
    elif value == COMPOSITION:
        values = read_shares(adata, groupby, image_key, unit)
    else:
        values = read_activation(adata, groupby, image_key, unit, layer, min_cells)
    if of_cells:
        check_clusters(adata, groupby)
    table, patients = _compare(model, values)
    nothing = table["note"].mode()[0] if table["p"].isna().all() else ""
    if left_out:
        table["note"] = ["; ".join(filter(None, [note, f"left out: {', '.join(left_out)}"])) for note in table["note"]]
    record = {
        **{"group_key": group_key, "groupby": groupby, "patient_key": patient_key, "image_key": image_key},
        **{"value": value if isinstance(value, str) else "table", "measured": values.measured, "covariates": given},
        **{"mixed": mixed, "permutations": permutations, "random_state": random_state},
        **{"left_out": np.array(left_out, dtype=object), **made_from(adata)},
    }
    results = {f"uns/{key_added}": table, f"uns/{key_added}_{_keys.VALUES}": patients}
    write_results(adata, record_name(_keys.COMPARE_STEP, key_added), results, record)
    if left_out:
        warnings.warn(f"Left out: {'; '.join(left_out)}.", UserWarning, stacklevel=2)
    if nothing:
        warnings.warn(f"Nothing could be compared, mostly since: {nothing}.", UserWarning, stacklevel=2)


def _drop_unknown(images: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leave out images without patient or group, and say which."""
    left_out = [
        f"{listed(images.index[images[column].isna()])} (no {name})"
        for column, name in ((PATIENT, "patient"), (GROUP, "group"))
        if images[column].isna().any()
    ]
    return images.dropna(subset=[PATIENT, GROUP]), left_out


def _as_counted(counted: Mapping[str, str]) -> str:
    """Which images neighbours were counted in, in words."""
    return f"{counted.get('image_key', _keys.IMAGE)!r}, as in nm.tl.neighborhood"


def _find_table(adata: AnnData, value: str | pd.DataFrame) -> pd.DataFrame:
    if isinstance(value, pd.DataFrame):
        return value
    tables = [name for name, table in adata.uns.items() if isinstance(table, pd.DataFrame)]
    if value not in tables:
        fix = "Compare another: value=..."
        if value == _keys.NEIGHBORHOOD:
            fix = "Count neighbours first: nm.tl.neighborhood(adata)."
        raise KeyError(no_such("values", value, ".uns of the table", [COMPOSITION, ACTIVATION, *tables], fix))
    return adata.uns[value]


def _compare(model: GroupModel, values: Values) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare all variables, and list the values of the patients."""
    units = model.units
    observed, compared = (each.reindex(units.index) for each in (values.observed, values.compared))
    patients = observed.groupby([units[PATIENT], units[GROUP]], observed=True).mean()
    names, rows, points = values.observed.columns, [], []
    for position, name in enumerate(names):
        parts = name if isinstance(name, tuple) else (name,)
        own = {"variable": BETWEEN.join(parts)}
        own |= dict(zip(names.names, parts, strict=True)) if len(parts) > 1 else {}
        those = patients.iloc[:, position].dropna()
        found = compare_variable(model, compared.iloc[:, position], those, is_share=values.measured == SHARE)
        rows += [own | row for row in found]
        tidy = those.rename("value").rename_axis(["patient", "group"]).reset_index()
        points.append(tidy.assign(**own)[[*own, "patient", "group", "value"]])
    table: pd.DataFrame = pd.DataFrame(rows)
    table.insert(list(table).index("p"), "unit", values.effect)
    table.insert(list(table).index("p") + 1, "q", _adjust(table["p"]))
    return table.assign(method=model.name, note=table.pop("note")), pd.concat(points, ignore_index=True)


def _adjust(p: pd.Series) -> pd.Series:
    """Benjamini and Hochberg's q of the tests that gave a p."""
    q, tested = p.copy(), p.notna()
    if tested.any():
        q[tested] = fdrcorrection(p[tested])[1]
    return q
