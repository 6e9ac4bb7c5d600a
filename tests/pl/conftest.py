from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from geopandas import GeoDataFrame
from shapely import points
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel

import nextmarker as nm
from tests.copies import made_once

MARKERS = ["DNA", "CD3", "HLA-DR/DP", "Ki 67"]
SHAPES = {"left": (60, 90), "right": (50, 120)}  # height, width
N_FEATURES, N_EMBEDDING = 8, 16


@pytest.fixture
def sdata() -> SpatialData:
    return make_sdata()


@pytest.fixture(scope="session")
def new_sdata() -> Callable[[], SpatialData]:
    """Makes such objects for fixtures of a whole module."""
    return make_sdata


@made_once
def make_sdata() -> SpatialData:
    """Two images, 40 cells in three clusters; all that embed, cluster and marker_attribution write."""
    rng = np.random.default_rng(0)
    images, shapes, obs = {}, {}, []
    for image, (height, width) in SHAPES.items():
        centres = np.column_stack([rng.uniform(0, width, 20), rng.uniform(0, height, 20)])
        counts = rng.poisson(2, size=(len(MARKERS), height, width)).astype(np.uint16)
        images[image] = Image2DModel.parse(counts, dims=("c", "y", "x"), c_coords=MARKERS, chunks=(1, 32, 32))
        circles = GeoDataFrame({"geometry": points(centres), "radius": 3.0})
        shapes[f"cells_{image}"] = ShapesModel.parse(circles)
        obs.append(pd.DataFrame({"region": f"cells_{image}", "instance_id": np.arange(20), "image": image}))
    obs = pd.concat(obs, ignore_index=True).set_axis([f"cell{i}" for i in range(40)])
    obs["region"] = obs["region"].astype("category")
    cluster = rng.permutation(np.repeat([0, 1, 2], [20, 15, 5]))
    obs["nextmarker"] = pd.Categorical.from_codes(cluster, ["0", "1", "2"])
    obs["area"] = rng.uniform(20, 40, 40)

    level = np.array([[1, 4, 0, 0], [1, 0, 3, 0], [1, 0, 0, 2]])[cluster]
    features = level[:, :, None] * rng.uniform(0.5, 1.5, size=(40, len(MARKERS), N_FEATURES))
    weights = rng.normal(size=(len(MARKERS), N_EMBEDDING, N_FEATURES))
    adata = TableModel.parse(
        embedded(obs, features, weights), region=list(shapes), region_key="region", instance_key="instance_id"
    )
    centre = np.array([2.0, 3.0, 4.0, 5.0])
    adata.uns["nextmarker"] = {
        "detect_cells": {"nuclear_channels": np.array(["DNA"], dtype=object)},
        "embed": {
            "markers": np.array(MARKERS, dtype=object),
            "patch_size": 11,
            "axis": "linear",
            "x_c": centre,
            "slope": 2 / centre,
            "x_c_start": centre * 0.8,
            "slope_start": 2.5 / centre,
        },
        "train": {"loss": np.linspace(5, 3, 60), "random_loss": 6.2, "learning_rates": np.linspace(0, 1e-3, 60)},
    }
    nm.tl.marker_attribution(adata)
    return SpatialData(images=images, shapes=shapes, tables={"table": adata})


def embedded(obs, features, weights) -> AnnData:
    return AnnData(
        obs=obs,
        var=pd.DataFrame(index=MARKERS),
        obsm={
            "X_nextmarker": np.einsum("nmf,mef->ne", features, weights) + 0.5,
            "X_interpretability": features.reshape(len(features), -1),
        },
        layers={"interpretability": features.mean(2)},
        varm={"nextmarker_crosstalk": weights.reshape(len(weights), -1)},
    )
