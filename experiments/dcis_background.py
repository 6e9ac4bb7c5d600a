"""Real tissue with added background: effect on embeddings and on means in masks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pandas as pd

from experiments.dcis_tables import DEFAULT, mixing, representations, types, with_images

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr
    from anndata import AnnData
    from spatialdata import SpatialData

FOLDER = "background"
RATE = 0.05  # counts per pixel
SPREAD = 0.7  # standard deviation of the logarithm of the rate, over images and markers
CORRECTED = "mask minus background, square root"
SHOWN = ("mask, square root", CORRECTED, f"{DEFAULT} I", f"{DEFAULT} F")


def add_background(sdata: SpatialData, random_state: int = 0) -> SpatialData:
    """Add Poisson counts to the images, at one rate for each marker of each image."""
    rng = np.random.default_rng(random_state)
    return with_images(sdata, {name: _add_counts(image, rng) for name, image in sdata.images.items()})


def _add_counts(image: xr.DataArray, rng: np.random.Generator) -> xr.DataArray:
    rates = RATE * rng.lognormal(0, SPREAD, image.sizes["c"])
    counts = [
        channel + rng.poisson(rate, channel.shape).astype(np.uint16)
        for channel, rate in zip(image.to_numpy(), rates, strict=True)
    ]
    return image.copy(data=da.from_array(np.stack(counts)))


def background(adata: AnnData, hazy: AnnData, output: Path) -> pd.DataFrame:
    """Accuracy for types and mixing of patients, without and with background, for the same seeds."""
    with_background = _representations(hazy, output / FOLDER)
    without = _representations(adata, output)
    tables = (
        _scores(adata, {key: without[key] for key in with_background}),
        _scores(hazy, with_background).add_suffix(", with background"),
    )
    return pd.concat(tables, axis=1)


def _representations(adata: AnnData, folder: Path) -> dict[tuple[str, int], np.ndarray]:
    runs = representations(adata, folder)
    runs[CORRECTED, 0] = np.sqrt(adata.obsm["mask_minus_background"])
    return {(name, seed): runs[name, seed] for shown in SHOWN for name, seed in runs if name == shown}


def _scores(adata: AnnData, runs: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    return types(adata, runs)[["logistic", "kNN"]].assign(mixing=mixing(adata, runs)["neighbor_entropy"])
