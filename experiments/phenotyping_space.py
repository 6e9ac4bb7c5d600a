"""Where the cells of each type lie: composition of the images, neighbours, and niches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

import nextmarker as nm

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

LEAST_LINKS = 5  # expected links below which an image says little about a pair
TYPES = "cell_type"
UNKNOWN, UNSURE = "unknown", "unsure"


def describe_space(sdata: SpatialData, adata: AnnData, types: str, output: Path) -> dict[str, pd.DataFrame]:
    """Describe where the cells of each type lie: tables by name, and figures in `output`.

    Parameters
    ----------
    sdata
        The images, with a table of the same cells as `adata`, which gets types, neighbours and niches.
    types
        Column of `adata.obs` with the types. Cells without a sure one are left out.
    """
    table = sdata["table"]
    names = adata.obs[types].astype(str)
    table.obs[TYPES] = names.mask(names.isin([UNKNOWN, UNSURE]) | names.str.contains(" or ")).astype("category")
    table.obsm["X_nextmarker"] = adata.obsm["X_nextmarker"]
    nm.tl.neighborhood(table, TYPES)
    nm.tl.niches(table, TYPES)
    _save(nm.pl.composition(table, TYPES), output / "composition.png")
    _save(nm.pl.neighborhood(table, sort=True)[0], output / "neighborhood.png")
    _save(nm.pl.composition(table, TYPES, by="niche"), output / "niche_composition.png")
    _save(nm.pl.composition(table, "niche"), output / "niches_of_images.png")
    _save(nm.pl.cells(sdata, "all", color="niche")[0], output / "niches.png")
    return {"composition": nm.get.composition(table, TYPES), "pairs": pairs(table), "niches": niches(table)}


def pairs(adata: AnnData) -> pd.DataFrame:
    """Median over images of the log2 ratio of each pair of types, and in how many images it is above 0."""
    table = adata.uns["neighborhood"]
    table = table[table["expected"] >= LEAST_LINKS]
    ratios = table.groupby(["cell_type", "neighbor"], observed=True)["log2_ratio"]
    summary = pd.DataFrame(
        {"median": ratios.median(), "images": ratios.size(), "above 0": (ratios.agg(lambda r: (r > 0).sum()))}
    )
    return summary.sort_values("median", ascending=False)


def niches(adata: AnnData) -> pd.DataFrame:
    """Cells and images of each niche, the share of its largest image, and its most frequent types."""
    by_niche = adata.obs.groupby("niche", observed=True)
    shares = pd.crosstab(adata.obs["niche"], adata.obs[TYPES], normalize="index")
    top = shares.apply(lambda row: ", ".join(f"{name} {share:.0%}" for name, share in row.nlargest(3).items()), axis=1)
    largest = by_niche["image"].agg(lambda images: images.value_counts(normalize=True).iloc[0])
    return pd.DataFrame({"cells": by_niche.size(), "largest image": largest, "types": top})


def _save(ax: plt.Axes, path: Path) -> None:
    ax.figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(ax.figure)
