import copy

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from anndata import AnnData, concat, read_h5ad, read_zarr

import nextmarker as nm
from nextmarker.tl import marker_attribution

MARKERS = ["CD3", "HLA-DR/DP", "Ki 67", "p53.2"]
N_FEATURES, N_EMBEDDING = 8, 16


def embed(interpretability: np.ndarray, weights: np.ndarray) -> dict:
    """What nm.tl.embed writes, from I (cells, markers, features) and W (markers, embedding, features)."""
    return {
        "obsm": {
            "X_nextmarker": np.einsum("nmf,mef->ne", interpretability, weights) + 0.5,
            "X_interpretability": interpretability.reshape(len(interpretability), -1).astype(np.float32),
        },
        "layers": {"interpretability": interpretability.mean(2).astype(np.float32)},
        "varm": {"nextmarker_crosstalk": weights.reshape(len(weights), -1)},
    }


@pytest.fixture
def adata() -> AnnData:
    """Three types: "T/NK" with marker 0, "B cell" with markers 1 and 2, "other" with none."""
    rng = np.random.default_rng(0)
    cell_type = np.repeat(["T/NK", "B cell", "other"], [30, 20, 10])
    level = {"T/NK": [5, 0, 0, 0.1], "B cell": [0, 4, 2, 0.1], "other": [0, 0, 0, 0.1]}
    mean = np.array([level[name] for name in cell_type])
    interpretability = mean[:, :, None] * rng.uniform(0.5, 1.5, size=(60, 4, N_FEATURES))
    return AnnData(
        obs=pd.DataFrame(
            {
                "nextmarker": pd.Categorical(cell_type, categories=["T/NK", "B cell", "other"]),
                "patient": rng.choice(["p1", "p2"], 60),
            },
            index=[f"cell{i}" for i in range(60)],
        ),
        var=pd.DataFrame(index=MARKERS),
        **embed(interpretability, rng.normal(size=(4, N_EMBEDDING, N_FEATURES))),
    )


def wide(adata: AnnData, column: str, key: str = "marker_attribution") -> pd.DataFrame:
    return adata.uns[key].pivot(index="cluster", columns="marker", values=column)


def test_mean_is_the_average_activation(adata):
    marker_attribution(adata)
    cells = pd.DataFrame(adata.layers["interpretability"], columns=MARKERS)
    clusters = adata.obs["nextmarker"].to_numpy()
    mean = wide(adata, "mean")
    assert mean.index.tolist() == ["T/NK", "B cell", "other"]
    assert mean.columns.tolist() == MARKERS
    np.testing.assert_allclose(mean, cells.groupby(clusters, sort=False).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        wide(adata, "mean_elsewhere").loc["B cell"], cells[clusters != "B cell"].mean(), rtol=1e-5
    )


def test_sizes(adata):
    marker_attribution(adata)
    assert adata.uns["marker_attribution"].groupby("cluster", observed=True)["n_cells"].first().tolist() == [30, 20, 10]


def test_contributions_split_the_difference_of_the_embeddings(adata):
    marker_attribution(adata)
    contribution = wide(adata, "contribution")
    np.testing.assert_allclose(contribution.sum(axis=1), 1)
    inside = (adata.obs["nextmarker"] == "B cell").to_numpy()
    embedding, flat = adata.obsm["X_nextmarker"], adata.obsm["X_interpretability"]
    d = embedding[inside].mean(0) - embedding[~inside].mean(0)
    for m, marker in enumerate(MARKERS):
        weights = adata.varm["nextmarker_crosstalk"][m].reshape(N_EMBEDDING, N_FEATURES)
        block = flat[:, m * N_FEATURES : (m + 1) * N_FEATURES]
        share = d @ weights @ (block[inside].mean(0) - block[~inside].mean(0)) / (d @ d)
        assert contribution.loc["B cell", marker] == pytest.approx(share, rel=1e-4)


def test_removing_a_marker_takes_its_share_away(adata):
    """The share is what the projection of d onto itself loses when the marker's features are set to their elsewhere."""
    marker_attribution(adata)
    inside = (adata.obs["nextmarker"] == "T/NK").to_numpy()
    flat = adata.obsm["X_interpretability"].copy()
    flat[inside, :N_FEATURES] = flat[~inside, :N_FEATURES].mean(0)
    weights = adata.varm["nextmarker_crosstalk"].reshape(4, N_EMBEDDING, N_FEATURES)
    without = np.einsum("nmf,mef->ne", flat.reshape(60, 4, N_FEATURES), weights)
    before = adata.obsm["X_nextmarker"]
    d = before[inside].mean(0) - before[~inside].mean(0)
    d_without = without[inside].mean(0) - without[~inside].mean(0)
    share = wide(adata, "contribution").loc["T/NK", "CD3"]
    assert (d @ (d - d_without)) / (d @ d) == pytest.approx(share, rel=1e-4)


@torch.inference_mode()
def test_shares_equal_a_recomputation_of_f_by_the_model(tissue, model):
    """The share of every marker in every cluster, from F made anew with I of the marker as it is elsewhere."""
    nm.tl.embed(tissue, model, progress=False)
    cells = tissue["table"]
    cells.obs["group"] = pd.Categorical(np.resize(["a", "b", "b", "c"], cells.n_obs))
    marker_attribution(cells, groupby="group")
    shares = wide(cells, "contribution")
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    model = copy.deepcopy(model).double()  # differences of means are small beside F
    features = torch.from_numpy(cells.obsm["X_interpretability"].reshape(-1, 3, N_FEATURES)).double()
    for cluster in "abc":
        inside = torch.from_numpy((cells.obs["group"] == cluster).to_numpy())
        difference = {}
        for m in (None, 0, 1, 2):
            replaced = features.clone()
            if m is not None:
                replaced[inside, m] = features[~inside, m].mean(0)
            embedding = model.crosstalk(replaced.flatten(1))
            difference[m] = embedding[inside].mean(0) - embedding[~inside].mean(0)
        d = difference.pop(None)
        for m, without in difference.items():
            lost = (d @ (d - without) / (d @ d)).item()
            assert shares.loc[cluster, cells.var_names[m]] == pytest.approx(lost, abs=1e-4)


def test_fraction_above_the_median(adata):
    marker_attribution(adata)
    activation = adata.layers["interpretability"]
    positive = activation > np.median(activation, axis=0)
    np.testing.assert_allclose(wide(adata, "fraction").loc["T/NK"], positive[:30].mean(0))


def test_fraction_above_given_thresholds(adata):
    activation = adata.layers["interpretability"]
    marker_attribution(adata, threshold=3, key_added="number")
    np.testing.assert_allclose(wide(adata, "fraction", "number").loc["B cell"], (activation[30:50] > 3).mean(0))
    marker_attribution(adata, threshold={"HLA-DR/DP": 4.0}, key_added="mapping")
    thresholds = np.median(activation, axis=0)
    thresholds[1] = 4.0
    np.testing.assert_allclose(
        wide(adata, "fraction", "mapping").loc["B cell"], (activation[30:50] > thresholds).mean(0)
    )
    np.testing.assert_allclose(adata.uns["nextmarker"]["marker_attribution_mapping"]["threshold"], thresholds)


def test_cells_without_category_are_left_out(adata):
    reference = adata[10:].copy()
    adata.obs.loc[adata.obs_names[:10], "nextmarker"] = np.nan
    for table in (adata, reference):
        table.obs["nextmarker"] = table.obs["nextmarker"].cat.add_categories("empty")
        marker_attribution(table, threshold=1)
    pd.testing.assert_frame_equal(adata.uns["marker_attribution"], reference.uns["marker_attribution"])
    assert "empty" not in adata.uns["marker_attribution"]["cluster"].cat.categories


def test_numbers_as_categories(adata):
    adata.obs["number"] = pd.Categorical(np.repeat([10, 9], 30))
    marker_attribution(adata, groupby="number")
    assert adata.uns["marker_attribution"]["cluster"].cat.categories.tolist() == ["9", "10"]


def test_single_cluster_has_no_contribution(adata):
    adata.obs["nextmarker"] = pd.Categorical(["all"] * 60)
    marker_attribution(adata)
    assert (adata.uns["marker_attribution"]["contribution"] == 0).all()
    assert adata.uns["marker_attribution"]["mean_elsewhere"].isna().all()


@pytest.mark.parametrize("single", [False, True])
def test_survives_files_with_difficult_marker_names(adata, tmp_path, single):
    if single:
        adata.obs["nextmarker"] = pd.Categorical(["all"] * 60)
    marker_attribution(adata)
    table = adata.uns["marker_attribution"]
    adata.write_h5ad(tmp_path / "table.h5ad")
    adata.write_zarr(tmp_path / "table.zarr")
    sd.SpatialData(tables={"table": adata}).write(tmp_path / "sdata.zarr")
    for back in (
        read_h5ad(tmp_path / "table.h5ad"),
        read_zarr(tmp_path / "table.zarr"),
        sd.read_zarr(tmp_path / "sdata.zarr")["table"],
    ):
        pd.testing.assert_frame_equal(back.uns["marker_attribution"], table)
        assert list(back.uns["nextmarker"]["marker_attribution"]["markers"]) == MARKERS
        marker_attribution(back)  # its own result may be replaced
        pd.testing.assert_frame_equal(back.uns["marker_attribution"], table)


def test_takes_spatialdata(adata):
    sdata = sd.SpatialData(tables={"other": adata})
    nm.tl.marker_attribution(sdata, table_key="other", key_added="shares")
    assert wide(sdata["other"], "contribution", "shares").loc["T/NK"].idxmax() == "CD3"


@pytest.mark.parametrize("order", [slice(None, 2), [1, 0, 2, 3]])
def test_markers_chosen_or_moved_after_embedding(adata, order):
    changed = adata[:, order].copy()
    with pytest.raises(ValueError, match="'X_interpretability'.*nm.tl.embed"):
        marker_attribution(changed)
    assert "marker_attribution" not in changed.uns


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groupby": "cell_type"}, KeyError, r"'nextmarker'.*nm.tl.cluster"),
        ({"groupby": "patient"}, ValueError, r"not categorical.*astype\('category'\)"),
        ({"groupby": "nothing"}, ValueError, "in .obs.*groupby="),
        ({"threshold": {"CD4": 1.0}}, ValueError, r"'CD4'.*threshold="),
        ({"key_added": "taken"}, ValueError, "key_added"),
    ],
)
def test_bad_input(adata, arguments, error, message):
    adata.uns["taken"] = 1
    if arguments.get("groupby") == "nothing":
        adata.obs["nothing"] = pd.Categorical([np.nan] * 60, categories=["a"])
    with pytest.raises(error, match=message):
        marker_attribution(adata, **arguments)
    assert adata.uns["taken"] == 1
    assert "marker_attribution" not in adata.uns


@pytest.mark.parametrize(
    "missing", [("layers", "interpretability"), ("obsm", "X_interpretability"), ("obsm", "X_nextmarker")]
)
def test_not_embedded(adata, missing):
    slot, key = missing
    del getattr(adata, slot)[key]
    with pytest.raises(KeyError, match="nm.tl.embed"):
        marker_attribution(adata)


def test_an_attribution_does_not_touch_the_record_of_another_step(adata):
    adata.uns["nextmarker"] = {"embed": {"patch_size": 11}}
    marker_attribution(adata, key_added="embed")
    assert adata.uns["nextmarker"]["embed"] == {"patch_size": 11}


MODEL, OTHER = "0123456789abcdef", "fedcba9876543210"


def parts(adata, models=(MODEL, MODEL)) -> list[AnnData]:
    """Two tables that were embedded, clustered and explained one by one."""
    tables = [adata[::2].copy(), adata[1::2].copy()]
    for number, (table, model) in enumerate(zip(tables, models, strict=True)):
        table.obs["nextmarker_embedding"] = pd.Categorical([f"{model}-0000000{number}"] * 30)
        nm.tl.cluster(table, n_neighbors=5)
        marker_attribution(table)
        table.obs["type"] = adata.obs["nextmarker"]
    return tables


@pytest.mark.parametrize("how", [{"merge": "same"}, {"merge": "first", "uns_merge": "first"}])
def test_tables_explained_one_by_one_are_explained_together(adata, how):
    joined = concat(parts(adata), **how)
    marker_attribution(joined, groupby="type", key_added="types")
    reference = adata[joined.obs_names].copy()
    marker_attribution(reference)
    pd.testing.assert_frame_equal(joined.uns["types"], reference.uns["marker_attribution"], check_categorical=False)
    before = list(joined.uns)
    with pytest.raises(ValueError, match=r"cluster 0 of one.*nm.tl.cluster\(adata\)"):
        marker_attribution(joined)
    assert list(joined.uns) == before
    nm.tl.cluster(joined, n_neighbors=5)
    marker_attribution(joined)
    assert not nm.get.top_markers(joined).empty


def test_weights_that_were_lost_when_tables_were_joined(adata):
    with pytest.raises(KeyError, match=r"'nextmarker_crosstalk'.*anndata.concat\(tables, merge='same'\)"):
        marker_attribution(concat(parts(adata)), groupby="type")


def test_tables_of_two_models_are_refused(adata):
    with pytest.raises(ValueError, match=r"2 models.*nm.tl.embed\(sdata, model\)"):
        marker_attribution(concat(parts(adata, (MODEL, OTHER)), merge="first"), groupby="type")


@pytest.mark.parametrize("part", [slice(30, None), slice(59, None)])
def test_weights_of_another_model_do_not_explain_the_embedding(adata, part):
    """Seen from the numbers alone, though only one cell be of the other model."""
    rng = np.random.default_rng(1)
    for value in (lambda f: f[::-1], lambda f: f + 0.1 * rng.normal(size=f.shape)):
        other = adata.copy()
        other.obsm["X_nextmarker"][part] = value(other.obsm["X_nextmarker"])[part]
        with pytest.raises(ValueError, match=r"'X_nextmarker'.*nm.tl.embed"):
            marker_attribution(other)
        assert "marker_attribution" not in other.uns


def test_clusters_of_an_earlier_embedding_are_explained_with_a_warning(adata):
    adata.obs["nextmarker_embedding"] = pd.Categorical([f"{MODEL}-00000000"] * 60)
    nm.tl.cluster(adata, n_neighbors=5, key_added="mine")
    adata.obs["nextmarker_embedding"] = pd.Categorical([f"{MODEL}-00000001"] * 60)
    with pytest.warns(UserWarning, match=r"earlier embedding.*nm.tl.cluster\(adata, key_added='mine'\)"):
        marker_attribution(adata, groupby="mine")
    assert adata.uns["nextmarker"]["marker_attribution"]["embedded_as"].tolist() == [f"{MODEL}-00000001"]
    nm.get.top_markers(adata)
