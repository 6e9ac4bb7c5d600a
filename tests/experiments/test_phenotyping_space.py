"""Neighbours and niches of named cells."""

import numpy as np
import pytest

import nextmarker as nm
from experiments.phenotyping_space import describe_space


@pytest.mark.filterwarnings("ignore:Cells of other types", "ignore:.*niche:UserWarning")
def test_places_of_types(tmp_path):
    sdata = nm.datasets.dense_tissue(n_images=2, n_cells=250, random_state=1)
    nm.pp.detect_cells(sdata, "DNA", progress=False)
    adata = sdata["table"].copy()
    rng = np.random.default_rng(0)
    adata.obs["named"] = rng.choice(["T cell", "B cell", "unsure", "T cell or B cell"], adata.n_obs)
    adata.obsm["X_nextmarker"] = rng.normal(size=(adata.n_obs, 4)).astype(np.float32)
    tables = describe_space(sdata, adata, "named", tmp_path)
    assert set(tables["composition"]["cell_type"]) == {"T cell", "B cell"}
    assert tables["niches"]["cells"].sum() == adata.n_obs
    assert tables["pairs"]["images"].max() == 2
    assert {"niches.png", "neighborhood.png", "composition.png"} <= {path.name for path in tmp_path.iterdir()}
