"""What is compared between groups: shares of cell types, activation of markers, or the values of a tidy table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from nextmarker import _keys
from nextmarker._errors import listed, no_such
from nextmarker._record import refuse_several_models
from nextmarker._table import count_cells, read_labels, refuse_infinite, require

if TYPE_CHECKING:
    from anndata import AnnData

PSEUDOCOUNT = 0.5
SHARE = "share of cells"


@dataclass(frozen=True)
class Values:
    """What was measured in each unit."""

    observed: pd.DataFrame
    """Float (units, variables), NaN where not known. Variables with several names, such as pairs, are a MultiIndex."""
    compared: pd.DataFrame
    """The same on the scale on which groups are compared."""
    measured: str
    """What the observed values are."""
    effect: str
    """What the difference of two compared values is."""


def read_shares(adata: AnnData, groupby: str, image: str, unit: pd.Series) -> Values:
    """Share of each cell type among the cells of each unit, compared by its log2 odds.

    A small share is added to both sides, so that the odds of an absent type are finite: half a cell of a unit with the
    median number of cells. It is the same for all, since half a cell of each unit's own makes absent types differ
    between groups whose images differ in size (`experiments/groups.py`).

    Parameters
    ----------
    unit
        Unit of each image by name; images that it lacks are left out.
    """
    counts = count_cells(adata, groupby, image)
    counts = counts.groupby(unit.reindex(counts.index)).sum()
    total = counts.sum(axis=1)
    share = counts.div(total, axis=0)
    added = PSEUDOCOUNT / total[total > 0].median()
    odds = (share + added) / (1 - share + added)
    return Values(share, odds.apply(np.log2), SHARE, "log2 odds ratio")


def read_activation(adata: AnnData, groupby: str, image: str, unit: pd.Series, layer: str, min_cells: int) -> Values:
    """Mean of each marker over the cells of each type in each unit, if these are at least `min_cells`."""
    stored = require(adata, "layers", layer, "nm.tl.embed(sdata)")
    if layer == _keys.INTERPRETABILITY:
        refuse_several_models(adata)
    known, (types, images) = read_labels(adata, {"groupby": groupby, "image_key": image})
    values = np.asarray(stored.toarray() if sparse.issparse(stored) else stored)[known]
    refuse_infinite(values, adata.obs_names[known], f"The layer {layer!r}")
    units = pd.Categorical(unit.reindex(images.categories))
    codes = units.codes[images.codes].astype(np.int64)  # -1 if the image is left out
    n_units, n_types = len(units.categories), len(types.categories)
    cell = np.flatnonzero(codes >= 0)
    place = codes[cell] * n_types + types.codes[cell]
    member = sparse.csr_matrix((np.ones(len(cell)), (place, cell)), (n_units * n_types, len(codes)))
    n_cells = np.asarray(member.sum(axis=1))
    means = (member @ values) / np.where(n_cells >= max(min_cells, 1), n_cells, np.nan)
    names = pd.MultiIndex.from_product([types.categories, adata.var_names], names=[groupby, "marker"])
    observed = pd.DataFrame(means.reshape(n_units, -1), units.categories, names)
    measured = "mean activation" if layer == _keys.INTERPRETABILITY else f"mean of {layer}"
    return Values(observed, observed, measured, "difference of means")


def read_table(table: pd.DataFrame, image: str, unit: pd.Series, column: str) -> Values:
    """Values of a tidy table with a row for each image and variable, averaged over the images of each unit.

    The variable is named by the columns of text that differ within images.

    Raises
    ------
    KeyError
        If a column is missing.
    ValueError
        If the values are not numbers, or an image has several rows for a variable.
    """
    image = image if image in table else _keys.IMAGE
    for name, argument in ((image, "image_key"), (column, "column")):
        if name not in table:
            raise KeyError(no_such("column", name, "the table", table.columns, f"Name another: {argument}=..."))
    if not pd.api.types.is_numeric_dtype(table[column]):
        msg = f"Column {column!r} of the table holds no numbers. Name another: column=..."
        raise ValueError(msg)
    text = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name]) and name != image]
    differ = table.groupby(image, observed=True)[text].nunique().max() > 1
    names = [name for name in text if differ[name]] or text[:1]
    rows = table.assign(**{name: table[name].astype(str) for name in [image, *names]})
    if not names or rows.duplicated([image, *names]).any():
        msg = f"The table has several rows for an image and {listed(names)}. Keep one of them."
        raise ValueError(msg)
    order = rows[names].drop_duplicates()
    columns = pd.MultiIndex.from_frame(order) if len(names) > 1 else pd.Index(order[names[0]])
    observed = rows.set_index([image, *names])[column].unstack(names)[columns].replace([np.inf, -np.inf], np.nan)
    observed = observed.groupby(unit.reindex(observed.index)).mean()
    return Values(observed, observed, column, f"difference of {column}")
