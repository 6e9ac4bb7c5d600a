"""Names clusters and cells by the signatures of cell types."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_option, check_value, counted, no_such
from nextmarker._outcome import LEAST_AGREEMENT
from nextmarker._palette import colors_of
from nextmarker._provenance import check_clusters
from nextmarker._record import made_from, record_name, refuse_foreign_keys, refuse_several_models, write_results
from nextmarker._table import get_table, read_clusters, refuse_infinite, require
from nextmarker.tl.cell_types.annotation import (
    describe_clusters,
    describe_scores,
    describe_signatures,
    describe_thresholds,
    overrule_clusters,
)
from nextmarker.tl.cell_types.choice import choose_types, score_cells
from nextmarker.tl.cell_types.markers import use_names_of_table
from nextmarker.tl.cell_types.positivity import Threshold, at_threshold, propose_threshold
from nextmarker.tl.cell_types.signatures import CellType, Signatures, ancestors, read_signatures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

By = Literal["cluster", "cell"]

HIDDEN = 20
"""Number of cells of a type that no cluster is named after, from which on a warning names it."""
NAMED = 3
"""Clusters that a warning lists."""


def annotate(
    data: AnnData | SpatialData,
    signatures: Signatures,
    *,
    groupby: str = _keys.CLUSTERS,
    by: By = "cluster",
    thresholds: Mapping[str, float | Mapping[str, float]] | None = None,
    min_score: float = 0.3,
    margin: float = 0.1,
    overrule: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
    layer: str = _keys.INTERPRETABILITY,
    key_added: str = _keys.CELL_TYPE,
    table_key: str = _keys.TABLE,
) -> None:
    """Name clusters, or single cells, by the markers that each cell type has and lacks.

    Each marker gets a threshold. A cell fits a type as well as the worst of the conditions in its signature: 1 if all
    its markers are clearly positive or negative, as required, 0.5 if one is at its threshold. The score of a cluster is
    the mean of its cells. The type with the highest score is chosen, first among the main types, then among the
    subtypes of the chosen one.

    Parameters
    ----------
    data
        Table with activations and clusters, or the SpatialData object that contains it.
    signatures
        Cell types and their markers, as one of

        - a dict of signatures: `{"T cell": "CD45+ CD3+ CD20-"}`. Between two markers, `or` means that one of them is
          enough: `"CD4+ or CD8+"`. A marker in brackets is optional, `"[CD57+]"`: it can lower a score to 0.5, not
          further. A subtype names its parent and fulfils the parent's signature too:
          `{"CD8 T": {"parent": "T cell", "markers": "CD8+ CD4-"}}`. A type whose signature contains all of another is
          also its subtype;
        - a DataFrame, or a .csv or .tsv file, of types x markers: 1 positive, -1 negative, 0 or empty for either;
        - a phenotype table of scimap (.csv), or the markers of astir (.yaml).

        Markers are found by the name or `original_name` in the table, whatever their case and punctuation.
    groupby
        Column of `.obs` with the clusters. Cells without a cluster get no type, unless `by="cell"`.
    by
        `"cluster"`: all cells of a cluster get the type of the cluster. `"cell"`: each cell gets the type that it fits
        by itself. Rare types, and types that share a cluster, are then found too, but single cells are less certain.
    thresholds
        Activation above which a marker is positive, `{"CD3": 0.4}`, for one type also `{"T cell": {"CD3": 0.5}}`. By
        default it divides the clusters in two (Otsu's method on the square root of their mean activations). Give one
        for a marker that all cells have or lack; `nm.pl.thresholds` shows them. In another `layer`, a marker that does
        not divide the clusters gets a threshold that divides the cells.
    min_score
        Cells or clusters whose best score is lower are `"unknown"`.
    margin
        The best type must be ahead of the next by so much. Otherwise the name is `"B cell or T cell"`, or `"unsure"` if
        three or more are so close. If no subtype is clear, the name is that of the parent.
    overrule
        Names for clusters, by cluster, that replace those from signatures: `{"7": "Treg"}`. The record keeps both.
    aliases
        Markers of the table by their name in the signatures: `{"LCA": "CD45"}`.
    layer
        Layer with the values of the markers, (cells, markers).
    key_added
        Name of the results.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    `.obs[key_added]` : categorical
        Types in the order of the signatures, then unclear ones. Up to 30 get colours in `.uns[f"{key_added}_colors"]`.
    `.obs[f"{key_added}_score"]`, `.obs[f"{key_added}_margin"]` : float32
        Score of the best type, and by how much it is ahead of the next one at the same level.
    `.uns[f"{key_added}_annotation"]` : DataFrame with one row per cluster
        `cluster`, `n_cells`, `cell_type`; `best` and `second`, the types with the highest scores, with `score`,
        `second_score` and `margin`; `weakest`, the condition of the best type that fits worst; `agreement`, the share
        of cells that have the same type by themselves; `other` and `other_share`, the most frequent other type of
        single cells; `mixed`, whether that is 25 % or more; `overruled`, the type by signatures if it was replaced.
    `.uns[f"{key_added}_scores"]` : DataFrame with one row per cluster and type
        `cluster`, `cell_type`, `score`.
    `.uns["nextmarker"]["annotate"]`, or `["annotate_<key_added>"]` for another `key_added`
        A record: signatures as text, thresholds with the means below and above them, and the parameters.

    Warns
    -----
    UserWarning
        If the table lacks markers of a signature: types that must have them are not assigned, other conditions are left
        out. If clusters are mixed: divide them with `nm.tl.cluster(adata, restrict_to=...)`, or use `by="cell"`. If
        clusters that are not mixed have a type that less than half of their cells fit by themselves: the others fit
        none, so check the thresholds. If no cluster has a type, or a subtype of it, that 20 or more cells fit by
        themselves. If the clusters were made from another embedding.

    Raises
    ------
    FileNotFoundError
        If there is no such file of signatures.
    KeyError
        If the table, layer, clusters, or a cluster to overrule does not exist.
    TypeError
        If `signatures` is of another type.
    ValueError
        If a signature cannot be read, a parent is missing, parents form a circle, no type can be assigned, a threshold
        is of an unknown marker or type, the activations are not finite, or a result would replace something that
        nextmarker did not write. The table is not changed.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> activation = np.repeat([[0.9, 0.0, 0.1], [0.8, 0.9, 0.0], [0.1, 0.0, 0.8]], 20, axis=0)
    >>> adata = AnnData(
    ...     obs=pd.DataFrame({"nextmarker": pd.Categorical(np.repeat(["0", "1", "2"], 20))}, np.arange(60).astype(str)),
    ...     var=pd.DataFrame(index=["CD3", "CD8", "CD20"]),
    ...     layers={"interpretability": activation},
    ... )
    >>> nm.tl.annotate(adata, {"T cell": "CD3+ CD20-", "CD8 T": "CD3+ CD20- CD8+", "B cell": "CD20+ CD3-"})
    >>> adata.uns["cell_type_annotation"][["cluster", "cell_type"]].values.tolist()
    [['0', 'T cell'], ['1', 'CD8 T'], ['2', 'B cell']]
    """
    adata = get_table(data, table_key)
    check_option("by", by, get_args(By))
    for name, value in (("min_score", min_score), ("margin", margin)):
        check_value(name, value, 0 <= value <= 1, "from 0 to 1")
    places = [f"obs/{key_added}", *(f"obs/{key_added}_{name}" for name in ("score", "margin"))]
    places += [f"uns/{key_added}_{name}" for name in ("annotation", "scores")]
    refuse_foreign_keys(adata, places, _keys.ANNOTATE_STEP)
    clusters = read_clusters(adata, groupby)
    overrule = {str(cluster): name for cluster, name in (overrule or {}).items()}
    _check_clusters_to_overrule(overrule, clusters, groupby)
    given = read_signatures(signatures)
    _check_thresholds(thresholds or {}, given, adata)
    check_clusters(adata, groupby)
    types, lacking = use_names_of_table(given, adata, aliases)
    activation = _read_activation(adata, layer, types)

    proposed = _propose_thresholds(activation, clusters, are_activations=layer == _keys.INTERPRETABILITY)
    used = _choose_thresholds(activation, proposed, types, thresholds or {})
    scores, fulfilment = score_cells(
        types, lambda name, marker: used[name, marker].positivity(activation[marker].to_numpy()), adata.n_obs
    )
    of_clusters = choose_types(types, _means(scores, clusters), min_score, margin)
    of_cells = choose_types(types, scores, min_score, margin)
    fulfilled = [_means(each, clusters) for each in fulfilment]
    annotation = overrule_clusters(describe_clusters(types, clusters, of_clusters, fulfilled, of_cells.names), overrule)
    if by == "cell":
        names, score, ahead = _overrule_cells(of_cells.names, clusters, overrule), of_cells.score, of_cells.margin
    else:
        names, score, ahead = (_to_cells(annotation[column], clusters) for column in ("cell_type", "score", "margin"))
    cell_types = _as_categorical(names, types)
    results = {
        f"obs/{key_added}": cell_types,
        **colors_of(key_added, len(cell_types.categories)),
        f"obs/{key_added}_score": score.astype(np.float32),
        f"obs/{key_added}_margin": ahead.astype(np.float32),
        f"uns/{key_added}_annotation": annotation,
        f"uns/{key_added}_scores": describe_scores(of_clusters.scores, clusters, types),
    }
    record = {
        **describe_signatures(types),
        "thresholds": describe_thresholds(used),
        "markers_lacking": np.array(lacking, dtype=object),
        "groupby": groupby,
        "by": by,
        "min_score": min_score,
        "margin": margin,
        "layer": layer,
        **made_from(adata),
    }
    write_results(adata, record_name(_keys.ANNOTATE_STEP, key_added), results, record)
    if by == "cluster":
        _warn_of_mixed(annotation, groupby)
        _warn_of_weak(annotation, types)
        _warn_of_hidden(of_cells.names, annotation, types)


def _read_activation(adata: AnnData, layer: str, types: Sequence[CellType]) -> pd.DataFrame:
    """Read the markers of the types, float (cells, markers)."""
    require(adata, "layers", layer, "nm.tl.embed(sdata)")
    if layer == _keys.INTERPRETABILITY:
        refuse_several_models(adata)
    used = [marker for each in types for condition in each.conditions for marker, _ in condition.alternatives]
    activation = adata[:, list(dict.fromkeys(used))].to_df(layer)
    refuse_infinite(activation.to_numpy(), adata.obs_names, f"The layer {layer!r}")
    return activation.astype(float)


def _check_clusters_to_overrule(overrule: Mapping[str, str], clusters: pd.Categorical, groupby: str) -> None:
    lacking = [cluster for cluster in overrule if cluster not in clusters.categories]
    if lacking:
        fix = 'Write overrule={"cluster": "type"}.'
        raise KeyError(no_such("cluster", lacking, f".obs[{groupby!r}]", clusters.categories, fix))


def _check_thresholds(
    thresholds: Mapping[str, float | Mapping[str, float]], types: Sequence[CellType], adata: AnnData
) -> None:
    """Check that thresholds are of markers of the table, or of types and their markers."""
    by_type = {name: value for name, value in thresholds.items() if isinstance(value, Mapping)}
    names = [each.name for each in types]
    unknown = [name for name in by_type if name not in names]
    if unknown:
        raise ValueError(no_such("cell type", unknown, "the signatures", names, "Correct thresholds=..."))
    markers = {name for name in thresholds if name not in by_type}.union(*by_type.values())
    unknown = sorted(markers - set(adata.var_names))
    if unknown:
        raise ValueError(no_such("marker", unknown, "the table", adata.var_names, "Correct thresholds=..."))


def _propose_thresholds(
    activation: pd.DataFrame, clusters: pd.Categorical, *, are_activations: bool
) -> dict[str, float]:
    return {
        str(marker): propose_threshold(own.to_numpy(), clusters, are_activations=are_activations)
        for marker, own in activation.items()
    }


def _choose_thresholds(
    activation: pd.DataFrame,
    proposed: Mapping[str, float],
    types: Sequence[CellType],
    given: Mapping[str, float | Mapping[str, float]],
) -> dict[tuple[str, str], Threshold]:
    """Take the threshold of each type and marker that is given, for the type or for all, or else the proposed one."""
    common = {**proposed, **{name: value for name, value in given.items() if not isinstance(value, Mapping)}}
    special = {name: value for name, value in given.items() if isinstance(value, Mapping)}
    chosen = {}
    for each in types:
        for marker in (marker for condition in each.conditions for marker, _ in condition.alternatives):
            threshold = special.get(each.name, {}).get(marker, common[marker])
            chosen[each.name, marker] = at_threshold(activation[marker].to_numpy(), threshold)
    return chosen


def _means(values: np.ndarray, clusters: pd.Categorical) -> np.ndarray:
    """Average over the cells of each cluster, (clusters, ...)."""
    return np.stack([values[clusters.codes == code].mean(axis=0) for code in range(len(clusters.categories))])


def _to_cells(values: pd.Series, clusters: pd.Categorical) -> np.ndarray:
    """Give each cell the value of its cluster, (cells,); NaN without one."""
    return np.append(values.to_numpy(), np.nan)[clusters.codes]


def _overrule_cells(names: np.ndarray, clusters: pd.Categorical, overrule: Mapping[str, str]) -> np.ndarray:
    """Replace the names of all cells of some clusters."""
    new = np.array([overrule.get(cluster) for cluster in clusters.categories] + [None], dtype=object)[clusters.codes]
    return np.where(pd.isna(new), names, new)


def _as_categorical(names: np.ndarray, types: Sequence[CellType]) -> pd.Categorical:
    """Categories are the types that occur, in their order, then all other names."""
    found = set(pd.unique(pd.Series(names).dropna()))
    known = [each.name for each in types if each.name in found]
    last = [name for name in (_keys.UNSURE, _keys.UNKNOWN) if name in found]
    return pd.Categorical(names, [*known, *sorted(found - {*known, *last}), *last])


def _warn_of_mixed(annotation: pd.DataFrame, groupby: str) -> None:
    mixed = annotation[annotation["mixed"]].sort_values("other_share", ascending=False)
    if mixed.empty:
        return
    fix = f"nm.tl.cluster(adata, restrict_to=({groupby!r}, [{mixed['cluster'].iloc[0]!r}]))"
    msg = (
        f"Cells of other types in {counted(len(mixed), 'cluster')}: {_with_shares(mixed, 'other_share', 'other')}. "
        f'Divide them, {fix}, or use by="cell".'
    )
    warnings.warn(msg, stacklevel=3)


def _warn_of_weak(annotation: pd.DataFrame, types: Sequence[CellType]) -> None:
    """Warn of clusters whose type few of their cells have, though the others are of no other type."""
    is_sure = annotation["cell_type"].isin([each.name for each in types]) & (annotation["overruled"] == "")
    weak = annotation[is_sure & ~annotation["mixed"] & (annotation["agreement"] < LEAST_AGREEMENT)]
    if weak.empty:
        return
    weak = weak.sort_values("agreement")
    msg = (
        f"Few cells fit the type of {counted(len(weak), 'cluster')}: {_with_shares(weak, 'agreement', 'cell_type')}. "
        f'Check nm.pl.thresholds(adata), or name them: overrule={{{weak["cluster"].iloc[0]!r}: "type"}}.'
    )
    warnings.warn(msg, stacklevel=3)


def _with_shares(annotation: pd.DataFrame, share: str, cell_type: str) -> str:
    """List the first clusters, each with the share of its cells that are of a type."""
    rows = annotation[["cluster", share, cell_type]].head(NAMED).itertuples(index=False)
    named = ", ".join(f"{cluster!r} ({100 * part:.0f} % {name})" for cluster, part, name in rows)
    return named + (f" and {len(annotation) - NAMED} more" if len(annotation) > NAMED else "")


def _warn_of_hidden(names_of_cells: np.ndarray, annotation: pd.DataFrame, types: Sequence[CellType]) -> None:
    """Warn of types that single cells fit, but no cluster, not even by a subtype."""
    sizes = pd.Series(names_of_cells).value_counts()
    named = " ".join(annotation["cell_type"])  # of which some are "A or B"
    seen = {family.name for each in types if each.name in named for family in (each, *ancestors(each, types))}
    hidden = {each.name: sizes.get(each.name, 0) for each in types if each.name not in seen}
    hidden = {name: cells for name, cells in hidden.items() if cells >= HIDDEN}
    if hidden:
        found = ", ".join(f"{name} ({cells:,} cells)" for name, cells in hidden.items())
        msg = f'No cluster is named {found}, though so many cells fit by themselves: by="cell", or cluster more finely.'
        warnings.warn(msg, stacklevel=3)
