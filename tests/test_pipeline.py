"""The main job on tissue with known truth, and what other packages do with its result."""

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata as sd
import squidpy as sq
from anndata import read_h5ad
from sklearn.metrics import adjusted_rand_score

import nextmarker as nm
from nextmarker._regions import read_regions


def true_types(sdata):
    """Type of the cell under each centre."""
    types = pd.Series(index=sdata["table"].obs_names, dtype=object)
    for region in read_regions(sdata):
        column, row = np.floor(region.centres).astype(int).T
        label = sdata.labels[f"masks_{region.image}"].to_numpy()[row, column]
        types.iloc[region.rows] = sdata.shapes[f"truth_{region.image}"]["cell_type"].reindex(label).to_numpy()
    return types


@pytest.fixture(scope="module")
def tissue():
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=250)
    nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], progress=False)
    model = nm.tl.train(sdata, training=nm.nn.TrainingConfig(steps=60, batch_size=64), progress=False)
    nm.tl.embed(sdata, model, progress=False)
    nm.tl.cluster(sdata)
    nm.tl.marker_attribution(sdata)
    return sdata


def test_clusters_are_the_true_types(tissue):
    types, clusters = true_types(tissue), tissue["table"].obs["nextmarker"]
    assert types.notna().mean() > 0.98
    assert adjusted_rand_score(types[types.notna()], clusters[types.notna()]) >= 0.9


def test_attribution_names_the_markers_of_the_type_first(tissue):
    types = true_types(tissue)
    top = nm.get.top_markers(tissue, n=1)
    for cluster, marker in zip(top["cluster"], top["marker"], strict=True):
        majority = types[tissue["table"].obs["nextmarker"] == cluster].mode()[0]
        assert marker in nm.datasets.TISSUE_TYPES[majority], (cluster, majority)


def use_downstream(adata):
    """What a user of squidpy and scanpy does next, with no key renamed and no column repaired."""
    sq.gr.spatial_neighbors_knn(adata, library_key="region")
    sq.gr.nhood_enrichment(adata, cluster_key="nextmarker", n_perms=10, show_progress_bar=False)
    sc.tl.umap(adata, neighbors_key="nextmarker_neighbors", maxiter=5)
    sc.pl.umap(adata, color=["nextmarker", "CD3"], show=False)
    n_clusters = adata.obs["nextmarker"].nunique()
    assert adata.uns["nextmarker_nhood_enrichment"]["zscore"].shape == (n_clusters, n_clusters)


def equal(ours, theirs):
    for slot, key in [("obsm", "X_nextmarker"), ("obsm", "X_interpretability"), ("obsm", "spatial")]:
        np.testing.assert_array_equal(getattr(ours, slot)[key], getattr(theirs, slot)[key])
    np.testing.assert_array_equal(ours.layers["interpretability"], theirs.layers["interpretability"])
    pd.testing.assert_frame_equal(ours.obs, theirs.obs, check_categorical=True)
    pd.testing.assert_frame_equal(ours.uns["marker_attribution"], theirs.uns["marker_attribution"])
    np.testing.assert_array_equal(ours.uns["nextmarker"]["train"]["loss"], theirs.uns["nextmarker"]["train"]["loss"])
    assert (ours.obsp["nextmarker_connectivities"] != theirs.obsp["nextmarker_connectivities"]).nnz == 0


def test_squidpy_and_scanpy_go_on(tissue):
    use_downstream(tissue["table"].copy())


def test_written_as_zarr_and_read_again(tissue, tmp_path):
    tissue.write(tmp_path / "tissue.zarr")
    again = sd.read_zarr(tmp_path / "tissue.zarr")
    equal(again["table"], tissue["table"])
    use_downstream(again["table"])
    nm.pl.marker_attribution(again)
    nm.pl.normalization(again)
    nm.tl.marker_attribution(again)


def test_written_as_h5ad_and_read_again(tissue, tmp_path):
    tissue["table"].write_h5ad(tmp_path / "table.h5ad")
    again = read_h5ad(tmp_path / "table.h5ad")
    equal(again, tissue["table"])
    use_downstream(again)
    nm.tl.marker_attribution(again)


def test_spatialdata_plot_draws_the_clusters(tissue):
    import spatialdata_plot  # noqa: F401

    tissue.pl.render_shapes("cells_tissue_1", color="nextmarker").pl.show("tissue_1")
