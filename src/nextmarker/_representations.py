"""What is read from a table to compare cells: their representations, by name, and what is known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from nextmarker import _keys
from nextmarker._provenance import OURS, refuse_several_models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anndata import AnnData

DEFAULTS = ("X", _keys.INTERPRETABILITY_FEATURES, _keys.EMBEDDING)
LAYERS = "layers/"
SAMPLE = 10_000  # cells whose distances to one another are computed
ROWS_AT_ONCE = 65_536  # cells whose features are averaged at one time


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
        If one holds anything but finite numbers, is one of several models, or does not fit the markers of the table.
    """
    available = _available(adata)
    chosen = [names] if isinstance(names, str) else list(names or [name for name in DEFAULTS if name in available])
    missing = [name for name in chosen if name not in available]
    if missing or not chosen:
        msg = (
            f"The table has no representation {missing or list(DEFAULTS)}; it has {available or 'none'}. "
            "Write the embedding with nm.tl.embed(sdata), or name others: representations=[...]."
        )
        raise KeyError(msg)
    if set(chosen) & set(OURS):
        refuse_several_models(adata, cells)
    if _keys.INTERPRETABILITY_FEATURES in chosen:
        read_features(adata)
    return {name: _read(adata, name, cells) for name in chosen}


def read_features(adata: AnnData, n_features: int | None = None) -> np.ndarray:
    """Read all of I, (cells, markers * features), and refuse it if it is out of step with the markers of the table.

    `.obsm` does not follow when the markers of a table are chosen or put in another order, or cut when tables are
    joined; `.layers` does, and holds the mean of the features of each marker.

    Parameters
    ----------
    n_features
        Features of a marker, where known.

    Raises
    ------
    ValueError
        If columns are missing, or are those of other markers.
    """
    flat = np.asarray(adata.obsm[_keys.INTERPRETABILITY_FEATURES])
    width = n_features or max(flat.shape[1] // max(adata.n_vars, 1), 1)
    activation = adata.layers.get(_keys.INTERPRETABILITY)
    if n_features is None and activation is None:
        return flat  # not from nm.tl.embed, which writes both
    if flat.shape[1] != adata.n_vars * width or not _is_mean(activation, flat):
        msg = (
            f"The table has {adata.n_vars} markers, and .obsm[{_keys.INTERPRETABILITY_FEATURES!r}] holds the features "
            f"of others or in another order: markers were chosen or moved, or tables of several panels joined, after "
            f"embedding. Do this before that, or embed again with nm.tl.embed(sdata)."
        )
        raise ValueError(msg)
    return flat


def _is_mean(activation: np.ndarray | None, flat: np.ndarray) -> bool:
    """Tell whether the activation, where there is one, is the mean of each marker's features."""
    if activation is None:
        return True
    blocks = [slice(first, first + ROWS_AT_ONCE) for first in range(0, len(flat), ROWS_AT_ONCE)]
    return all(
        np.allclose(
            flat[rows].reshape(*activation[rows].shape, -1).mean(2, dtype=np.float64),
            np.asarray(activation[rows]),
            rtol=1e-3,
            atol=1e-6,
        )
        for rows in blocks
    )


def _available(adata: AnnData) -> list[str]:
    intensities = ["X"] if adata.X is not None and adata.n_vars else []
    return [*intensities, *adata.obsm, *(f"{LAYERS}{name}" for name in adata.layers if name is not None)]


def _read(adata: AnnData, name: str, cells: np.ndarray) -> np.ndarray:
    holder = adata.obsm if name in adata.obsm else adata.layers
    values: Any = adata.X if name == "X" else holder[name.removeprefix(LAYERS)]
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    if not (values.size and np.issubdtype(values.dtype, np.number)):
        msg = f"The representation {name!r} holds no numbers: its shape is {values.shape}, its dtype {values.dtype}."
        raise ValueError(msg)
    values = values[cells]
    broken = ~np.isfinite(values).all(axis=1)
    if broken.any():
        msg = (
            f"The representation {name!r} of {broken.sum()} cells is not finite (NaN or infinite), first that of cell "
            f"{adata.obs_names[cells][broken][0]!r}. Write it again, or leave these cells out."
        )
        raise ValueError(msg)
    return values


def read_labels(adata: AnnData, columns: Mapping[str, str]) -> tuple[np.ndarray, list[pd.Categorical]]:
    """Read columns of `.obs` as strings, of the cells that have a value (neither NaN nor empty) in all of them.

    Parameters
    ----------
    columns
        Column of each argument.

    Returns
    -------
    Which cells these are, bool (all cells,), and one categorical for each column, without empty categories.

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        If no cell has a value in all columns.
    """
    for argument, column in columns.items():
        if column not in adata.obs:
            msg = (
                f"No column {column!r} in .obs of the table, which has {list(adata.obs)}. Name another: {argument}=..."
            )
            raise KeyError(msg)
    known = np.ones(adata.n_obs, dtype=bool)
    for column in columns.values():
        labels = adata.obs[column]
        known &= (labels.notna() & (labels.astype(str).str.strip() != "")).to_numpy()
    if not known.any():
        msg = f"No cell of the table has a value in {' and '.join(f'.obs[{name!r}]' for name in columns.values())}."
        raise ValueError(msg)
    categoricals = [pd.Categorical(adata.obs[column][known]).remove_unused_categories() for column in columns.values()]
    return known, [labels.rename_categories(str) for labels in categoricals]


def sample(labels: pd.Categorical, random_state: int) -> np.ndarray:
    """Choose about `SAMPLE` cells at random, of each label in proportion, but at least two; ascending indices."""
    if len(labels) <= SAMPLE:
        return np.arange(len(labels))
    order = np.random.default_rng(random_state).permutation(len(labels))
    codes = labels.codes[order]
    quota = np.maximum(2, np.bincount(codes) * SAMPLE // len(labels))
    return np.sort(order[pd.Series(codes).groupby(codes).cumcount() < quota[codes]])


def as_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows to a table with an index of strings, as files give it back."""
    table = pd.DataFrame(list(rows))
    return table.set_axis(table.index.astype(str))
