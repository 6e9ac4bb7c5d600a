"""Checks whether clusters and attributions were computed from the present embedding of the cells."""

from __future__ import annotations

import warnings
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._record import embedded_as, read_record, record_name
from nextmarker._table import OURS, require

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

EXAMPLES = 10
"""Number of cells of each cluster that an attribution lists, to recognize the cluster if it is renamed."""


def digest(values: np.ndarray) -> str:
    """Fingerprint of an array, 16 hexadecimal digits."""
    return sha256(np.ascontiguousarray(values).data).hexdigest()[:16]


def name_embedding(model: str, embedding: np.ndarray) -> str:
    """Identify an embedding by the digests of its model and values; `nm.tl.embed` stores this name with each cell."""
    return f"{model}-{digest(embedding)[:8]}"


def warn_of_replaced_embedding(adata: AnnData, new: str) -> None:
    """Warn that the table has results of an earlier embedding, which `new` replaces."""
    older = [
        name
        for name, record in adata.uns.get(_keys.RECORD, {}).items()
        if isinstance(record, dict) and name != _keys.EMBED_STEP and new not in record.get("embedded_as", [new])
    ]
    if older:
        again = "nm.tl.cluster(adata), nm.tl.marker_attribution(adata)"
        msg = f"These results belong to the replaced embedding: {', '.join(older)}. Repeat them: {again}."
        warnings.warn(msg, stacklevel=4)


def check_clusters(adata: AnnData, groupby: str, *, strict: bool = False) -> None:
    """Warn of clusters that were not computed from the present embedding of the cells.

    Cells may have been left out or sorted, and clusters renamed.

    Parameters
    ----------
    groupby
        Column of `.obs`. Columns that `nm.tl.cluster` did not write are not checked.
    strict
        For numbered clusters of several clusterings, raise an error instead of a warning.
    """
    record = read_record(adata, record_name(_keys.CLUSTER_STEP, groupby))
    known = set(record.get("embedded_as", ()))
    current = _embeddings(adata, adata.obs[groupby].notna().to_numpy())
    ours = record or groupby == _keys.CLUSTERS
    if not ours or record.get("use_rep", _keys.EMBEDDING) not in OURS or current <= known:
        return
    again = f"nm.tl.cluster(adata{'' if groupby == _keys.CLUSTERS else f', key_added={groupby!r}'})"
    if known and current.isdisjoint(known):
        msg = f"The clusters in .obs[{groupby!r}] are of an earlier embedding. Cluster again: {again}."
        warnings.warn(msg, stacklevel=3)
    elif _are_numbers(adata.obs[groupby]):  # names, such as cell types, mean the same in all tables
        msg = f"In .obs[{groupby!r}], cluster 0 of one table may not be that of another. Cluster again: {again}."
        if strict and len(current) > 1:
            raise ValueError(msg)
        warnings.warn(msg, stacklevel=3)


def warn_of_other_cells(adata: AnnData, table: pd.DataFrame, record: Mapping[str, str]) -> None:
    """Warn if the table has other cells or types than when neighbours were counted.

    Parameters
    ----------
    table, record
        Result and record of `nm.tl.neighborhood`.
    """
    columns = [record.get("image_key"), record.get("groupby")]
    if not set(columns) <= set(adata.obs):
        return
    own = table[table["cell_type"].astype(str) == table["neighbor"].astype(str)]
    then = own.astype({"image": str, "cell_type": str}).set_index(["image", "cell_type"])["n_cells"]
    cells = adata.obs[columns].dropna().astype(str)
    now = cells[(cells.apply(lambda names: names.str.strip()) != "").all(axis=1)].value_counts()
    if then[then > 0].to_dict() != now.to_dict():
        same_cells = _by_image(then) == _by_image(now)
        types = f"The types in .obs[{columns[1]!r}] have changed since"
        what = types if same_cells else "The table has other cells than when"
        key = "" if columns[0] == _keys.IMAGE else f", image_key={columns[0]!r}"
        call = f"nm.tl.neighborhood(adata, {columns[1]!r}{key})"
        warnings.warn(f"{what} neighbours were counted. Count again: {call}.", stacklevel=3)


def _by_image(counts: pd.Series) -> dict[Any, int]:
    """Cells of each image that has any, from those of each image and type."""
    sizes = counts.groupby(level=0).sum()
    return sizes[sizes > 0].to_dict()


def choose_examples(clusters: pd.Categorical, names: pd.Index) -> np.ndarray | None:
    """Choose up to `EXAMPLES` cells of each cluster; their names, cluster by cluster, or None if names repeat."""
    if not names.is_unique:
        return None
    rows = [np.flatnonzero(clusters.codes == code) for code in range(len(clusters.categories))]
    chosen = [own[np.linspace(0, len(own) - 1, min(EXAMPLES, len(own))).astype(int)] for own in rows]
    return names[np.concatenate(chosen)].to_numpy(dtype=object)


def read_attribution(adata: AnnData, key: str, groupby: str | None = None, fix: str = "") -> pd.DataFrame:
    """Read an attribution; raise an error if embedding or clusters of the table have changed since.

    Renamed clusters have their new names in the result. If cells were left out, a warning says so.

    Parameters
    ----------
    key
        Name of the attribution in `.uns`.
    groupby
        The clusters that it must belong to, under the same names; by default those it was computed from.
    fix
        Another remedy for the error message, besides computing it again.
    """
    record = read_record(adata, record_name(_keys.ATTRIBUTION, key))
    column = groupby or record.get("groupby")
    call = _attribution_call(key, column) + fix
    table = require(adata, "uns", key, call)
    _refuse_older_attribution(adata, key, record, call)
    if column not in adata.obs:
        return table

    then = table.groupby("cluster", observed=True)["n_cells"].first().rename(index=str)
    where = f".uns[{key!r}] is the attribution of other clusters than .obs[{column!r}]"
    names = _current_names(adata.obs[column], then, record.get("examples", ()))
    if names is None and groupby is None and sorted(then) == sorted(_sizes(adata.obs[column])):
        return table  # perhaps renamed, but it is unknown how
    names = names or {name: name for name in then.index}
    _refuse_merged(names, where, call)
    _compare_sizes(then.rename(names), _sizes(adata.obs[column]), where, call)
    if all(old == new for old, new in names.items()):
        return table
    return table.assign(cluster=table["cluster"].astype("category").cat.rename_categories(names))


def read_annotation(adata: AnnData, key: str) -> tuple[pd.DataFrame, Mapping[str, Any]]:
    """Look up the annotation of clusters and its record; raise an error if clusters or types were changed since.

    Cells may have been left out.

    Parameters
    ----------
    key
        Name of the annotation, its column in `.obs`.
    """
    call = "nm.tl.annotate(adata, signatures)"
    table = require(adata, "uns", f"{key}_annotation", call)
    record = read_record(adata, record_name(_keys.ANNOTATE_STEP, key))
    groupby = record.get("groupby")
    if groupby not in adata.obs or key not in adata.obs:
        return table, record
    clusters, types = (adata.obs[column].astype(object).map(str) for column in (groupby, key))
    then = table.set_index("cluster")
    expected = clusters.map(then["cell_type"])
    more = clusters[adata.obs[groupby].notna()].value_counts().sub(then["n_cells"], fill_value=0).gt(0).any()
    if more or (record.get("by") == "cluster" and (types != expected)[adata.obs[groupby].notna()].any()):
        msg = f"Clusters in .obs[{groupby!r}] or types in .obs[{key!r}] were changed since. Annotate again: {call}."
        raise ValueError(msg)
    return table, record


def _embeddings(adata: AnnData, cells: np.ndarray | slice = slice(None)) -> set[str]:
    """Names of the embeddings of some cells; empty if unknown."""
    return set(embedded_as(adata)[cells].dropna())


def _are_numbers(labels: pd.Series) -> bool:
    return all(str(name).isdigit() for name in labels.dropna().unique())


def _sizes(labels: pd.Series) -> pd.Series:
    """Number of cells of each label, as a string, without unused labels."""
    sizes = labels.value_counts()
    return sizes[sizes > 0].rename(index=str)


def _attribution_call(key: str, groupby: str | None) -> str:
    name = "" if key == _keys.ATTRIBUTION else f", key_added={key!r}"
    column = "" if groupby in (None, _keys.CLUSTERS) else f", groupby={groupby!r}"
    return f"nm.tl.marker_attribution(adata{name}{column})"


def _refuse_older_attribution(adata: AnnData, key: str, record: Mapping[str, Any], call: str) -> None:
    known = set(record.get("embedded_as", ()))
    if known and not _embeddings(adata) <= known:
        msg = f".uns[{key!r}] is of another embedding or other cells. Compute it again: {call}."
        raise ValueError(msg)
    clusters = read_record(adata, record_name(_keys.CLUSTER_STEP, record.get("groupby", "")))
    if "clustering" in clusters and clusters["clustering"] != record.get("clustering", clusters["clustering"]):
        column = record["groupby"]
        msg = f".uns[{key!r}] is of other clusters: .obs[{column!r}] was clustered again. Compute it again: {call}."
        raise ValueError(msg)


def _current_names(labels: pd.Series, then: pd.Series, examples: Iterable[str]) -> dict[str, str] | None:
    """Find the present names of clusters by the example cells of each; a cluster without examples keeps its name.

    Returns
    -------
    Present name by former name, or None if there are no examples.
    """
    owners = np.repeat(then.index, then.clip(upper=EXAMPLES))
    cells = pd.Index(list(examples))
    if len(owners) != len(cells) or not labels.index.is_unique:
        return None
    pairs = pd.DataFrame({"then": owners, "now": labels.astype(object).reindex(cells).to_numpy()}).dropna().astype(str)
    pairs = pairs.drop_duplicates()
    whole = pairs[~pairs["then"].duplicated(keep=False)]  # the others were divided, so they have several names
    return {name: name for name in then.index} | dict(zip(whole["then"], whole["now"], strict=True))


def _refuse_merged(names: Mapping[str, str], where: str, call: str) -> None:
    new = list(names.values())
    merged = {old: name for old, name in names.items() if new.count(name) > 1}
    if merged:
        msg = f"{where}, some of which were merged since: {merged}. Compute it again: {call}."
        raise ValueError(msg)


def _compare_sizes(then: pd.Series, now: pd.Series, where: str, call: str) -> None:
    """Raise an error if clusters gained cells; warn if cells were left out."""
    lost = then.sub(now, fill_value=0)
    if (lost < 0).any():
        msg = f"{where}, of sizes {now.to_dict()}. Compute it again: {call}."
        raise ValueError(msg)
    if (lost > 0).any():
        msg = f"The attribution is of {then.sum()} cells; the table has {now.sum()} of them. Compute it again: {call}."
        warnings.warn(msg, stacklevel=4)
