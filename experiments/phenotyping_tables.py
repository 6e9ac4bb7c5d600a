"""The signatures of ``experiments.phenotyping``, and its tables: how well typings of the same cells agree."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from anndata import AnnData

import nextmarker as nm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OURS, IE, SCALED = "nextmarker", "IE", "IE scaled"
RESOLUTIONS: Final = (0.3, 0.5)  # the default, and one that finds rarer types
CLUSTERS, BY_CLUSTER, BY_CELL, VOTE = "clusters", "by cluster", "by cell", "majority vote"
UNNAMED: Final = "unnamed"
PUBLISHED, PUBLISHED_TYPE = "published", "published_type"

# Written from what the markers stand for, before any result was seen; the same for both workflows.
SIGNATURES: Final[dict[str, str | dict[str, str]]] = {
    "tumour": "PanKRT+ or ECAD+ or CK7+, SMA- CD45- CD31- [VIM-]",
    "myoepithelium": "SMA+, CK5+ or P63+ or PanKRT+ or ECAD+, CD45- CD31-",
    "fibroblast": "VIM+ or SMA+ or FAP+, PanKRT- ECAD- CD45- CD31- CD68- CD14-",
    "endothelium": "CD31+ PanKRT- ECAD- CD45-",
    "immune": "CD45+ or CD3+ or CD20+ or CD68+ or CD14+ or CD11c+ or HLADRDPDQ+ or Tryptase+ or MPO+, "
    "PanKRT- ECAD- CD31-",
    "T cell": {"parent": "immune", "markers": "CD3+ CD20-"},
    "CD4 T": {"parent": "T cell", "markers": "CD4+ CD8-"},
    "CD8 T": {"parent": "T cell", "markers": "CD8+ CD4-"},
    "B cell": {"parent": "immune", "markers": "CD20+ CD3-"},
    "macrophage": {"parent": "immune", "markers": "CD68+ or CD14+, CD3- CD20- Tryptase- MPO-"},
    "dendritic cell": {"parent": "immune", "markers": "CD11c+ HLADRDPDQ+ CD68- CD14- CD3- CD20-"},
    "mast cell": {"parent": "immune", "markers": "Tryptase+"},
    "neutrophil": {"parent": "immune", "markers": "MPO+ Tryptase-"},
}

# The types of the authors of the data, Risom et al., Cell 185:299 (2022).
LINEAGE_OF: Final = {
    **dict.fromkeys(("TUMOR_LUMINAL", "TUMOR_ECADCK", "TUMOR_EMT", "TUMOR_CK5"), "tumour"),
    "MYOEP": "myoepithelium",
    **dict.fromkeys(("FIBRO_VIMonly", "MYOFIBRO", "CAF", "NORMFIBRO"), "fibroblast"),
    "ENDO": "endothelium",
    **dict.fromkeys(("CD4T", "CD8T", "TCELL", "BCELL", "MACS", "MONO", "MONODC", "DC", "APC"), "immune"),
    **dict.fromkeys(("MAST", "NEUT", "IMMUNEOTHER"), "immune"),
}
SUBTYPE_OF: Final = {  # those that the signatures tell apart
    **dict.fromkeys(("CD4T", "CD8T", "TCELL"), "T cell"),
    "BCELL": "B cell",
    **dict.fromkeys(("MACS", "MONO"), "macrophage"),
    "DC": "dendritic cell",
    "MAST": "mast cell",
    "NEUT": "neutrophil",
}
SPILLOVER: Final = (("CD3", "CD20"), ("PanKRT", "CD45"))  # markers of different cells


def compare(runs: Mapping[tuple[str, int], AnnData], cells: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Make all tables of the cells that have a centre and a mask.

    Parameters
    ----------
    runs
        Tables with clusters and types, by workflow and run.
    cells
        Rows of the table of centres, with the name of the mask in `matched`, and the published types.
    """
    types = collect(runs, cells["matched"])
    published, published_type = (cells[key].astype(object) for key in (PUBLISHED, PUBLISHED_TYPE))
    clusters = types.columns.get_level_values("by") == CLUSTERS
    names = types.loc[:, ~clusters].apply(lineages)
    votes = types.loc[:, clusters].apply(vote, published=published).rename(columns={CLUSTERS: VOTE}, level="by")
    names = pd.concat([names, votes], axis=1)
    first = types.loc[:, ~clusters].xs(0, axis=1, level="run")
    return {
        "lineages": scores(published, names),
        "each_lineage": each_type(published, first.apply(lineages)),
        "each_subtype": each_type(published_type.map(SUBTYPE_OF), first.apply(subtypes)),
        "agreement": pairs(published, names),
        "spillover": spillover(runs, cells["matched"]),
    }


def collect(runs: Mapping[tuple[str, int], AnnData], matched: pd.Series) -> pd.DataFrame:
    """Clusters and types of the matched cells, a column for each workflow, run, way of naming and resolution."""
    columns = {}
    for (workflow, run), adata in runs.items():
        obs = rows_of(adata, workflow, matched).obs
        for by, resolution in product((CLUSTERS, BY_CLUSTER, BY_CELL), RESOLUTIONS):
            columns[workflow, run, by, resolution] = obs[f"{by} {resolution}"].astype(object).to_numpy()
    return pd.DataFrame(columns, index=matched.index).rename_axis(["workflow", "run", "by", "resolution"], axis=1)


def rows_of(adata: AnnData, workflow: str, matched: pd.Series) -> AnnData:
    """The matched cells in the table of a workflow."""
    return adata[matched.index if workflow == OURS else matched.astype(str)]


def lineages(types: pd.Series) -> pd.Series:
    """Lineage of each type; `UNNAMED` without one, or between two."""
    return types.map(lambda name: _at_level(name, 0))


def subtypes(types: pd.Series) -> pd.Series:
    """Subtype of each type, such as T cell for CD4 T; `UNNAMED` without one, or between two."""
    return types.map(lambda name: _at_level(name, 1))


def _at_level(name: str, level: int) -> str:
    """The one type at a level of the hierarchy that a name, or both names in "A or B", belong to."""
    paths = [_path(each) for each in name.split(" or ")]
    found = {path[level] if len(path) > level else UNNAMED for path in paths}
    return found.pop() if len(found) == 1 else UNNAMED


def _path(name: str) -> list[str]:
    """A type after its parents, the lineage first; empty for other names."""
    signature = SIGNATURES.get(name, "")
    parents = _path(signature["parent"]) if isinstance(signature, dict) else []
    return [*parents, name] if signature else []


def vote(clusters: pd.Series, published: pd.Series) -> pd.Series:
    """Name each cluster by the most frequent published lineage of its cells."""
    most = pd.crosstab(clusters, published).idxmax(axis=1)
    return clusters.map(most).fillna(UNNAMED)


def scores(published: pd.Series, names: pd.DataFrame) -> pd.DataFrame:
    """How well each column of lineages agrees with the published ones."""
    return pd.DataFrame({key: agree(published, column) for key, column in names.items()}).T.rename_axis(
        names.columns.names
    )


def pairs(published: pd.Series, names: pd.DataFrame) -> pd.DataFrame:
    """How well lineages of two runs agree: of two workflows, and of each workflow with its reruns.

    Where both name a cell and differ, the last columns are how often the first and the second are as published.
    """
    workflows, (first, *reruns) = (names.columns.unique(level) for level in ("workflow", "run"))
    compared = [((OURS, first), (other, first)) for other in workflows if other != OURS]
    compared += [((own, first), (own, run)) for own in workflows for run in reruns]
    rows = {}
    for (left, right), by, resolution in product(compared, (BY_CLUSTER, BY_CELL, VOTE), RESOLUTIONS):
        one, other = (names[(*run, by, resolution)] for run in (left, right))
        differ = published.notna() & (one != other) & (one != UNNAMED) & (other != UNNAMED)
        rows[f"{left[0]} {left[1]}, {right[0]} {right[1]}", by, resolution] = agree(one, other) | {
            "differ": differ.sum(),
            "first as published": (one == published)[differ].mean(),
            "second as published": (other == published)[differ].mean(),
        }
    return pd.DataFrame(rows).T.rename_axis(["runs", "by", "resolution"])


def agree(one: pd.Series, other: pd.Series) -> dict[str, float]:
    """How well two lists of lineages agree, in the cells that are in both.

    Share of the cells with the same name, where `UNNAMED` is a name as any other, and kappa; share of the cells that
    are named in both, and how many of these have the same name.
    """
    whole = nm.metrics.agreement(_table(one=one, other=other), "one", "other").iloc[0]
    known = one.notna() & other.notna()
    named = known & (one != UNNAMED) & (other != UNNAMED)
    return {
        "same": whole["accuracy"],
        "kappa": whole["kappa"],
        "named": named.sum() / known.sum(),
        "same, of named": (one == other)[named].mean(),
        "cells": known.sum(),
    }


def each_type(published: pd.Series, names: pd.DataFrame) -> pd.DataFrame:
    """Recall and precision of each type, (columns of `names` x scores, types with their number of cells)."""
    rows = {}
    for key, column in names.items():
        table = nm.metrics.agreement(_table(one=published, other=column), "one", "other", per_type=True)
        header = [f"{name} ({size:,})" for name, size in zip(table["type"], table["n_cells"], strict=True)]
        rows |= {(*key, score): pd.Series(table[score].to_numpy(), header) for score in ("recall", "precision")}
    return pd.DataFrame(rows).T.rename_axis([*names.columns.names, "score"])


def spillover(runs: Mapping[tuple[str, int], AnnData], matched: pd.Series) -> pd.DataFrame:
    """Share of the matched cells that are positive for both markers of a pair, first run of each workflow."""
    shares = {
        (workflow, resolution): both_positive(rows_of(adata, workflow, matched), f"{BY_CLUSTER} {resolution}")
        for (workflow, run), adata in runs.items()
        for resolution in RESOLUTIONS
        if run == 0
    }
    return pd.DataFrame(shares).T.rename_axis(["workflow", "resolution"])


def both_positive(adata: AnnData, key: str) -> dict[str, float]:
    """Share of cells above the thresholds that `nm.tl.annotate` used: for each marker, both, and both of either."""
    record: Mapping[str, Any] = adata.uns["nextmarker"][f"annotate_{key}"]
    thresholds = record["thresholds"].drop_duplicates("marker").set_index("marker")["threshold"]
    values = adata.to_df(record["layer"])
    shares = {}
    for pair in SPILLOVER:
        one, other = (values[marker] > thresholds[marker] for marker in pair)
        both, either = one & other, one | other
        name = " and ".join(pair)
        shares |= {pair[0]: one.mean(), pair[1]: other.mean(), name: both.mean()}
        shares[f"{name}, of either"] = both.sum() / either.sum()
    return shares


def transfer(adata: AnnData, label_key: str, images: Sequence[str]) -> pd.DataFrame:
    """Type the cells of each image by those of all others, and compare with the label and the published lineage."""
    rows = {}
    for image in images:
        inside = (adata.obs["image"] == image).to_numpy()
        new, reference = adata[inside].copy(), adata[~inside].copy()
        nm.tl.transfer(new, reference, label_key, key_added="transferred")
        found, own, published = (new.obs[key].astype(object) for key in ("transferred", label_key, PUBLISHED))
        sure = found != "unsure"
        rows[image] = {
            "cells": new.n_obs,
            "unsure": 1 - sure.mean(),
            f"as {label_key}, of sure": (found == own)[sure & own.notna()].mean(),
            f"as {PUBLISHED}, of sure": (found == published)[sure & published.notna()].mean(),
        }
    return pd.DataFrame(rows).T


def _table(**columns: pd.Series) -> AnnData:
    return AnnData(obs=pd.DataFrame({name: np.asarray(values, object) for name, values in columns.items()}).rename(str))
