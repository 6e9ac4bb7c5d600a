import random
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata as sd
from anndata import AnnData, concat, read_h5ad
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

import nextmarker as nm
from nextmarker.tl import cluster

SIZES = [120, 90, 60, 30]


@pytest.fixture
def adata() -> AnnData:
    """Four clear clusters of known sizes, in mixed order."""
    rng = np.random.default_rng(0)
    truth = rng.permutation(np.repeat(list("abcd"), SIZES))
    centres = rng.normal(size=(4, 20)) * 3
    embedding = centres[np.searchsorted(list("abcd"), truth)] + rng.normal(size=(len(truth), 20))
    return AnnData(
        obs=pd.DataFrame({"truth": truth}, index=[f"cell{i}" for i in range(len(truth))]),
        obsm={"X_nextmarker": embedding.astype(np.float32)},
    )


@pytest.mark.parametrize("backend", ["igraph", "leidenalg", "phenograph"])
def test_finds_the_clusters_whatever_the_backend(adata, backend):
    cluster(adata, n_neighbors=15, resolution=0.3, backend=backend)
    assert adjusted_rand_score(adata.obs["truth"], adata.obs["nextmarker"]) == 1


def test_backends_agree_where_clusters_are_not_clear(adata):
    adata.obsm["X_nextmarker"] = (
        adata.obsm["X_nextmarker"] * 0.3 + np.random.default_rng(1).normal(size=(300, 20)) * 0.6
    )
    for backend in ("igraph", "leidenalg", "phenograph"):
        cluster(adata, n_neighbors=15, backend=backend, key_added=backend)
    assert adata.obs["igraph"].nunique() > 2
    assert adjusted_rand_score(adata.obs["igraph"], adata.obs["phenograph"]) >= 0.95
    assert adjusted_rand_score(adata.obs["leidenalg"], adata.obs["phenograph"]) >= 0.95


def test_graph_and_clusters_are_those_of_the_package_phenograph(adata):
    import phenograph

    cells = np.random.default_rng(0).normal(size=(200, 6))
    adata = AnnData(obsm={"X_nextmarker": cells})
    cluster(adata, n_neighbors=12, resolution=1.0, backend="phenograph")
    theirs, graph, _ = phenograph.cluster(cells, clustering_algo="leiden", k=12, seed=0, min_cluster_size=0)
    ours = sparse.tril(adata.obsp["nextmarker_connectivities"], -1)
    assert abs(ours - graph).max() == 0
    assert (ours > 0).nnz == graph.nnz
    assert adjusted_rand_score(adata.obs["nextmarker"], theirs) == 1


def test_jaccard_of_neighbours_counted_by_hand(adata):
    cluster(adata, n_neighbors=10)
    neighbors = [set(row.indices) for row in adata.obsp["nextmarker_distances"]]
    assert all(len(others) == 10 and cell not in others for cell, others in enumerate(neighbors))
    i, j = 5, min(neighbors[5])
    jaccard = len(neighbors[i] & neighbors[j]) / len(neighbors[i] | neighbors[j])
    directions = (j in neighbors[i]) + (i in neighbors[j])
    assert adata.obsp["nextmarker_connectivities"][i, j] == pytest.approx(jaccard * directions / 2)
    assert adata.obsp["nextmarker_connectivities"][j, i] == adata.obsp["nextmarker_connectivities"][i, j]


def test_clusters_are_named_by_size(adata):
    cluster(adata, n_neighbors=15, resolution=0.3)
    clusters = adata.obs["nextmarker"]
    assert clusters.cat.categories.tolist() == ["0", "1", "2", "3"]
    assert clusters.value_counts(sort=False).tolist() == SIZES


def test_small_clusters_are_kept():
    cells = np.concatenate([np.random.default_rng(0).normal(size=(60, 3)), np.full((4, 3), 50.0)])
    adata = AnnData(obsm={"X_nextmarker": cells})
    for backend in ("igraph", "phenograph"):
        cluster(adata, n_neighbors=3, backend=backend)
        last = adata.obs["nextmarker"].iloc[-4:]
        assert last.nunique() == 1
        assert (adata.obs["nextmarker"] == last.iloc[0]).sum() == 4


@pytest.mark.parametrize("backend", ["igraph", "leidenalg"])
def test_same_seed_same_clusters(backend):
    cells = np.random.default_rng(3).normal(size=(300, 4))
    first, second = AnnData(obsm={"X_nextmarker": cells}), AnnData(obsm={"X_nextmarker": cells})
    random.seed(1)
    cluster(first, n_neighbors=10, backend=backend, random_state=7)
    random.seed(2)
    np.random.seed(2)  # noqa: NPY002
    cluster(second, n_neighbors=10, backend=backend, random_state=7)
    pd.testing.assert_series_equal(first.obs["nextmarker"], second.obs["nextmarker"])


def test_global_random_state_is_left_alone(adata):
    import igraph

    def draw():
        random.seed(5)
        return igraph.Graph.Erdos_Renyi(20, 0.5).get_edgelist()

    before = draw()
    state = random.getstate()
    cluster(adata)
    assert random.getstate() == state
    assert draw() == before


def test_scanpy_reads_the_graph(adata):
    cluster(adata, n_neighbors=15)
    sc.tl.leiden(adata, neighbors_key="nextmarker_neighbors", flavor="igraph", n_iterations=2, directed=False)
    assert adjusted_rand_score(adata.obs["truth"], adata.obs["leiden"]) > 0.9
    sc.tl.umap(adata, neighbors_key="nextmarker_neighbors", maxiter=5)
    assert adata.obsm["X_umap"].shape == (300, 2)


def test_results_survive_a_file(adata, tmp_path):
    cluster(adata)
    adata.write_h5ad(tmp_path / "table.h5ad")
    back = read_h5ad(tmp_path / "table.h5ad")
    pd.testing.assert_series_equal(back.obs["nextmarker"], adata.obs["nextmarker"])
    for name in ("nextmarker_connectivities", "nextmarker_distances"):
        assert isinstance(back.obsp[name], sparse.csr_matrix)
        assert abs(back.obsp[name] - adata.obsp[name]).max() == 0
    assert back.uns["nextmarker_neighbors"]["connectivities_key"] == "nextmarker_connectivities"
    assert back.uns["nextmarker"]["cluster"]["backend"] == "igraph"


def test_takes_spatialdata(adata):
    sdata = sd.SpatialData(tables={"other": adata})
    nm.tl.cluster(sdata, table_key="other", key_added="types", n_neighbors=15)
    assert {"types_connectivities", "types_distances"} <= set(sdata["other"].obsp)


def test_many_cells_go_to_pynndescent(adata, monkeypatch):
    asked = {}

    class NNDescent:
        """Exact neighbours in the form of pynndescent; the first cell is not among its own."""

        def __init__(self, data, n_neighbors, random_state):
            asked.update(n_neighbors=n_neighbors, random_state=random_state)
            distances, indices = NearestNeighbors(n_neighbors=n_neighbors + 1).fit(data).kneighbors(data)
            distances[0, :-1], indices[0, :-1] = distances[0, 1:], indices[0, 1:]
            self.neighbor_graph = indices[:, :-1], distances[:, :-1]

    cluster(adata, n_neighbors=15, key_added="exact")
    monkeypatch.setattr(sys.modules["nextmarker.tl._neighbors"], "EXACT_UP_TO", 100)
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=NNDescent))
    cluster(adata, n_neighbors=15, key_added="approximate", random_state=4)
    assert asked == {"n_neighbors": 16, "random_state": 4}
    exact, approximate = adata.obsp["exact_distances"], adata.obsp["approximate_distances"]
    np.testing.assert_array_equal(exact.toarray() > 0, approximate.toarray() > 0)
    np.testing.assert_allclose(exact.toarray(), approximate.toarray(), rtol=1e-5)


@pytest.fixture
def images(adata):
    """The same cells, of three images of 200, 90 and 10 cells."""
    adata.obs["image"] = np.repeat(["large", "medium", "small"], [200, 90, 10])
    return adata


def test_a_sample_finds_the_clusters_of_all_cells(images):
    cluster(images, n_neighbors=10, resolution=0.3)
    cluster(images, n_neighbors=10, resolution=0.3, n_sample=200, key_added="sampled")
    assert images.obs["sampled"].tolist() == images.obs["nextmarker"].tolist()
    assert images.uns["nextmarker"]["cluster_sampled"]["n_sample"] == 200
    assert not [key for key in [*images.obsp, *images.uns] if key.startswith("sampled_") and key != "sampled_colors"]
    cluster(images, n_neighbors=10, resolution=0.3, n_sample=300, key_added="everything")
    assert images.obs["everything"].tolist() == images.obs["nextmarker"].tolist()
    assert "everything_connectivities" in images.obsp


def test_a_sample_removes_the_graph_of_other_clusters(images):
    cluster(images, n_neighbors=15)
    cluster(images, n_neighbors=15, n_sample=100)
    assert not images.obsp
    assert "nextmarker_neighbors" not in images.uns
    with pytest.raises(ValueError, match="nextmarker_neighbors"):
        sc.tl.umap(images, neighbors_key="nextmarker_neighbors")
    cluster(images, n_neighbors=15)
    assert len(images.obsp) == 2


def test_a_sample_of_some_clusters():
    adata = divided_table()
    nm.tl.cluster(adata, restrict_to=("nextmarker", "a"), n_sample=60, n_neighbors=10, resolution=0.3)
    assert adata.obs["nextmarker_R"].tolist() == ["a,0"] * 60 + ["a,1"] * 60 + ["b"] * 40 + ["c"] * 10


def _without_embedding(adata):
    del adata.obsm["X_nextmarker"]


def _not_finite(adata):
    adata.obsm["X_nextmarker"][7, 3] = np.nan


def _foreign_column(adata):
    adata.obs["nextmarker"] = "mine"


def _nothing(adata):
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (_without_embedding, {}, KeyError, "nm.tl.embed"),
        (_not_finite, {}, ValueError, "1 cells is not finite.*'cell7'"),
        (_foreign_column, {}, ValueError, "key_added"),
        (_nothing, {"n_neighbors": 300}, ValueError, "301 cells.*are 300.*n_neighbors"),
        (_nothing, {"n_neighbors": 0}, ValueError, "at least 2"),
        (_nothing, {"n_sample": 30}, ValueError, "n_sample=30 must be more than n_neighbors=30"),
        (_nothing, {"backend": "louvain"}, ValueError, "'igraph', 'leidenalg', 'phenograph'"),
        (_nothing, {"resolution": 0}, ValueError, "positive"),
    ],
)
def test_bad_input_changes_nothing(adata, spoil, arguments, error, message):
    spoil(adata)
    before = list(adata.obs), list(adata.obsp), list(adata.uns)
    with pytest.raises(error, match=message):
        cluster(adata, **arguments)
    assert (list(adata.obs), list(adata.obsp), list(adata.uns)) == before


@pytest.mark.parametrize("backend", ["igraph", "leidenalg", "phenograph"])
def test_resolution_decides_how_many_clusters_whatever_the_backend(backend):
    adata = AnnData(obsm={"X_nextmarker": np.random.default_rng(0).normal(size=(200, 5))})
    numbers = []
    for resolution in (0.01, 1.0, 4.0):
        cluster(adata, n_neighbors=15, resolution=resolution, backend=backend)
        numbers.append(adata.obs["nextmarker"].nunique())
    assert numbers[0] == 1  # the graph is connected
    assert 1 < numbers[1] < numbers[2]


def test_two_clusterings_have_two_records(adata):
    cluster(adata, n_neighbors=15, resolution=0.01, key_added="coarse")
    cluster(adata, n_neighbors=20, resolution=4.0, key_added="fine", backend="leidenalg")
    cluster(adata, n_neighbors=10)
    records = [adata.uns["nextmarker"][name] for name in ("cluster_coarse", "cluster_fine", "cluster")]
    assert [record["resolution"] for record in records] == [0.01, 4.0, 0.3]
    assert [record["n_neighbors"] for record in records] == [15, 20, 10]
    assert [record["backend"] for record in records] == ["igraph", "leidenalg", "igraph"]


MODEL, OTHER = "0123456789abcdef", "fedcba9876543210"


def parts(adata, models=(MODEL, MODEL)) -> list[AnnData]:
    """Two tables that were embedded and clustered one by one."""
    tables = [adata[:150].copy(), adata[150:].copy()]
    for number, (table, model) in enumerate(zip(tables, models, strict=True)):
        table.obs["nextmarker_embedding"] = pd.Categorical([f"{model}-0000000{number}"] * 150)
        cluster(table, n_neighbors=15)
        cluster(table, n_neighbors=15, key_added="mine")
    return tables


@pytest.mark.parametrize("how", [{}, {"uns_merge": "same"}, {"uns_merge": "first", "pairwise": True}])
def test_tables_clustered_one_by_one_are_clustered_together(adata, how):
    joined = concat(parts(adata), **how)
    cluster(joined, n_neighbors=15, resolution=0.3)
    assert adjusted_rand_score(joined.obs["truth"], joined.obs["nextmarker"]) == 1
    assert joined.obsp["nextmarker_connectivities"][:150, 150:].nnz > 0  # patients are linked
    assert joined.uns["nextmarker"]["cluster"]["model"] == MODEL
    assert len(joined.uns["nextmarker"]["cluster"]["embedded_as"]) == 2
    if not how:  # nothing tells that this is not the user's
        with pytest.raises(ValueError, match="'mine' in .obs"):
            cluster(joined, n_neighbors=15, key_added="mine")


def test_cells_of_two_models_are_not_clustered_together(adata):
    joined = concat(parts(adata, (MODEL, OTHER)))
    before = joined.obs["nextmarker"].tolist()
    joined.obsm["X_corrected"] = joined.obsm["X_nextmarker"]
    with pytest.raises(ValueError, match=r"2 models.*nm.tl.embed\(sdata, model\)"):
        cluster(joined, n_neighbors=15)
    assert joined.obs["nextmarker"].tolist() == before
    assert "nextmarker" not in joined.uns
    cluster(joined, n_neighbors=15, use_rep="X_corrected")  # made to be compared
    assert "embedded_as" not in joined.uns["nextmarker"]["cluster"]
    cluster(joined[:150].copy(), n_neighbors=15)


def test_features_out_of_step_with_the_markers_are_not_clustered(adata):
    features = np.random.default_rng(0).random((300, 3, 8))
    table = AnnData(
        np.ones((300, 3), np.float32),
        obsm={"X_interpretability": features.reshape(300, -1)},
        layers={"interpretability": features.mean(2)},
    )
    cluster(table.copy(), n_neighbors=15, use_rep="X_interpretability")
    for changed in (table[:, [1, 0, 2]], table[:, :2]):
        with pytest.raises(ValueError, match=r"'X_interpretability'.*nm.tl.embed"):
            cluster(changed.copy(), n_neighbors=15, use_rep="X_interpretability")


def divided_table():
    """Clusters "a" (two groups of 60 cells), "b" (40 cells) and "c" (10 cells)."""
    rng = np.random.default_rng(0)
    centres = np.repeat([0.0, 5.0, 20.0, 40.0], [60, 60, 40, 10])
    names = np.array(["a", "b", "c"]).repeat([120, 40, 10])
    obs = pd.DataFrame({"nextmarker": pd.Categorical(names)}, index=[f"cell_{row}" for row in range(170)])
    return AnnData(obs=obs, obsm={"X_nextmarker": rng.normal(centres[:, None], size=(170, 5)).astype(np.float32)})


def test_some_clusters_are_divided_and_the_others_stay():
    adata = divided_table()
    nm.tl.cluster(adata, restrict_to=("nextmarker", "a"), n_neighbors=10, resolution=0.3)
    refined = adata.obs["nextmarker_R"]
    assert refined.cat.categories.tolist() == ["a,0", "a,1", "b", "c"]
    assert refined.tolist() == ["a,0"] * 60 + ["a,1"] * 60 + ["b"] * 40 + ["c"] * 10
    assert list(adata.obs["nextmarker"].cat.categories) == ["a", "b", "c"]
    assert not adata.obsp
    assert adata.uns["nextmarker"]["cluster_nextmarker_R"]["restrict_to"].tolist() == ["nextmarker", "a"]


def test_several_clusters_are_divided_together_and_again():
    adata = divided_table()[::-1].copy()
    nm.tl.cluster(adata, restrict_to=("nextmarker", ["c", "b"]), n_neighbors=9, key_added="fine")
    assert adata.obs["fine"].cat.categories.tolist() == ["a", "b-c,0", "b-c,1"]
    assert (adata.obs["fine"] == "b-c,1").sum() == 10
    nm.tl.cluster(adata, restrict_to=("fine", ["a"]), n_neighbors=10, resolution=0.3, key_added="fine")
    assert adata.obs["fine"].cat.categories.tolist() == ["a,0", "a,1", "b-c,0", "b-c,1"]


@pytest.mark.parametrize(
    ("restrict_to", "error", "problem"),
    [
        (("leiden", "a"), KeyError, "'leiden'.*restrict_to"),
        (("nextmarker", ["a", "z"]), KeyError, "'z'.*restrict_to"),
        (("nextmarker", "c"), ValueError, "11 cells.*are 10"),
    ],
)
def test_what_cannot_be_divided(restrict_to, error, problem):
    adata = divided_table()
    with pytest.raises(error, match=problem):
        nm.tl.cluster(adata, restrict_to=restrict_to, n_neighbors=10)
    assert list(adata.obs) == ["nextmarker"]


def test_layers_and_intensities_can_be_clustered_and_drawn_by_scanpy():
    adata = divided_table()
    adata = AnnData(adata.obsm["X_nextmarker"] - 7, obs=adata.obs, layers={"shifted": adata.obsm["X_nextmarker"]})
    nm.tl.cluster(adata, use_rep="X", n_neighbors=10, resolution=0.3, key_added="x")
    nm.tl.cluster(adata, use_rep="layers/shifted", n_neighbors=10, resolution=0.3, key_added="layer")
    assert adata.obs["x"].tolist() == adata.obs["layer"].tolist()
    for key in ("x", "layer"):
        sc.tl.umap(adata, neighbors_key=f"{key}_neighbors", maxiter=5)
    with pytest.raises(KeyError, match="layers/none"):
        nm.tl.cluster(adata, use_rep="layers/none", key_added="y")
