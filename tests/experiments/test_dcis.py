import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from joblib import parallel_config
from scipy import ndimage

import nextmarker as nm
from experiments import dcis, dcis_background, dcis_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two images with masks and tables of cells, as the experiment expects them."""
    tmp_path = tmp_path_factory.mktemp("dcis")
    sdata = nm.datasets.synthetic_tissue(n_images=2, n_cells=60)
    for image in sdata.images:
        header = {"axes": "CYX", "Channel": {"Name": sdata[image]["c"].to_numpy().tolist()}, "PhysicalSizeX": 0.5}
        header["PhysicalSizeY"] = 0.5
        tifffile.imwrite(tmp_path / f"{image}_image.ome.tif", sdata[image].to_numpy(), metadata=header)
        tifffile.imwrite(tmp_path / f"{image}_mask.tif", sdata[f"masks_{image}"].to_numpy())
        truth = sdata[f"truth_{image}"]
        points = {"x": truth.geometry.x - 0.5, "y": truth.geometry.y - 0.5, "cell_type": truth["cell_type"]}
        cells = pd.DataFrame(points).rename_axis("label")
        cells.loc[cells.index[0], "cell_type"] = np.nan
        cells.to_csv(tmp_path / f"{image}_cells.csv")
    return tmp_path


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """A folder with a model of these images."""
    output = tmp_path_factory.mktemp("trained")
    training = nm.nn.TrainingConfig(steps=20, batch_size=32)
    nm.tl.train(dcis.read(folder), 11, training=training, progress=False).save(output / "nextmarker-0.safetensors")
    return output


def test_cells_have_their_types_and_intensities(folder):
    sdata = dcis.read(folder)
    dcis.measure_intensity(sdata, folder)
    adata = sdata["table"]
    assert adata.obs["cell_type"].isna().sum() == 2
    rows = np.flatnonzero(adata.obs["image"] == "tissue_2_image")
    cells = pd.read_csv(folder / "tissue_2_cells.csv", index_col="label")
    labels = adata.obs["source_id"].iloc[rows]
    assert adata.obs["cell_type"].astype(object).iloc[rows].tolist()[1:] == cells.loc[labels, "cell_type"].tolist()[1:]
    mask = tifffile.imread(folder / "tissue_2_mask.tif")
    counts = sdata["tissue_2_image"].to_numpy()[3]
    inside = counts[mask == labels.iloc[5]].mean()
    assert adata.obsm["mask"][rows[5], 3] == pytest.approx(inside)
    corrected = np.maximum(adata.obsm["mask"][rows, 3] - counts[mask == 0].mean(), 0)
    np.testing.assert_allclose(adata.obsm["mask_minus_background"][rows, 3], corrected)
    assert 0 < (corrected > 0).mean() < 1


def test_disc_mean_is_that_of_the_pixels_in_the_disc():
    counts = np.random.default_rng(0).poisson(3, (2, 30, 30))
    row, column = np.mgrid[:30, :30]
    disc = (row - 15) ** 2 + (column - 12) ** 2 <= 49
    means = dcis.disc_means(counts, np.array([15, 0]), np.array([12, 29]), 7)
    np.testing.assert_allclose(means[0], counts[:, disc].mean(1))
    assert means.shape == (2, 2)


def test_what_is_kept_is_not_trained_again(folder, tmp_path, monkeypatch):
    sdata = dcis.read(folder)
    calls = []

    def embed(sdata, seed):
        calls.append(seed)
        return nm.nn.NeXtMarker(nm.nn.ModelConfig(("a",), 9), [1.0]), np.zeros((3, 1, 8)), np.ones((3, 256))

    monkeypatch.setattr(dcis, "models", lambda: {"early fusion": embed})
    for _ in range(2):
        dcis.train_once(sdata, "early fusion", 1, tmp_path)
    assert calls == [1]
    assert np.load(tmp_path / "early_fusion-1.npz")["I"].shape == (3, 8)


def test_representations_are_named_and_joined(folder, tmp_path):
    sdata = dcis.read(folder)
    dcis.measure_intensity(sdata, folder)
    adata = sdata["table"]
    for seed in (0, 1):
        np.savez(tmp_path / f"nextmarker-{seed}.npz", I=np.ones((adata.n_obs, 4)), F=np.ones((adata.n_obs, 2)))
    runs = dcis_tables.representations(adata, tmp_path)
    np.testing.assert_array_equal(runs["mask, arcsinh", 0], np.arcsinh(adata.obsm["mask"]))
    assert runs["nextmarker F + mask", 1].shape == (adata.n_obs, 2 + adata.n_vars)


def test_scores_over_seeds_are_mean_and_spread():
    index = pd.MultiIndex.from_tuples([("a", 0), ("a", 1), ("b", 0)], names=["representation", "seed"])
    table = dcis_tables.over_seeds(pd.DataFrame({"score": [0.5, 0.7, 0.25]}, index=index))
    assert table["score"].tolist() == ["0.600 ± 0.100", "0.250"]
    assert table["seeds"].tolist() == [2, 1]


def test_explanations_of_a_trained_model(folder, trained, monkeypatch):
    own = {name: list(markers) for name, markers in nm.datasets.TISSUE_TYPES.items()}
    monkeypatch.setattr(dcis_tables, "OWN_MARKERS", own)
    tables = dcis_tables.explanations(dcis.read(folder), trained)
    assert tables["attribution"]["recall"].astype(float).between(0, 1).all()
    assert tables["faithfulness"].loc["50%", "rank correlation"] > 0.8


def test_recall_is_the_share_of_a_types_own_markers_that_lead_its_cluster(monkeypatch):
    own = {"T": ["CD3", "CD8"], "B": ["CD20", "CD45"], "M": ["CD68"]}
    monkeypatch.setattr(dcis_tables, "OWN_MARKERS", own)
    leading = {"0": "CD8 DNA CD3 CD45", "1": "CD20 DNA CD3 CD45", "2": "DNA CD3 CD8 CD68"}
    ranked = [(cluster, marker, 1.0, 0.0) for cluster, markers in leading.items() for marker in markers.split()]
    table = pd.DataFrame(ranked, columns=["cluster", "marker", "mean", "mean_elsewhere"]).assign(contribution=0.2)
    cells = {"cell_type": [*"TTTT", *"BBB", *"MMM", None], "nextmarker": [*"0001", *"110", *"220", "2"]}
    obs = pd.DataFrame(cells, index=[f"cell{i}" for i in range(11)])
    rows = dcis_tables.named_markers(AnnData(obs=obs, uns={"marker_attribution": table}))
    assert rows["cluster"].to_dict() == {"T": "0", "B": "1", "M": "2"}
    assert rows["recall"].to_dict() == {"T": 1, "B": 0.5, "M": 0}
    assert rows["share of the type"].to_dict() == {"T": 3 / 4, "B": 2 / 3, "M": 2 / 3}
    assert rows["share of the cluster"].to_dict() == {"T": 3 / 5, "B": 2 / 3, "M": 1}
    assert rows.loc["B", ["leading markers", "own markers"]].tolist() == ["CD20, DNA, CD3", "CD20, CD45"]


def test_batches_are_told_of_all_types_together():
    """Images mix in one type and lie apart in the other."""
    types, images = np.repeat(["mixed", "apart"], [60, 30]), np.tile(["a", "b"], 45)
    obs = pd.DataFrame({"cell_type": types, "image": images}, index=[f"cell{i}" for i in range(90)])
    values = np.random.default_rng(0).normal(size=(3, 90, 2)) + 9.0 * ((types == "apart") & (images == "a"))[:, None]
    names = [("mask, arcsinh", 0), ("nextmarker F", 0), ("nextmarker F", 1), ("nextmarker F + mask", 0)]
    with parallel_config("threading"):  # starts sooner than processes do
        table = dcis_tables.batch(AnnData(obs=obs), dict(zip(names, values[[0, 1, 2, 0]], strict=True)))
    adata = AnnData(obs=obs, obsm=dict(zip("abc", values, strict=True)))
    mixing = nm.metrics.batch_mixing(adata, "image", label_key="cell_type", use_rep=["a", "b", "c"])
    for score in ("silhouette", "neighbor_entropy"):
        mask, *runs = mixing.loc[mixing["type"] == "all", score]
        assert table[score].to_dict() == {
            "mask, arcsinh": f"{mask:.3f}",
            "nextmarker F": f"{np.mean(runs):.3f} ± {np.std(runs):.3f}",
        }


def test_background_is_as_rare_as_in_the_emptiest_blocks(folder):
    sdata = dcis.read(folder)
    image = sdata["tissue_1_image"]
    background = dcis_tables.draw_background(image)
    assert background.dims == image.dims
    blocks = ndimage.uniform_filter(image.to_numpy().astype(float), (0, 32, 32))
    assert (background.mean(("y", "x")).to_numpy() < blocks.mean((1, 2))).all()


def test_tables_of_types_batches_and_stability(folder, tmp_path):
    sdata = dcis.read(folder)
    dcis.measure_intensity(sdata, folder)
    adata = sdata["table"]
    for seed in (0, 1):  # groups that are those of neither the types nor the other seed
        rng = np.random.default_rng(seed)
        values = 9 * np.eye(4)[rng.integers(4, size=adata.n_obs)] + rng.normal(size=(adata.n_obs, 4))
        values = values.astype(np.float32)
        np.savez(tmp_path / f"nextmarker-{seed}.npz", I=values, F=values)
    runs = {
        name: values
        for name, values in dcis_tables.representations(adata, tmp_path).items()
        if name[0] in ("mask, arcsinh", "mask, square root", "nextmarker I", "nextmarker F")
    }
    with parallel_config("threading"):
        scores = dcis_tables.types(adata, runs)["logistic"].str[:5].astype(float)
        assert scores["mask, arcsinh"] > 0.7
        assert scores["nextmarker F"] < 0.4
        assert list(dcis_tables.batch(adata, runs)["neighbor_entropy"].index) == list(scores.index)
        assert dcis_tables.recall(adata, runs).shape == (8, 5)
    assert float(dcis_tables.stability(adata, runs).loc["nextmarker, 2 seeds", "ARI"]) < 0.2


def test_types_at_detected_centres_are_those_of_the_masks_they_lie_in(folder, trained):
    sdata = dcis.read(folder)
    dcis.measure_intensity(sdata, folder)
    scores = dcis.score_detected(sdata, folder, trained, "DNA2")
    assert list(scores.index) == ["mask, arcsinh", "mask, square root", "nextmarker F"]
    assert scores.loc["mask, square root", "logistic"] > 0.7  # by chance 1 of 8
    assert scores.loc["nextmarker F", "logistic"] > 0.7
    assert len(sdata["detected"]) > 100


def test_added_background_has_one_rate_for_each_marker_of_each_image(folder):
    sdata = dcis.read(folder)
    before = {name: image.to_numpy() for name, image in sdata.images.items()}
    hazy, again = dcis_background.add_background(sdata), dcis_background.add_background(sdata)
    added = {name: hazy[name].to_numpy().astype(int) - counts for name, counts in before.items()}
    rates = np.array([each.mean((1, 2)) for each in added.values()])
    variances = np.array([each.var((1, 2)) for each in added.values()])
    np.testing.assert_allclose(variances, rates, rtol=0.1)
    assert np.exp(np.log(rates).mean()) == pytest.approx(0.05, rel=0.5)
    assert 0.4 < np.log(rates).std() < 1
    assert np.corrcoef(np.log(rates))[0, 1] < 0.9  # another one in the other image
    for name, counts in before.items():
        np.testing.assert_array_equal(hazy[name], again[name])
        np.testing.assert_array_equal(sdata[name], counts)
    assert hazy["table"].obs["cell_type"].equals(sdata["table"].obs["cell_type"])


def test_table_of_added_background_has_the_same_rows_without_it(folder, tmp_path):
    sdata = dcis.read(folder)
    hazy = dcis_background.add_background(sdata)
    (tmp_path / "background").mkdir()
    codes = sdata["table"].obs["cell_type"].cat.codes.to_numpy()
    noise = np.random.default_rng(0).normal(size=(len(codes), 8)).astype(np.float32)
    for seed in (0, 1):  # the types as they are, lost in background
        np.savez(tmp_path / f"nextmarker-{seed}.npz", I=noise, F=noise + 9 * np.eye(8)[codes])
    np.savez(tmp_path / "background" / "nextmarker-0.npz", I=noise, F=noise)
    for each in (sdata, hazy):
        dcis.measure_intensity(each, folder)
    with parallel_config("threading"):
        table = dcis_background.background(sdata["table"], hazy["table"], tmp_path)
    assert list(table.index) == list(dcis_background.SHOWN)
    scores = table.astype(float)  # of one seed, so without a spread
    assert (scores.loc["nextmarker F", ["logistic", "kNN"]] > 0.8).all()
    assert (scores.loc["nextmarker F", ["logistic, with background", "kNN, with background"]] < 0.4).all()
    assert scores.loc["mask minus background, square root", "logistic, with background"] > 0.6
    assert scores[["mixing", "mixing, with background"]].notna().all(axis=None)
