"""What the experiment on phenotypes computes by itself."""

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

import nextmarker as nm
from experiments import phenotyping, phenotyping_dense
from experiments import phenotyping_tables as tables
from experiments.phenotyping_tables import IE, OURS, SCALED, UNNAMED

PUBLISHED = {"tumour": "TUMOR_LUMINAL", "B cell": "BCELL", "T helper": "CD4T", "endothelium": "ENDO"}
SIGNATURES = {
    "tumour": "PanKRT+ CD3- CD20-",
    "endothelium": "CD31+ PanKRT-",
    "immune": "CD3+ or CD20+ or CD68+, PanKRT-",
    "T cell": {"parent": "immune", "markers": "CD3+ CD20-"},
    "B cell": {"parent": "immune", "markers": "CD20+ CD3-"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images with masks and tables of cells, as the experiment expects them."""
    path = tmp_path_factory.mktemp("data")
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=150)
    for image in sdata.images:
        header = {"axes": "CYX", "Channel": {"Name": sdata[image]["c"].to_numpy().tolist()}}
        tifffile.imwrite(path / f"{image}_image.ome.tif", sdata[image].to_numpy(), metadata=header)
        tifffile.imwrite(path / f"{image}_mask.tif", sdata[f"masks_{image}"].to_numpy())
        types = sdata[f"truth_{image}"]["cell_type"].astype(str).map(PUBLISHED)
        types.rename_axis("label").to_frame().to_csv(path / f"{image}_cells.csv")
    return path


@pytest.fixture(scope="module")
def cells(folder):
    return phenotyping.read(folder, "DNA2")


def names(**columns):
    """Lineages of five cells, by workflow and run, one way and one resolution."""
    keys = {"ours": (OURS, 0), "ours_again": (OURS, 1), "ie": (IE, 0), "ie_again": (IE, 1)}
    values = {
        (*keys[key], by, r): list(v)
        for key, v in columns.items()
        for by in ("by cluster", "by cell", "majority vote")
        for r in (0.3, 0.5)
    }
    return pd.DataFrame(values).rename_axis(["workflow", "run", "by", "resolution"], axis=1)


def as_text(column):
    return column.astype(object).fillna("none").tolist()


def test_published_types_come_to_the_centres_in_their_masks(folder, cells):
    adata, means = cells["table"], cells["intensity"]
    for image in cells.images:
        mask = tifffile.imread(phenotyping.file_of(folder, image, "mask.tif"))
        own = pd.read_csv(phenotyping.file_of(folder, image, "cells.csv"), index_col="label")["cell_type"]
        measured = means[means.obs["image"] == image]
        assert measured.n_obs == len(np.unique(mask)) - 1
        assert as_text(measured.obs["published_type"]) == as_text(own[measured.obs["instance_id"]])
    assert as_text(means.obs["published"]) == as_text(means.obs["published_type"].map(tables.LINEAGE_OF))
    matched = adata.obs[adata.obs["matched"].notna()]
    assert len(matched) > 200
    for key in ("published", "published_type"):
        assert as_text(matched[key]) == as_text(means.obs[key].loc[matched["matched"].astype(str)])


def test_corrected_means_lack_the_mean_outside_of_masks(folder, cells):
    plain, corrected = (phenotyping.measure_means(cells, corrected=each) for each in (False, True))
    image = list(cells.images)[1]
    rows = (plain.obs["image"] == image).to_numpy()
    mask = tifffile.imread(phenotyping.file_of(folder, image, "mask.tif"))
    counts = cells[image].to_numpy()[3]
    inside = ndimage.mean(counts, mask, plain.obs["instance_id"][rows])
    np.testing.assert_allclose(plain.layers["arcsinh"][rows, 3], np.arcsinh(inside), rtol=1e-5)
    expected = np.arcsinh(np.maximum(inside - counts[mask == 0].mean(), 0))
    np.testing.assert_allclose(corrected.obsm["X_arcsinh"][rows, 3], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(corrected.obsm["X_scaled"].std(axis=0), 1, rtol=1e-4)


def test_what_is_kept_is_not_trained_again(cells, tmp_path, monkeypatch):
    trained = []

    def train(sdata, random_state):
        trained.append((len(sdata.images), sdata["table"].n_obs))
        return nm.nn.NeXtMarker(nm.nn.ModelConfig(tuple(cells["table"].var_names), 9), np.ones(cells["table"].n_vars))

    monkeypatch.setattr(nm.tl, "train", train)
    first, second = cells.images
    for _ in range(2):
        phenotyping.embed_once(cells, "all", 0, tmp_path)
        adata = phenotyping.embed_once(cells, "second", 0, tmp_path, [second])
    sizes = cells["table"].obs["image"].value_counts()
    assert trained == [(2, sizes.sum()), (1, sizes[second])]
    assert adata.obsm["X_nextmarker"].shape == (sizes.sum(), 256)


def test_lineages_and_subtypes_of_names():
    found = pd.Series(["CD8 T", "B cell or T cell", "tumour", "tumour or immune", "unsure", "immune"], dtype=object)
    assert tables.lineages(found).tolist() == ["immune", "immune", "tumour", UNNAMED, UNNAMED, "immune"]
    assert tables.subtypes(found).tolist() == ["T cell", *[UNNAMED] * 5]


def test_every_published_type_and_subtype_is_known_to_the_signatures():
    assert set(tables.LINEAGE_OF.values()) == {
        name for name, each in tables.SIGNATURES.items() if isinstance(each, str)
    }
    assert set(tables.SUBTYPE_OF.values()) < set(tables.SIGNATURES)
    assert set(tables.SUBTYPE_OF) < set(tables.LINEAGE_OF)


def test_cells_without_a_name_are_a_name_of_their_own():
    one = pd.Series(["a", "a", "b", UNNAMED, None, "b"], dtype=object)
    other = pd.Series(["a", "b", "b", UNNAMED, "a", UNNAMED], dtype=object)
    found = tables.agree(one, other)
    assert found["same"] == 3 / 5
    assert found["named"] == 3 / 5
    assert found["same, of named"] == 2 / 3
    assert found["cells"] == 5


def test_a_vote_names_a_cluster_by_its_most_frequent_type():
    clusters = pd.Series([*"00011", "2"], dtype=object)
    published = pd.Series(["a", "a", "b", "b", None, None], dtype=object)
    assert tables.vote(clusters, published).tolist() == [*"aaabb", UNNAMED]


def test_workflows_are_compared_with_each_other_and_with_their_reruns():
    published = pd.Series([*"aabb", None], dtype=object)
    table = tables.pairs(published, names(ours="aabbb", ours_again="aabba", ie="aaaab", ie_again="bbbbb"))
    table = table.xs(("by cell", 0.5), level=("by", "resolution"))
    assert table["same"].to_dict() == {"nextmarker 0, IE 0": 0.6, "nextmarker 0, nextmarker 1": 0.8, "IE 0, IE 1": 0.2}
    assert table.loc["nextmarker 0, IE 0", ["differ", "first as published", "second as published"]].tolist() == [
        2,
        1,
        0,
    ]
    assert table.loc["nextmarker 0, nextmarker 1", "differ"] == 0
    assert table.loc["IE 0, IE 1", "first as published"] == 0.5


def test_recall_and_precision_of_each_type():
    table = tables.each_type(pd.Series([*"aabbb"]), names(ours="aabba"))
    assert list(table.columns) == ["a (2)", "b (3)"]
    assert table.loc[(OURS, 0, "by cell", 0.3, "recall")].tolist() == [1, 2 / 3]
    assert table.loc[(OURS, 0, "by cell", 0.3, "precision")].tolist() == [2 / 3, 1]


def test_cells_with_both_markers_of_a_pair(monkeypatch):
    monkeypatch.setattr(tables, "SPILLOVER", (("CD3", "CD20"),))
    values = np.array([[0.9, 0.0], [0.8, 0.1], [0.9, 0.9], [0.0, 0.8], [0.1, 0.1]], np.float32).repeat(10, axis=0)
    obs = pd.DataFrame({"nextmarker": pd.Categorical([*"01234"]).repeat(10)}, index=np.arange(50).astype(str))
    adata = ad.AnnData(obs=obs, var=pd.DataFrame(index=["CD3", "CD20"]), layers={"interpretability": values})
    nm.tl.annotate(adata, {"T": "CD3+ CD20-", "B": "CD20+ CD3-"}, key_added="types")
    shares = tables.both_positive(adata, "types")
    assert shares == {"CD3": 0.6, "CD20": 0.4, "CD3 and CD20": 0.2, "CD3 and CD20, of either": 0.25}


def test_patients_are_typed_by_the_others():
    rng = np.random.default_rng(0)
    types = np.tile(["tumour", "immune"], 120)
    obs = pd.DataFrame(
        {"image": np.repeat(["p1", "p2", "p3"], 80), "published": types}, index=np.arange(240).astype(str)
    )
    obs["nextmarker_embedding"] = "0123456789abcdef-01234567"
    adata = ad.AnnData(obs=obs, obsm={"X_nextmarker": rng.normal(10.0 * (types == "tumour")[:, None], size=(240, 5))})
    obs = adata.obs
    obs["annotated"] = obs["published"].where(obs.index != "0", "immune").replace({"immune": "I", "tumour": "T"})
    obs.loc["2", "annotated"] = np.nan
    table = tables.transfer(adata, "annotated", ["p1", "p3"])
    assert table["cells"].tolist() == [80, 80]
    assert (table["unsure"] < 0.1).all()
    assert table.loc["p3", "as annotated, of sure"] == 1
    assert 0.95 < table.loc["p1", "as annotated, of sure"] < 1
    assert (table["as published, of sure"] == 0).all()  # other names
    assert "transferred" not in adata.obs


def test_both_workflows_find_known_types(cells, tmp_path, monkeypatch):
    for module in (phenotyping, tables):
        monkeypatch.setattr(module, "SIGNATURES", SIGNATURES)
    monkeypatch.setattr(tables, "SPILLOVER", (("CD3", "CD20"), ("PanKRT", "CD3")))
    training = nm.nn.TrainingConfig(steps=10, batch_size=64)
    nm.tl.train(cells, 11, training=training, progress=False).save(tmp_path / f"{OURS}-0.safetensors")
    runs = {(OURS, 0): phenotyping.embed_once(cells, OURS, 0, tmp_path)}
    runs |= {(workflow, 0): phenotyping.measure_means(cells, corrected=False) for workflow in (IE, SCALED)}
    for (workflow, seed), adata in runs.items():
        phenotyping.name_cells(adata, workflow, seed)
    found = tables.compare(runs, cells["table"].obs[cells["table"].obs["matched"].notna()])
    by_cell = found["lineages"].xs("by cell", level="by")["same, of named"]
    assert (by_cell > 0.9).all()
    assert (found["agreement"]["same, of named"] > 0.9).all()
    assert (found["spillover"]["CD3 and CD20"] < 0.1).all()
    drawn = []
    monkeypatch.setattr(phenotyping, "CROP", (10, 10, 80, 80))
    monkeypatch.setattr(phenotyping, "save", lambda ax, path: drawn.append((path.name, plt.close(ax.figure))))
    monkeypatch.setattr(phenotyping.sc.tl, "umap", lambda adata, **_: adata.obsm.update(X_umap=adata.obsm["spatial"]))
    phenotyping.draw(cells, runs, tmp_path)
    assert [name for name, _ in drawn][-2:] == ["agreement.png", "matches.png"]


def test_signatures_of_dense_tissue_are_the_markers_of_lineages():
    table = phenotyping_dense.matrix()
    own = {"CD45": 1, "CD3": 1, "CD4": 1, "CD8": -1, "CD20": -1, "FOXP3": 0}
    assert table.loc["T helper", list(own)].to_dict() == own
    assert table.loc["tumour", ["PanCK", "Ki67", "SMA"]].tolist() == [1, 0, -1]


@pytest.mark.filterwarnings("ignore:Cells of other types")
def test_a_short_run_names_dense_tissue():
    sdata = nm.datasets.dense_tissue(2, 80, random_state=3)
    adata = phenotyping_dense.embed(sdata, 0, nm.nn.TrainingConfig(steps=5, batch_size=64))
    assert (adata.obs["true"] == phenotyping_dense.true_types(sdata)).all()
    scores = phenotyping_dense.score(adata)
    assert scores.index.tolist() == [(name, by) for name in ("short", "matrix") for by in ("cluster", "cell")]
    assert scores["short", "cell"] > 0.5  # by chance 1 of 9


def test_true_types_are_those_under_the_detected_centres():
    sdata = nm.datasets.dense_tissue(1, 60)
    nm.pp.add_cells(sdata, "truth", key_added="true", table_key="detected", progress=False)
    truth = sdata["truth_dense_1"]["cell_type"].loc[sdata["detected"].obs["source_id"]]
    assert phenotyping_dense.true_types(sdata).tolist() == truth.tolist()
