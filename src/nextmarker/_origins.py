"""Finds the images and samples that the cells of each cluster come from, and clusters that consist of one."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pandas as pd
from scipy.stats import hypergeom

from nextmarker import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

MOSTLY = 0.8
CHANCE = 0.001  # a less probable share is not explained by chance
NAMED = 3  # clusters that a warning lists


def largest_origins(clusters: pd.Categorical[str], obs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Find the image and the sample that most cells of each cluster come from.

    Cells whose image is unknown (NaN or empty) do not count.

    Returns
    -------
    For each of the columns `"image"` and `"sample"` of `obs` that has two or more values, a table with one row for each
    cluster and the columns

    - `name`: the image with most cells of the cluster, empty if none is known
    - `share`: their fraction, NaN if none is known
    - `is_one`: whether the cluster consists mostly of this image, far more than the sizes of the images explain
    """
    names = {column: _names(obs[column]) for column in (_keys.IMAGE, _keys.SAMPLE) if column in obs}
    return {column: find_largest(clusters, values) for column, values in names.items() if values.nunique() > 1}


def as_record(origins: Mapping[str, pd.DataFrame]) -> dict[str, np.ndarray]:
    """Convert names and shares to entries of the record of a clustering."""
    names = {f"largest_{column}": table["name"].to_numpy(dtype=object) for column, table in origins.items()}
    return names | {f"largest_{column}_share": table["share"].to_numpy() for column, table in origins.items()}


def warn_of_one_origin(origins: Mapping[str, pd.DataFrame], clusters: pd.Categorical[str]) -> None:
    """Warn of clusters from one image, and of those from several images of one sample."""
    reported: set[int] = set()
    for column, table in origins.items():
        found = table[table["is_one"] & ~table.index.isin(reported)]
        reported |= set(found.index)
        if found.empty:
            continue
        named = found.head(NAMED)
        shares = zip(clusters.categories[named.index], named["share"], named["name"], strict=True)
        listed = ", ".join(f"{str(cluster)!r} ({100 * share:.0f} % {name!r})" for cluster, share, name in shares)
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        msg = (
            f"In {len(found)} of {len(table)} clusters at least {100 * MOSTLY:.0f} % of the cells come from one "
            f"{column}: {listed}{more}. Does the staining differ? See nm.metrics.batch_mixing(adata, {column!r})."
        )
        warnings.warn(msg, stacklevel=3)


def _names(labels: pd.Series) -> pd.Series:
    """Values as strings, NaN if missing."""
    names = labels.astype(object).map(str)
    return names.where((labels.notna() & (names.str.strip() != "")).to_numpy())


def find_largest(clusters: pd.Categorical[Any], names: pd.Series) -> pd.DataFrame:
    """Find the image that most cells of each cluster come from, as above; `names` of the cells are strings or NaN."""
    cells = pd.DataFrame({"cluster": clusters.codes, "name": names.to_numpy()}).dropna()
    pairs = cells.groupby(["cluster", "name"]).size().rename("cells").reset_index()
    largest = pairs.sort_values("cells", ascending=False, kind="stable").drop_duplicates("cluster").set_index("cluster")
    in_cluster = cells["cluster"].value_counts().reindex(largest.index)
    of_name = cells["name"].value_counts().reindex(largest["name"]).set_axis(largest.index)

    share, usual = largest["cells"] / in_cluster, of_name / len(cells)
    by_chance = hypergeom.sf(largest["cells"] - 1, len(cells), of_name, in_cluster)
    # an image with most of all cells also has most cells of a mixed cluster
    unusual = (usual < MOSTLY) & (1 - share <= (1 - usual) / 2) & (by_chance < CHANCE)
    table = pd.DataFrame({"name": largest["name"], "share": share, "is_one": (share >= MOSTLY) & unusual})
    table = table.reindex(range(len(clusters.categories)))
    return table.assign(name=table["name"].fillna(""), is_one=table["is_one"].eq(True))
