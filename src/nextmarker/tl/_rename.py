"""Renames and merges clusters, with everything that was computed from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._contributions import THRESHOLD, attribute, write_attribution
from nextmarker._errors import no_such
from nextmarker._origins import as_record, largest_origins
from nextmarker._provenance import digest
from nextmarker._record import owner_of, read_record, record_name, refuse_foreign_keys, write_results
from nextmarker._table import get_table, read_clusters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


def rename_clusters(
    data: AnnData | SpatialData,
    names: Mapping[str, str],
    *,
    groupby: str = _keys.CLUSTERS,
    key_added: str | None = None,
    table_key: str = _keys.TABLE,
) -> None:
    """Give clusters other names; those that get the same name become one.

    Attributions of the clusters stay valid: they are computed again if clusters were merged, with the same thresholds.

    Parameters
    ----------
    data
        Table with clusters, or the SpatialData object that contains it.
    names
        New names by present name, `{"3": "T cell", "5": "T cell"}`. All other clusters keep theirs. A new name that
        another cluster has merges the two.
    groupby
        Clusters, or any other categorical column of `.obs`, such as cell types.
    key_added
        Column for the result; by default `groupby` is replaced, if nextmarker wrote it.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    - `.obs[key_added]`: the clusters, categorical, in the present order; merged clusters are in the place of the first
    - `.uns[f"{key_added}_colors"]`: their present colours, if there are any; merged clusters have that of the first
    - `.uns` of each attribution of the column, if clusters were merged and the column was replaced
    - `.uns["nextmarker"]["rename_clusters_<key_added>"]`: a record of the column and of the names `before` and `after`;
      the record of the clustering, if there is one, also under the new name

    Raises
    ------
    KeyError
        If the table, the column or a cluster does not exist.
    ValueError
        If the column is not categorical, would be replaced though nextmarker did not write it, or attributions of
        merged clusters cannot be computed again. The table is not changed.

    Examples
    --------
    >>> import pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> adata = AnnData(obs=pd.DataFrame({"nextmarker": pd.Categorical(["0", "1", "2"])}, index=["a", "b", "c"]))
    >>> nm.tl.rename_clusters(adata, {"0": "T cell", "2": "T cell"}, key_added="type")
    >>> adata.obs["type"].tolist()
    ['T cell', '1', 'T cell']
    """
    adata = get_table(data, table_key)
    clusters = read_clusters(adata, groupby)
    given = {str(old): new for old, new in names.items()}
    lacking = [name for name in given if name not in clusters.categories]
    if lacking:
        fix = 'Write names={"3": "T cell"}.'
        raise KeyError(no_such("cluster", lacking, f".obs[{groupby!r}]", clusters.categories, fix))
    key_added = key_added or groupby
    refuse_foreign_keys(adata, [f"obs/{key_added}"], None)

    after = [given.get(name, name) for name in clusters.categories]
    renamed = pd.Categorical(np.array([*after, None], dtype=object)[clusters.codes], list(dict.fromkeys(after)))
    was_merged = len(renamed.categories) < len(after)
    outdated = _attributions(adata, groupby) if key_added == groupby and was_merged else {}
    computed = {key: attribute(adata, renamed, np.array(list(own.values()))) for key, own in outdated.items()}

    record = {"groupby": groupby, "before": clusters.categories.to_numpy(object), "after": np.array(after, object)}
    results = {f"obs/{key_added}": renamed, **_colors(adata, groupby, after, key_added)}
    default_owner = _keys.CLUSTER_STEP if key_added == _keys.CLUSTERS else None
    owner = owner_of(adata, f"obs/{key_added}") or default_owner  # which may still replace it
    write_results(adata, f"{_keys.RENAME_STEP}_{key_added}", results, record, owner=owner)
    clustering = read_record(adata, record_name(_keys.CLUSTER_STEP, groupby))
    if clustering:
        origins = as_record(largest_origins(renamed, adata.obs))
        own = {**clustering, "key_added": key_added, "clustering": digest(renamed.codes), **origins}
        write_results(adata, record_name(_keys.CLUSTER_STEP, key_added), {}, own)
    for key, table in computed.items():
        above = read_record(adata, record_name(_keys.ATTRIBUTION, key)).get("above", THRESHOLD)
        write_attribution(adata, key, table, groupby, renamed, outdated[key], above)


def _attributions(adata: AnnData, groupby: str) -> dict[str, dict[str, float]]:
    """Find the attributions of a column, by key, with the threshold of each marker."""
    found = {}
    for name, record in adata.uns.get(_keys.RECORD, {}).items():
        if name.startswith(_keys.ATTRIBUTION) and record["groupby"] == groupby:
            key = name.removeprefix(f"{_keys.ATTRIBUTION}_")
            found[key] = dict(zip(record["markers"], record["threshold"], strict=True))
    return {key: own for key, own in found.items() if key in adata.uns and list(own) == adata.var_names.to_list()}


def _colors(adata: AnnData, groupby: str, after: list[str], key_added: str) -> dict[str, np.ndarray]:
    """Choose the colours of renamed clusters, by place: those they have, merged clusters that of the first."""
    present = list(adata.uns.get(f"{groupby}_colors", []))
    if len(present) < len(after):
        return {}
    first = dict(zip(reversed(after), reversed(present[: len(after)]), strict=True))
    return {f"uns/{key_added}_colors": np.array([first[name] for name in dict.fromkeys(after)], dtype=object)}
