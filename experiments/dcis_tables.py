"""The tables of ``experiments.dcis``, computed from saved embeddings."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd
from anndata import AnnData
from joblib import Parallel, delayed
from scipy import ndimage, stats
from sklearn.metrics import adjusted_rand_score
from spatialdata import SpatialData

import nextmarker as nm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import xarray as xr


DEFAULT = "nextmarker"
BLOCK = 32  # pixels
# Markers by which the authors define a type, Risom et al., Cell 185:299 (2022).
OWN_MARKERS = {
    "APC": ["HLADRDPDQ"],
    "BCELL": ["CD20", "CD45"],
    "CAF": ["FAP", "VIM"],
    "CD4T": ["CD3", "CD4", "CD45"],
    "CD8T": ["CD3", "CD8", "CD45"],
    "DC": ["CD11c", "HLADRDPDQ"],
    "ENDO": ["CD31", "VIM"],
    "FIBRO_VIMonly": ["VIM"],
    "MACS": ["CD68"],
    "MAST": ["Tryptase"],
    "MONO": ["CD14"],
    "MONODC": ["CD11c", "CD14", "HLADRDPDQ"],
    "MYOEP": ["SMA", "ECAD"],
    "MYOFIBRO": ["SMA", "VIM"],
    "NEUT": ["MPO"],
    "NORMFIBRO": ["CD36", "VIM"],
    "TCELL": ["CD3", "CD45"],
    "TUMOR_CK5": ["CK5", "ECAD", "PanKRT"],
    "TUMOR_ECADCK": ["ECAD", "PanKRT"],
    "TUMOR_EMT": ["ECAD", "PanKRT", "VIM"],
    "TUMOR_LUMINAL": ["CK7", "ECAD", "PanKRT"],
}


def all_tables(sdata: SpatialData, output: Path) -> dict[str, pd.DataFrame]:
    """Make all tables, by name, from the embeddings in a folder."""
    adata = sdata["table"]
    runs = representations(adata, output)
    return {
        "types": types(adata, runs),
        "recall": recall(adata, runs),
        "batch": batch(adata, runs),
        "stability": stability(adata, runs),
        **explanations(sdata, output),
    }


def representations(adata: AnnData, output: Path) -> dict[tuple[str, int], np.ndarray]:
    """All representations, by name and seed."""
    runs = {}
    for name in [key for key in adata.obsm if key == "mask" or key.startswith("disc")]:
        for scale, transform in (("arcsinh", np.arcsinh), ("square root", np.sqrt)):
            runs[f"{name.replace('_', ' ')}, {scale}", 0] = transform(adata.obsm[name])
    for kept in sorted(output.glob("*.npz")):
        name, seed = kept.stem.replace("_", " ").rsplit("-", 1)
        embeddings = np.load(kept)
        for letter in "IF" if name in (DEFAULT, "untrained") else "F":
            runs[f"{name} {letter}", int(seed)] = embeddings[letter]
        if name == DEFAULT:
            for letter, means in (("I", "disc 10 px"), ("F", "disc 10 px"), ("F", "mask")):
                both = np.hstack([embeddings[letter], runs[f"{means}, square root", 0]])
                runs[f"{name} {letter} + {means}", int(seed)] = both
    return runs


def types(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Accuracy for types, leaving out one patient at a time, and agreement of clusters with types."""
    rows = Parallel(n_jobs=-1)(delayed(_score)(adata.obs, values) for values in runs.values())
    index = pd.MultiIndex.from_tuples(runs, names=["representation", "seed"])
    return over_seeds(pd.DataFrame(rows, index=index))


def _score(obs: pd.DataFrame, values: np.ndarray) -> dict[str, float]:
    adata = _table(obs, values)
    logistic, knn = (nm.metrics.probe(adata, "cell_type", classifier=name).iloc[0] for name in ("logistic", "knn"))
    nm.tl.cluster(adata)
    clusters = nm.metrics.agreement(adata, "cell_type", "nextmarker").iloc[0]
    return {
        "logistic": logistic["balanced_accuracy"],
        "logistic F1": logistic["macro_f1"],
        "kNN": knn["balanced_accuracy"],
        "kNN F1": knn["macro_f1"],
        "ARI": clusters["ari"],
        "NMI": clusters["nmi"],
        "clusters": clusters["n_groups"],
    }


def recall(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Recall of each type by logistic regression, first seed."""
    shown = ["mask, arcsinh", "mask, square root", f"{DEFAULT} I", f"{DEFAULT} F"]
    probe = delayed(nm.metrics.probe)
    scores = Parallel(n_jobs=-1)(probe(_table(adata.obs, runs[name, 0]), "cell_type", per_type=True) for name in shown)
    recalls = (each.set_index("type")["recall"] for each in scores)
    table = pd.concat(dict(zip(shown, recalls, strict=True)), axis=1)
    table.insert(0, "cells", adata.obs["cell_type"].value_counts())
    return table.round(2)


def batch(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Mixing of patients within types, for masks and embeddings."""
    shown = [key for key in runs if key[0] in ("mask, arcsinh", "mask, square root") or key[0][-2:] in (" I", " F")]
    return mixing(adata, {key: runs[key] for key in shown})


def mixing(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Mixing of patients within types, averaged over types."""
    mix = delayed(nm.metrics.batch_mixing)
    scores = Parallel(n_jobs=-1)(
        mix(_table(adata.obs, values), "image", label_key="cell_type") for values in runs.values()
    )
    rows = pd.DataFrame([each.iloc[-1] for each in scores])[["silhouette", "neighbor_entropy"]].astype(float)
    return over_seeds(rows.set_axis(pd.MultiIndex.from_tuples(runs, names=["representation", "seed"])))


def stability(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """Agreement of clusterings of different seeds: as partitions, and after naming each cluster by its main type."""
    ours = [_clusters(adata, values, 0) for (name, _), values in runs.items() if name == f"{DEFAULT} F"]
    means = [_clusters(adata, runs["mask, arcsinh", 0], seed, "phenograph") for seed in range(3)]
    pairs = {
        f"nextmarker, {len(ours)} seeds": list(combinations(ours, 2)),
        "nextmarker, PhenoGraph on mask means": [(one, other) for one in ours for other in means],
        f"PhenoGraph on mask means, {len(means)} seeds": list(combinations(means, 2)),
    }
    known = adata.obs["cell_type"].notna().to_numpy()
    rows = {
        name: {
            "ARI": [adjusted_rand_score(one[known], other[known]) for one, other in each],
            "same type": [(_named(adata, one) == _named(adata, other))[known].mean() for one, other in each],
        }
        for name, each in pairs.items()
    }
    return pd.DataFrame(
        {name: {key: _mean_and_spread(pd.Series(value)) for key, value in row.items()} for name, row in rows.items()}
    ).T


def _clusters(adata: AnnData, values: np.ndarray, seed: int, backend: str = "igraph") -> np.ndarray:
    table = _table(adata.obs, values)
    default = {"resolution": 1.0} if backend == "phenograph" else {}  # PhenoGraph's default; {} is ours
    nm.tl.cluster(table, backend=backend, random_state=seed, **default)
    return table.obs["nextmarker"].to_numpy()


def _named(adata: AnnData, clusters: np.ndarray) -> np.ndarray:
    """Most frequent type in the cluster of each cell, as an expert might name the cluster."""
    main = adata.obs["cell_type"].astype(object).groupby(clusters).agg(lambda names: names.mode().get(0, "none"))
    return main.loc[clusters].to_numpy()


def explanations(sdata: SpatialData, output: Path) -> dict[str, pd.DataFrame]:
    """Whether the attribution finds the markers of types, and its faithfulness; first seed."""
    adata = sdata["table"]
    model = nm.nn.load_model(output / f"{DEFAULT}-0.safetensors")
    nm.tl.embed(sdata, model, progress=False)
    nm.tl.cluster(adata)
    nm.tl.marker_attribution(adata)
    return {"attribution": named_markers(adata), "faithfulness": faithfulness(sdata, model)}


def named_markers(adata: AnnData) -> pd.DataFrame:
    """For each type, the cluster with most of its cells, and the recall of its own markers among the top ones."""
    counts = pd.crosstab(adata.obs["cell_type"], adata.obs["nextmarker"])
    top = nm.get.top_markers(adata, n=3).astype(str).groupby("cluster")["marker"].agg(list)
    rows = {}
    for name, own in OWN_MARKERS.items():
        cluster = counts.loc[name].idxmax()
        leading = top[str(cluster)]
        rows[name] = {
            "cluster": cluster,
            "share of the type": counts.loc[name, cluster] / counts.loc[name].sum(),
            "share of the cluster": counts.loc[name, cluster] / counts[cluster].sum(),
            "leading markers": ", ".join(leading),
            "own markers": ", ".join(own),
            "recall": np.mean([marker in leading for marker in own]),
        }
    return pd.DataFrame(rows).T


def faithfulness(sdata: SpatialData, model: nm.nn.NeXtMarker) -> pd.DataFrame:
    """Rank correlation of the markers' contributions with the loss when they are removed, for each cluster.

    The loss of a marker is the part of the difference between the embeddings of the cluster and of all other cells that
    disappears if the marker's image has only background.
    """
    adata = sdata["table"]
    shares = adata.uns["marker_attribution"].pivot(index="cluster", columns="marker", values="contribution")
    full, empty = _blocks(adata), _blocks(_embed_background(sdata, model))
    crosstalk = adata.varm["nextmarker_crosstalk"].reshape(adata.n_vars, -1, full.shape[2])
    embedding = adata.obsm["X_nextmarker"]
    rows = {}
    for name in shares.index:
        inside = (adata.obs["nextmarker"].astype(str) == name).to_numpy()
        difference = _contrast(embedding, inside)
        lost = _contrast(full, inside) - _contrast(empty, inside)
        loss = np.einsum("e,mef,mf->m", difference, crosstalk, lost)
        rows[name] = {"rank correlation": stats.spearmanr(loss, shares.loc[name, adata.var_names])[0]}
    return pd.DataFrame(rows).T.describe().loc[["count", "min", "50%", "max"]].round(3)


def _contrast(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean of some cells minus the mean of all others."""
    return values[inside].mean(0) - values[~inside].mean(0)


def _blocks(adata: AnnData) -> np.ndarray:
    """I as (cells, markers, features)."""
    return adata.obsm["X_interpretability"].reshape(adata.n_obs, adata.n_vars, -1)


def _embed_background(sdata: SpatialData, model: nm.nn.NeXtMarker) -> AnnData:
    """Embed the cells in images that have only background."""
    empty = with_images(sdata, {name: draw_background(image) for name, image in sdata.images.items()})
    nm.tl.embed(empty, model, progress=False)
    return empty["table"]


def with_images(sdata: SpatialData, images: Mapping[str, xr.DataArray]) -> SpatialData:
    """Same cells, with a copy of their table, in other images."""
    tables = {"table": sdata["table"].copy()}
    return SpatialData(images=images, shapes=dict(sdata.shapes), tables=tables, attrs=dict(sdata.attrs))


def draw_background(image: xr.DataArray) -> xr.DataArray:
    """Draw random counts at the rate of the emptiest tenth of the blocks of each channel."""
    counts = image.to_numpy()
    blocks = ndimage.uniform_filter(counts.astype(float), (0, BLOCK, BLOCK))[:, ::BLOCK, ::BLOCK]
    rate = np.quantile(blocks, 0.1, axis=(1, 2))[:, None, None]
    background = np.random.default_rng(0).poisson(rate, counts.shape).astype(counts.dtype)
    return image.copy(data=da.from_array(background))


def _table(obs: pd.DataFrame, values: np.ndarray) -> AnnData:
    return AnnData(obs=obs[["image", "cell_type"]].copy(), obsm={"X_nextmarker": np.asarray(values, np.float32)})


def over_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds, and their number, as text."""
    grouped = scores.groupby(level="representation", sort=False)
    return grouped.agg(_mean_and_spread).assign(seeds=grouped.size())


def _mean_and_spread(values: pd.Series) -> str:
    spread = f" ± {values.std(ddof=0):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"
