"""The steps of the commands: analyse images, save the results, print the clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nextmarker as nm
from nextmarker import _keys

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

LEAST_IMAGES = 3
"""With fewer images, none can be called unusual."""
UNUSUAL = 6.0
"""Images are printed if the z of a marker is larger."""
NAMED = 3
"""Largest number of images, and of markers of each, that are printed."""


def analyse(
    sdata: SpatialData,
    nuclear_channels: list[str],
    markers: list[str] | None = None,
    patch_size: float | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Detect, embed and cluster the cells, and explain the clusters."""
    nm.pp.detect_cells(sdata, nuclear_channels=nuclear_channels, markers=markers)
    model = nm.tl.train(sdata, patch_size, random_state=seed, device=device)
    nm.tl.embed(sdata, model, device=device)
    nm.tl.cluster(sdata[_keys.TABLE], random_state=seed)
    nm.tl.marker_attribution(sdata[_keys.TABLE])


def save(sdata: SpatialData, folder: Path) -> None:
    """Write the store and the figures into the folder from `results_in`."""
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")  # no screen needed
    adata = sdata[_keys.TABLE]
    drawings = {
        "cells": nm.pl.cells(sdata, color=_keys.CLUSTERS),
        "training": nm.pl.training(adata),
        "normalization": nm.pl.normalization(sdata),
        "marker_attribution": nm.pl.marker_attribution(adata),
        "patches": nm.pl.patches(sdata),
    }
    for name, drawing in drawings.items():
        axes = np.asarray(drawing, dtype=object)
        axes.flat[0].figure.savefig(folder / "figures" / f"{name}.png", dpi=150, bbox_inches="tight")
    nm.io.write(sdata, folder / "store")


def print_clusters(sdata: SpatialData, true_type: pd.Series | None = None) -> None:
    """Print one line per cluster: its size, the image with most of its cells, and its top markers."""
    import pandas as pd

    from nextmarker._record import read_record

    adata = sdata[_keys.TABLE]
    clusters = adata.obs[_keys.CLUSTERS].astype(str)
    table = clusters.value_counts().rename("cells").to_frame()
    if true_type is not None:
        table["true type"] = true_type.fillna("none").groupby(clusters).agg(lambda types: types.mode().iloc[0])
    record = read_record(adata, _keys.CLUSTER_STEP)
    if "largest_image" in record:
        shares = zip(record["largest_image_share"], record["largest_image"], strict=True)
        largest = [f"{100 * share:.0f} % {image}" for share, image in shares]
        table["largest image"] = pd.Series(largest, index=adata.obs[_keys.CLUSTERS].cat.categories)
    top = nm.get.top_markers(adata).astype(str)
    table["top markers"] = top.groupby("cluster")["marker"].agg(", ".join)
    print(f"\n{adata.n_obs} cells in {len(sdata.images)} images, {len(table)} clusters")
    print(table.rename_axis("cluster").to_string())
    _print_unusual_images(adata)


def _print_unusual_images(adata: AnnData) -> None:
    """Print the images in which markers are much brighter or dimmer than in the others."""
    if adata.obs[_keys.IMAGE].nunique() < LEAST_IMAGES:
        return
    table = nm.get.unusual_images(adata)
    table = table[table["z"].abs() > UNUSUAL]
    markers = table.astype(str).groupby("image", sort=False)["marker"].agg(lambda names: ", ".join(names.head(NAMED)))
    if len(markers):
        named = "; ".join(f"{image} ({names})" for image, names in markers.head(NAMED).items())
        more = f" and {len(markers) - NAMED} more" if len(markers) > NAMED else ""
        print(f"Markers differ from other images in {named}{more}: nm.pl.unusual_images shows them.")
