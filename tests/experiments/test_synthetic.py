"""What the experiment on synthetic cells computes by itself."""

import numpy as np
import pandas as pd
import pytest

import nextmarker as nm
from experiments import synthetic


@pytest.fixture(scope="module")
def cells():
    return synthetic.make_cells(150, seed=0)


def test_cells_know_their_type_size_and_intensity(cells):
    adata, truth = cells["table"], cells["truth_cells_1"]
    masks, pixels = cells["masks_cells_1"].to_numpy(), cells["cells_1"].to_numpy()
    x, y = np.floor(adata.obsm["spatial"]).astype(int).T
    cell = np.flatnonzero(masks[y, x])[7]  # the centre of a lobed nucleus may lie between its lobes
    label = masks[y, x][cell]
    assert adata.obs["cell_type"].iloc[cell] == truth.loc[label, "cell_type"]
    assert adata.obs["size"].iloc[cell] == (masks == label).sum()
    np.testing.assert_allclose(np.sinh(adata.obsm["X_intensity"][cell]), pixels[:, masks == label].mean(axis=1))


def test_confusion_counts_pairs():
    counts = synthetic.count(np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 1]), pd.Index(["a", "b", "c"]))
    assert counts.loc["a"].tolist() == [2, 1, 0]
    assert counts.loc["c"].tolist() == [0, 1, 0]
    assert synthetic.accuracy(counts) == pytest.approx(3 / 5)
    assert synthetic.percent(counts).loc["a"].tolist() == pytest.approx([200 / 3, 100 / 3, 0])


def test_size_is_explained_if_it_is_there():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 4))
    size = 100 + values @ [1, 2, 0, 0]
    learn, test = np.arange(200), np.arange(200, 300)
    assert synthetic.size_r2(values, size, learn, test) > 0.99
    assert synthetic.size_r2(rng.normal(size=(300, 4)), size, learn, test) < 0.2


def test_summary_is_mean_and_spread_and_blank_where_nothing_was_measured():
    scores = [pd.DataFrame({"accuracy": [a, 1.0], "ARI": [0.5, np.nan]}, ["F", "supervised"]) for a in (0.2, 0.4)]
    summary = synthetic.summarize(scores)
    assert summary.loc["F", "accuracy"] == "0.300 ± 0.100"
    assert summary.loc["supervised"].tolist() == ["1.000 ± 0.000", ""]


def test_table_of_scores(cells):
    adata = cells["table"].copy()
    codes = adata.obs["cell_type"].cat.codes.to_numpy()
    for name, key in synthetic.KEYS.items():  # types as they are, beside types and noise
        noise = np.random.default_rng(0).normal(size=(len(codes), 3)) * (0.01 if name == "F" else 2)
        adata.obsm[key] = 5 * np.eye(7)[codes][:, :3] + noise
        adata.obs[name], adata.obs[f"{name}_default"] = adata.obs["cell_type"], "all"
    perfect = synthetic.count(codes, codes, adata.obs["cell_type"].cat.categories)
    table = synthetic.measure(adata, dict.fromkeys(["IE", "I", "F", "supervised"], perfect), codes >= 0, codes >= 0)
    assert (table["accuracy"] == 1).all()
    assert table.loc["F", "silhouette"] > table.loc["IE", "silhouette"]
    assert table.loc[["IE", "I", "F"], ["ARI", "clusters"]].to_numpy().tolist() == [[1, 7]] * 3
    assert (table.loc[["IE", "I", "F"], "ARI by default"] == 0).all()
    assert table.loc["supervised"].drop("accuracy").isna().all()


def test_figures_show_every_type_and_representation(cells):
    adata = cells["table"].copy()
    counts = synthetic.count(np.arange(7), np.arange(7), adata.obs["cell_type"].cat.categories)
    assert len(synthetic.draw_types(cells).axes) == 7 * 5
    titles = [ax.get_title() for ax in synthetic.draw_confusions({"IE": counts, "F": counts}).axes]
    assert titles == ["IE: 100.0%", "F: 100.0%"]
    for name, key in synthetic.KEYS.items():
        adata.obsm[key] = adata.obsm["X_intensity"]
        nm.tl.cluster(adata, use_rep=key, key_added=name)
    titles = [ax.get_title() for ax in synthetic.draw_umaps(adata).axes]
    assert titles[:3] == ["IE, types", "I, types", "F, types"]
    assert titles[5] == "F, area of the nucleus"
