import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from sklearn.metrics import davies_bouldin_score, silhouette_score
from spatialdata import SpatialData

import nextmarker as nm
from nextmarker.metrics import _shared


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    types = rng.permutation(np.repeat(["T", "B", "NK"], [150, 100, 50]))
    centres = {"T": [0, 0], "B": [6, 0], "NK": [0, 6]}
    cells = np.array([centres[kind] for kind in types]) + rng.normal(size=(300, 2))
    return AnnData(
        X=rng.normal(size=(300, 3)).astype(np.float32),
        obs=pd.DataFrame({"cell_type": types}, index=[f"cell{i}" for i in range(300)]),
        obsm={"X_nextmarker": cells},
    )


def test_by_hand():
    """Two pairs at 0, 2 and 10, 12 on a line."""
    adata = AnnData(obs=pd.DataFrame({"g": list("aabb")}, list("wxyz")), obsm={"line": np.array([[0, 2, 10, 12]]).T})
    row = nm.metrics.separation(adata, "g", use_rep="line").iloc[0]
    outer, inner = 1 - 2 / 11, 1 - 2 / 9
    assert row["silhouette"] == pytest.approx((outer + inner) / 2)
    assert row["davies_bouldin"] == pytest.approx((1 + 1) / 10)


def test_agrees_with_sklearn_in_every_representation(adata):
    table = nm.metrics.separation(adata, "cell_type")
    assert table["representation"].tolist() == ["X", "X_nextmarker"]
    for row, cells in zip(table.itertuples(), [adata.X, adata.obsm["X_nextmarker"]], strict=True):
        assert row.silhouette == pytest.approx(silhouette_score(cells, adata.obs["cell_type"]))
        assert row.davies_bouldin == pytest.approx(davies_bouldin_score(cells, adata.obs["cell_type"]))
    assert table["silhouette"].iloc[1] > 0.5 > 0.1 > table["silhouette"].iloc[0]


def test_cells_without_group_are_left_out_and_counted(adata):
    reference = nm.metrics.separation(adata[40:].copy(), "cell_type")
    adata.obs.iloc[:25, 0] = np.nan
    adata.obs.iloc[25:40, 0] = ""
    adata.obsm["X_nextmarker"][:40] = np.nan
    table = nm.metrics.separation(adata, "cell_type")
    assert table["n_cells"].tolist() == [260, 260]
    assert table["n_left_out"].tolist() == [40, 40]
    assert table["n_groups"].tolist() == [3, 3]
    pd.testing.assert_frame_equal(table.drop(columns="n_left_out"), reference.drop(columns="n_left_out"))


def test_silhouette_of_many_cells_is_that_of_a_seeded_sample(adata, monkeypatch):
    whole = nm.metrics.separation(adata, "cell_type")
    monkeypatch.setattr(_shared, "SAMPLE", 100)
    first, again, other = (nm.metrics.separation(adata, "cell_type", random_state=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert (first["silhouette"] != whole["silhouette"]).all()
    assert (first["silhouette"] != other["silhouette"]).all()
    np.testing.assert_allclose(first["silhouette"], whole["silhouette"], atol=0.06)
    pd.testing.assert_series_equal(first["davies_bouldin"], whole["davies_bouldin"])


def test_takes_spatialdata_changes_nothing_and_survives_a_file(adata, tmp_path):
    before = adata.copy()
    table = nm.metrics.separation(SpatialData(tables={"mine": adata}), "cell_type", table_key="mine")
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert (list(adata.uns), list(adata.obsm)) == (list(before.uns), list(before.obsm))
    adata.uns["separation"] = table
    adata.write_h5ad(tmp_path / "table.h5ad")
    pd.testing.assert_frame_equal(read_h5ad(tmp_path / "table.h5ad").uns["separation"], table, check_dtype=False)


def test_bad_input(adata):
    adata.obs["one"] = "same"
    adata.obs["own"] = adata.obs_names
    with pytest.raises(ValueError, match="'one'.*1 group"):
        nm.metrics.separation(adata, "one")
    with pytest.raises(ValueError, match="300 group"):
        nm.metrics.separation(adata, "own")
    with pytest.raises(KeyError, match=r"'kind'.*'cell_type'.*groupby="):
        nm.metrics.separation(adata, "kind")
    with pytest.raises(KeyError, match="X_pca"):
        nm.metrics.separation(adata, "cell_type", use_rep=["X", "X_pca"])
