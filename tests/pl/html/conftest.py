"""Tissue of six patients whose neighbours, niches and groups are known."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from geopandas import GeoDataFrame
from shapely import points
from spatialdata import SpatialData
from spatialdata.models import Image2DModel, ShapesModel, TableModel

from nextmarker._regions import read_regions
from nextmarker.pl.html.source import Source

HEIGHT, WIDTH = 12, 24
SHARES = {"P1": 0.5, "P2": 0.6, "P3": 0.55, "P4": 0.25, "P5": 0.2, "P6": 0.3}  # of the image that is tumour


@pytest.fixture
def tissue() -> SpatialData:
    """T and B cells alternate on the right of each image, tumour cells are on the left, more of them in cases."""
    y, x = (each.ravel() for each in np.indices((HEIGHT, WIDTH)))
    images, shapes, obs = {}, {}, []
    for image, share in SHARES.items():
        kinds = np.where(x < share * WIDTH, "tumour", np.where((x + y) % 2, "T", "B"))
        circles = GeoDataFrame({"geometry": points(x + 0.5, y + 0.5), "radius": 0.4})
        shapes[f"cells_{image}"] = ShapesModel.parse(circles)
        images[image] = Image2DModel.parse(
            np.zeros((1, HEIGHT, WIDTH), np.uint8), dims=("c", "y", "x"), c_coords=["DNA"]
        )
        own = {"region": f"cells_{image}", "instance_id": np.arange(len(x)), "image": image, "cell_type": kinds}
        obs.append(pd.DataFrame(own | {"patient": image, "group": "case" if share > 0.4 else "control"}))
    table = pd.concat(obs, ignore_index=True)
    table = table.set_axis(table.index.astype(str)).astype({"region": "category", "cell_type": "category"})
    positions = np.tile(np.column_stack([x, y]) + 0.5, (len(SHARES), 1))
    adata = anndata.AnnData(obs=table, var=pd.DataFrame(index=["DNA"]), obsm={"spatial": positions})
    parsed = TableModel.parse(adata, region=list(shapes), region_key="region", instance_key="instance_id")
    return SpatialData(images=images, shapes=shapes, tables={"table": parsed})


@pytest.fixture
def source(tissue) -> Source:
    return Source(tissue, tissue["table"], read_regions(tissue, "table"), "nextmarker", [], "table")
