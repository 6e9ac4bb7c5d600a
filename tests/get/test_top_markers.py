import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from spatialdata import SpatialData

import nextmarker as nm

MARKERS = ["CD3", "HLA-DR/DP", "Ki 67", "p53.2"]
N_FEATURES, N_EMBEDDING = 8, 16


@pytest.fixture
def adata() -> AnnData:
    """Three types, embedded: "T/NK" with marker 0, "B cell" with markers 1 and 2, "other" with none."""
    rng = np.random.default_rng(0)
    cell_type = np.repeat(["T/NK", "B cell", "other"], [30, 20, 10])
    level = {"T/NK": [5, 0, 0, 0.1], "B cell": [0, 4, 2, 0.1], "other": [0, 0, 0, 0.1]}
    features = np.array([level[name] for name in cell_type])[:, :, None] * rng.uniform(0.5, 1.5, (60, 4, N_FEATURES))
    weights = rng.normal(size=(4, N_EMBEDDING, N_FEATURES))
    return AnnData(
        obs=pd.DataFrame(
            {"nextmarker": pd.Categorical(cell_type, categories=["T/NK", "B cell", "other"])},
            index=[f"cell{i}" for i in range(60)],
        ),
        var=pd.DataFrame(index=MARKERS),
        obsm={
            "X_nextmarker": np.einsum("nmf,mef->ne", features, weights),
            "X_interpretability": features.reshape(60, -1),
        },
        layers={"interpretability": features.mean(2)},
        varm={"nextmarker_crosstalk": weights.reshape(4, -1)},
    )


def test_own_markers_come_first(adata):
    nm.tl.marker_attribution(adata)
    top = nm.get.top_markers(adata, n=2)
    names = {name: rows["marker"].tolist() for name, rows in top.groupby("cluster", observed=True)}
    assert names["T/NK"][0] == "CD3"
    assert set(names["B cell"]) == {"HLA-DR/DP", "Ki 67"}
    assert (top["mean"] > top["mean_elsewhere"]).all()


def test_markers_that_contribute_next_to_nothing_are_left_out(adata):
    nm.tl.marker_attribution(adata)
    table = adata.uns["marker_attribution"]
    t_cells = table["cluster"] == "T/NK"
    table.loc[t_cells, "mean"] = table["mean_elsewhere"] + 1  # all are higher
    table.loc[t_cells, "contribution"] = [0.95, 0.03, 0.019, 0.001]
    top = nm.get.top_markers(adata, n=4)
    assert top.loc[top["cluster"] == "T/NK", "contribution"].tolist() == [0.95, 0.03]


def test_a_single_cluster_has_none(adata):
    adata.obs["nextmarker"] = pd.Categorical(["all"] * 60)
    nm.tl.marker_attribution(adata)
    assert nm.get.top_markers(adata).empty


def test_takes_spatialdata(adata):
    sdata = SpatialData(tables={"other": adata})
    nm.tl.marker_attribution(sdata, table_key="other", key_added="shares")
    top = nm.get.top_markers(sdata, 1, key="shares", table_key="other")
    assert top["marker"].tolist()[:2] == ["CD3", "HLA-DR/DP"]


def test_before_attribution(adata):
    with pytest.raises(KeyError, match="nm.tl.marker_attribution"):
        nm.get.top_markers(adata)


def test_clusters_computed_again_have_none(adata):
    nm.tl.marker_attribution(adata)
    adata.obs["nextmarker"] = pd.Categorical(["0"] * 60)
    with pytest.raises(ValueError, match=r"other clusters.*nm.tl.marker_attribution"):
        nm.get.top_markers(adata)


def test_renamed_clusters_have_their_new_names(adata):
    nm.tl.marker_attribution(adata)
    before = nm.get.top_markers(adata)
    adata.obs["nextmarker"] = adata.obs["nextmarker"].cat.rename_categories({"T/NK": "T", "B cell": "B"})
    after = nm.get.top_markers(adata)
    assert after["cluster"].cat.categories.tolist() == ["T", "B", "other"]
    assert after["marker"].tolist() == before["marker"].tolist()
