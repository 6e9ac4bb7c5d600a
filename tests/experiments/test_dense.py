"""What the experiment on dense tissue computes by itself."""

import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import ndimage

import nextmarker as nm
from experiments import dense


@pytest.fixture(scope="module")
def tissue():
    return nm.datasets.dense_tissue(2, 100)


def true_masks(sdata):
    return {image: sdata[f"masks_{image}"].to_numpy() for image in sdata.images}


def test_isolated_nuclei_have_one_mask_each():
    row, column = np.mgrid[:80, :100]
    centres = [(20, 20), (20, 60), (55, 30), (60, 80)]
    nuclei = sum(np.exp(-((row - y) ** 2 + (column - x) ** 2) / 18) for y, x in centres)
    labels = dense.segment(np.random.default_rng(0).poisson(2 + 100 * nuclei))
    at_centres = [labels[centre] for centre in centres]
    assert sorted(at_centres) == [1, 2, 3, 4]
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4}
    for number, (y, x) in zip(at_centres, centres, strict=True):
        np.testing.assert_allclose(ndimage.center_of_mass(labels == number), (y, x), atol=1)


def test_nuclei_that_touch_are_divided():
    row, column = np.mgrid[:40, :60]
    nuclei = sum(np.exp(-((row - 20) ** 2 + (column - x) ** 2) / 18) for x in (25, 33))
    labels = dense.segment(200 * nuclei)
    assert labels.max() == 2
    assert labels[20, 25] != labels[20, 33]


def test_means_in_true_masks_are_those_of_all_cells(tissue):
    cells = dense.in_masks(tissue, true_masks(tissue), "true")
    assert cells.n_obs == 200
    values = cells.obsm["means in true masks"]
    for image in tissue.images:
        truth = tissue[f"truth_{image}"]
        mean = ndimage.mean(tissue[image].to_numpy()[4], tissue[f"masks_{image}"].to_numpy(), truth.index)
        inside = (cells.obs["image"] == image).to_numpy()
        np.testing.assert_allclose(np.sort(values[inside, 4] ** 2), np.sort(mean))
        type_of = pd.Series(truth["cell_type"].astype(str).to_numpy(), np.round(mean, 9))
        found = zip(np.round(values[inside, 4] ** 2, 9), cells.obs["cell_type"][inside], strict=True)
        assert all(kind in set(type_of.loc[[level]]) for level, kind in found)


def test_masks_have_the_type_of_the_cell_that_covers_most_of_them_and_each_cell_counts_once(tissue):
    masks = {image: np.zeros_like(mask) for image, mask in true_masks(tissue).items()}
    true = true_masks(tissue)["dense_1"]
    pixels = {label: np.argwhere(true == label) for label in (7, 8)}
    masks["dense_1"][tuple(pixels[7][:20].T)] = 1  # most of cell 7, and a little of cell 8
    masks["dense_1"][tuple(pixels[8][:5].T)] = 1
    masks["dense_1"][tuple(pixels[7][20:30].T)] = 2  # the rest of cell 7
    cells = dense.in_masks(tissue, masks, "segmented")
    assert cells.obs["image"].tolist() == ["dense_1"]
    assert cells.obs["cell_type"].tolist() == [tissue["truth_dense_1"]["cell_type"].loc[7]]
    mean = tissue["dense_1"].to_numpy()[:, masks["dense_1"] == 1].mean(axis=1)
    np.testing.assert_allclose(cells.obsm["means in segmented masks"][0] ** 2, mean)


def test_each_cell_counts_once_with_the_values_of_its_first_centre(tissue):
    images, labels = ["dense_2", "dense_1", "dense_2", "dense_2"], [3, 3, 3, 5]
    cells = dense.true_cells(tissue, images, labels, {"F": np.arange(4.0)[:, None]})
    assert cells.obsm["F"].ravel().tolist() == [0, 1, 3]
    assert cells.obs["image"].tolist() == ["dense_2", "dense_1", "dense_2"]
    types = [tissue[f"truth_{image}"]["cell_type"].loc[label] for image, label in zip(images, labels, strict=True)]
    assert cells.obs["cell_type"].tolist() == [types[0], types[1], types[3]]


def test_scores_of_types_laid_bare_and_of_noise():
    """Types alone separate all and mix images; images alone give no type and do not mix."""
    types, images = np.tile(["a", "b"], 60), np.repeat(["p1", "p2"], 60)
    noise = np.random.default_rng(0).normal(size=(120, 3))
    obs = pd.DataFrame({"cell_type": types, "image": images}, index=[f"cell{i}" for i in range(120)])
    values = {"types": noise + 20 * (types == "a")[:, None], "images": noise + 20 * (images == "p1")[:, None]}
    scores = dense.score(AnnData(obs=obs, obsm=values), 160)
    assert scores.loc["types", ["kNN", "ARI", "clusters"]].tolist() == [1, 1, 2]
    assert scores.loc["types", "mixing"] > 0.9
    assert scores.loc["images", "kNN"] < 0.7
    assert scores.loc["images", "ARI"] < 0.1
    assert scores.loc["images", "mixing"] == 0
    assert scores["found"].tolist() == [0.75, 0.75]


def test_a_short_run_scores_every_representation():
    sdata = nm.datasets.dense_tissue(2, 120, random_state=3)
    scores = dense.measure(sdata, 0, nm.nn.TrainingConfig(steps=10, batch_size=32))
    assert list(scores.index) == [
        "means in true masks",
        "means in segmented masks",
        *(f"{letter} at {kind} centres" for kind in ("true", "detected") for letter in "IF"),
    ]
    assert scores["found"][["means in true masks", "I at true centres", "F at true centres"]].tolist() == [1, 1, 1]
    assert (scores["found"] > 0.9).all()
    assert (scores["kNN"] > 0.8).all()  # by chance 1 of 9


def test_what_is_kept_is_not_measured_again(tmp_path, monkeypatch, capsys):
    calls = []

    def measure(sdata, seed):
        calls.append((sdata["dense_1"].to_numpy().min(), len(sdata["truth_dense_1"]), seed))
        return pd.DataFrame({"kNN": [seed / 10 - 0.5]}, index=pd.Index(["F"], name="representation"))

    monkeypatch.setattr(dense, "measure", measure)
    monkeypatch.setattr(dense, "N_IMAGES", 1)
    monkeypatch.setattr(dense, "SETTINGS", {"clean": {}, "offset": {"offset": 100.0}})
    monkeypatch.setattr(sys, "argv", ["dense", "-o", str(tmp_path), "--seeds", "2", "--cells", "30"])
    for _ in range(2):
        dense.main()
    assert calls == [(0, 30, 10), (0, 30, 11), (100, 30, 10), (100, 30, 11)]
    assert "0.550 ± 0.050" in capsys.readouterr().out
    assert pd.read_csv(tmp_path / "offset.csv", index_col=0).loc["F", "kNN"] == "0.550 ± 0.050"
