"""The table: finds it, reads representations, labels and clusters from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from nextmarker import _keys
from nextmarker._errors import check_value, listed, no_such
from nextmarker._record import refuse_several_models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData

OURS = (_keys.EMBEDDING, _keys.INTERPRETABILITY_FEATURES)
DEFAULTS = ("X", _keys.INTERPRETABILITY_FEATURES, _keys.EMBEDDING)
LAYERS = "layers/"
ROWS_AT_ONCE = 65_536  # cells whose activation is compared with their features at a time


def get_table(data: AnnData | SpatialData, table_key: str = _keys.TABLE) -> AnnData:
    """Get the table of AnnData (itself) or SpatialData.

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
        fix = "Make it: nm.pp.detect_cells(sdata, nuclear_channels=[...]) or nm.pp.add_cells(sdata, ...)."
        raise KeyError(no_such("table", table_key, "sdata.tables", tables, fix))
    return tables[table_key]


def require(adata: AnnData, slot: str, key: str, fix: str) -> Any:
    """Look up `adata.<slot>[key]`; the error names the keys that exist and the call that writes this one."""
    holder = getattr(adata, slot)
    if key not in holder:
        raise KeyError(no_such("", key, f".{slot} of the table", holder, f"Write it with {fix}."))
    return holder[key]


def read_representations(adata: AnnData, names: str | Sequence[str] | None, cells: np.ndarray) -> dict[str, np.ndarray]:
    """Read representations of some cells, float (cells, features).

    Parameters
    ----------
    names
        Keys of `.obsm`, `"X"`, or `"layers/NAME"`; by default those of `DEFAULTS` that the table has.
    cells
        Which cells, bool (cells,).

    Raises
    ------
    KeyError
        If the table lacks one.
    ValueError
        If values are not finite numbers, come from several models, or do not fit the markers of the table.
    """
    available = _available(adata)
    chosen = [names] if isinstance(names, str) else list(names or [name for name in DEFAULTS if name in available])
    lacking = [name for name in chosen if name not in available]
    if lacking or not chosen:
        fix = "Name others, use_rep=[...], or embed: nm.tl.embed(sdata)."
        if _keys.INTERPRETABILITY_FEATURES in lacking:
            fix = "Store it: nm.tl.embed(sdata, model, store_features=True)."
        if "X" in lacking and "X" in adata.obsm:
            fix += " 'X' means .X, never .obsm['X']: rename that."
        raise KeyError(no_such("representation", lacking or DEFAULTS, "the table", available, fix))
    if set(chosen) & set(OURS):
        refuse_several_models(adata, cells)
    if _keys.INTERPRETABILITY_FEATURES in chosen:
        read_features(adata)
    return {name: _read(adata, name, cells) for name in chosen}


def read_features(adata: AnnData, n_features: int | None = None) -> np.ndarray:
    """Read all of I, (cells, markers * features); raise an error if it does not match the markers of the table.

    When markers are selected, sorted, or dropped by joining tables, `.layers` follows but `.obsm` does not. So the
    activation in `.layers` is compared with the weighted sum of the features of each marker, or without weights, as in
    tables of earlier versions, with their mean.

    Parameters
    ----------
    n_features
        Features per marker, if known.

    Raises
    ------
    ValueError
        If columns are missing, or belong to other markers.
    """
    flat = np.asarray(adata.obsm[_keys.INTERPRETABILITY_FEATURES])
    width = n_features or max(flat.shape[1] // max(adata.n_vars, 1), 1)
    activation = adata.layers.get(_keys.INTERPRETABILITY)
    if n_features is None and activation is None:
        return flat  # not written by nm.tl.embed, which writes both
    known = adata.varm.get(_keys.ACTIVATION_WEIGHTS)
    weights = np.full((adata.n_vars, width), 1 / width) if known is None else np.asarray(known)
    if flat.shape[1] != weights.size or weights.shape[1] != width or not _fits(activation, flat, weights):
        changed = "changed after embedding" if known is not None else "changed, or lost its weights when it was joined"
        keep = "" if known is not None else ", or keep them: anndata.concat(tables, merge='same')"
        msg = (
            f".obsm[{_keys.INTERPRETABILITY_FEATURES!r}] does not fit the {adata.n_vars} markers of the table, which "
            f"{changed}. Embed again: nm.tl.embed(sdata){keep}."
        )
        raise ValueError(msg)
    return flat


def _fits(activation: np.ndarray | None, flat: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the activation, if there is one, is the sum of each marker's features with these weights."""
    if activation is None:
        return True
    blocks = [slice(first, first + ROWS_AT_ONCE) for first in range(0, len(flat), ROWS_AT_ONCE)]
    return all(
        np.allclose(
            np.einsum("nmf,mf->nm", flat[rows].reshape(-1, *weights.shape), weights, dtype=float),
            np.asarray(activation[rows]),
            rtol=1e-3,
            atol=1e-3,
        )
        for rows in blocks
    )


def _available(adata: AnnData) -> list[str]:
    intensities = ["X"] if adata.X is not None and adata.n_vars else []
    matrices = [name for name in adata.obsm if name != "X"]  # "X" means .X
    return [*intensities, *matrices, *(f"{LAYERS}{name}" for name in adata.layers if name is not None)]


def _read(adata: AnnData, name: str, cells: np.ndarray) -> np.ndarray:
    holder = adata.obsm if name in adata.obsm else adata.layers
    values: Any = adata.X if name == "X" else holder[name.removeprefix(LAYERS)]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if values.dtype == np.float16:  # too short for sums
        values = values.astype(np.float32)
    if not (values.size and np.issubdtype(values.dtype, np.number)):
        msg = f"The representation {name!r} has no numbers: shape {values.shape}, type {values.dtype}."
        raise ValueError(msg)
    values = values if cells.all() else values[cells]
    refuse_infinite(values, adata.obs_names[cells], f"The representation {name!r}")
    return values


def refuse_infinite(values: np.ndarray, names: pd.Index, what: str) -> None:
    """Raise an error for values of cells, (cells, ...), that are not finite, with the first such cell."""
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        msg = f"{what} of {broken.sum()} cells is not finite, first that of {names[broken][0]!r}. Write it again."
        raise ValueError(msg)


def read_labels(adata: AnnData, columns: Mapping[str, str]) -> tuple[np.ndarray, list[pd.Categorical]]:
    """Read columns of `.obs` as strings, for the cells with a value (neither NaN nor empty) in each of them.

    Parameters
    ----------
    columns
        Column by argument.

    Returns
    -------
    Which cells have values, bool (all cells,), and a categorical for each column, without unused categories.

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        If no cell has a value in all columns.
    """
    for argument, column in columns.items():
        if column not in adata.obs:
            made_by = {_keys.CLUSTERS: "nm.tl.cluster(adata)", _keys.CELL_TYPE: "nm.tl.annotate(adata, signatures)"}
            fix = f"Write it with {made_by[column]}, or name another" if column in made_by else "Name another"
            raise KeyError(no_such("column", column, ".obs of the table", adata.obs, f"{fix}: {argument}=..."))
    known = np.ones(adata.n_obs, dtype=bool)
    for column in columns.values():
        known &= _have_values(adata.obs[column])
    if not known.any():
        msg = f"No cell has a value in {' and '.join(f'.obs[{name!r}]' for name in columns.values())}."
        raise ValueError(msg)
    categoricals = [pd.Categorical(adata.obs[column][known]).remove_unused_categories() for column in columns.values()]
    return known, [labels.rename_categories(str) for labels in categoricals]


def _have_values(labels: pd.Series) -> np.ndarray:
    """Which labels are neither NaN nor empty, bool (cells,)."""
    values = pd.Categorical(labels)
    filled = [str(category).strip() != "" for category in values.categories]
    return np.array([*filled, False])[values.codes]  # the code of NaN is -1


def refuse_joined(adata: AnnData, column: str, argument: str = "image_key") -> None:
    """Refuse images that share a name, as those of several patients may in a joined table.

    In a table of SpatialData, an image has one region, and in it each cell a number of its own.

    Parameters
    ----------
    column
        Column of `.obs` with the images.
    argument
        The argument that chooses it.

    Raises
    ------
    ValueError
        If there are such images.
    """
    if not {_keys.REGION, _keys.INSTANCE, column} <= set(adata.obs):
        return
    names = adata.obs[column]
    cells = adata.obs.loc[_have_values(names)]
    place = [column, _keys.REGION, _keys.INSTANCE]
    regions = cells.groupby(column, observed=True)[_keys.REGION].nunique()
    shared = {*regions.index[regions > 1], *cells.loc[cells.duplicated(place), column]}
    if shared:
        called = listed(sorted(map(str, shared)))
        msg = f"Several images are called {called} in .obs[{column!r}]. {_tell_apart(cells, column, argument)}"
        raise ValueError(msg)


def _tell_apart(cells: pd.DataFrame, column: str, argument: str) -> str:
    """How to choose or make a column in which each image has a name of its own."""
    cell = [_keys.REGION, _keys.INSTANCE]
    if not cells.duplicated(cell).any():
        return f"Choose the column that tells them apart: {argument}={_keys.REGION!r}."
    others = cells.drop(columns=[column, *cell]).select_dtypes(["object", "category", "string"])
    apart = [str(name) for name in others if not cells.duplicated([name, *cell]).any()]
    if not apart:
        return "Join the tables again, with a column that tells them apart: anndata.concat(..., label='site')."
    site = min(apart, key=lambda name: others[name].nunique())
    made = f"adata.obs['slide'] = adata.obs[{site!r}].astype(str) + '-' + adata.obs[{column!r}].astype(str)"
    return f"Make a column that tells them apart: {made}; then {argument}='slide'."


def count_cells(adata: AnnData, groupby: str, by: str) -> pd.DataFrame:
    """Count the cells of each type in each unit, such as the image, int (units, types), zero where a type is absent.

    Cells without a type or a unit are left out. Units and types are strings, in the order of their categories.

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        If both columns are the same, or no cell has a value in both.
    """
    check_value("groupby", groupby, by != groupby, f"another column than {by!r}")
    _, (types, units) = read_labels(adata, {"groupby": groupby, "by": by})
    return pd.crosstab(pd.Series(units, name=by), pd.Series(types, name=groupby))


def read_clusters(adata: AnnData, groupby: str) -> pd.Categorical:
    """Read a categorical column, with its used categories as strings; cells without a category have the code -1.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it is not categorical, or empty.
    """
    categorical = [name for name, column in adata.obs.items() if isinstance(column.dtype, pd.CategoricalDtype)]
    if groupby not in adata.obs:
        fix = "Cluster the cells, nm.tl.cluster(adata), or choose another: groupby=..."
        raise KeyError(no_such("categorical column", groupby, ".obs of the table", categorical, fix))
    if groupby not in categorical:
        column = f"adata.obs[{groupby!r}]"
        msg = f".obs[{groupby!r}] is not categorical. Convert it: {column} = {column}.astype('category')."
        raise ValueError(msg)
    clusters = pd.Categorical(adata.obs[groupby]).remove_unused_categories()
    if clusters.categories.empty:
        msg = f"No cell has a category in .obs[{groupby!r}]. Choose another: groupby=..., of {listed(categorical)}."
        raise ValueError(msg)
    return clusters.rename_categories(str)
