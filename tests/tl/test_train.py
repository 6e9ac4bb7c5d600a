"""nm.tl.train: what it learns from, what it records, what it refuses."""

from dataclasses import replace
from importlib import import_module

import anndata as ad
import numpy as np
import pytest
import torch

import nextmarker as nm
from nextmarker._checkpoint import progress
from nextmarker.nn import random_nt_xent

MODULE = import_module("nextmarker.tl._train")
KEPT = import_module("nextmarker.tl._kept_training")
TRAINING = import_module("nextmarker.nn.training")
one_step = TRAINING._step


@pytest.fixture(scope="module")
def trained(make, training):
    """Tissue that a model was trained on, and the model; not to be changed."""
    sdata = make()
    return sdata, nm.tl.train(sdata, 9, training=training, random_state=3, progress=False)


def test_model_knows_its_panel_and_its_start(trained, training):
    tissue, model = trained
    assert model.config.markers == ("DNA", "CD3", "CD20")
    assert model.config.patch_size == 9
    assert model.config.pixel_size is None
    pixels = np.concatenate([tissue.images[name].to_numpy().reshape(3, -1) for name in tissue.images], axis=1)
    expected = [np.percentile(marker[marker > 0], 90) * training.sigmoid_start for marker in pixels]
    np.testing.assert_allclose(model.normalization.start, expected, rtol=0.1)  # fields reflect their edges


def test_training_weights_the_features_for_the_activation(trained):
    weights = trained[1].activation_weights
    assert (weights >= 0).all()
    assert (weights.std(1) > 0.01).all()  # not the mean of the features


def test_record_holds_loss_schedule_and_settings(trained):
    tissue, model = trained
    record = tissue["table"].uns["nextmarker"]["train"]
    assert record["loss"].shape == record["learning_rates"].shape == (4,)
    assert np.isfinite(record["loss"]).all()
    assert record["model"] == model.digest()
    assert (record["random_state"], record["patch_size"], record["batch_size"]) == (3, 9, 48)


@pytest.fixture
def short_preset(monkeypatch):
    training = nm.nn.TrainingConfig(steps=2, batch_size=16, marker_dropout=0.0)  # else so few steps warn
    pair = training, nm.nn.NetworkConfig(features=2, embedding=4)
    monkeypatch.setitem(nm.nn.PRESETS, "short", pair)


def test_preset_gives_settings_and_network(tissue, short_preset):
    model = nm.tl.train(tissue, 9, preset="short", progress=False)
    record = tissue["table"].uns["nextmarker"]["train"]
    assert (record["steps"], record["batch_size"]) == (2, 16)
    assert (model.config.network.features, model.config.network.embedding) == (2, 4)


def test_settings_and_network_take_the_place_of_the_presets(tissue, short_preset):
    training = nm.nn.TrainingConfig(steps=1, batch_size=32, marker_dropout=0.0)
    model = nm.tl.train(tissue, 9, preset="short", training=training, progress=False)
    assert tissue["table"].uns["nextmarker"]["train"]["batch_size"] == 32
    assert model.config.network.features == 2
    model = nm.tl.train(tissue, 9, preset="short", network=nm.nn.NetworkConfig(features=3), progress=False)
    assert tissue["table"].uns["nextmarker"]["train"]["batch_size"] == 16
    assert model.config.network.features == 3


def test_an_unknown_preset_lists_the_known(tissue):
    with pytest.raises(ValueError, match=r"'paper'.*'default', 'paper-synthetic', 'paper-imc'"):
        nm.tl.train(tissue, 9, preset="paper", progress=False)
    assert "train" not in tissue["table"].uns["nextmarker"]


PAPER = nm.nn.TrainingConfig(steps=1, batch_size=16, penalty="paper", marker_dropout=0.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"training": PAPER},
        {"training": PAPER, "network": nm.nn.NetworkConfig(axis="log")},
        {"preset": "paper-imc", "network": nm.nn.NetworkConfig(axis="log")},
        {"preset": "paper-synthetic", "network": nm.nn.NetworkConfig(axis="log")},
    ],
)
def test_eq_2_as_printed_is_refused_on_the_logarithmic_axis_before_anything(tissue, arguments, monkeypatch):
    before = repr(tissue["table"])
    monkeypatch.setattr(MODULE, "read_regions", lambda *_: pytest.fail("the images were looked at"))
    with pytest.raises(ValueError, match=r"linear axis.*nm\.nn\.NetworkConfig\(axis='linear'\)"):
        nm.tl.train(tissue, 9, progress=False, **arguments)
    assert repr(tissue["table"]) == before
    assert "train" not in tissue["table"].uns["nextmarker"]


@pytest.mark.parametrize("wrong", [{"training": {"steps": 5}}, {"network": nm.nn.TrainingConfig()}])
def test_settings_and_network_of_another_kind_are_refused(tissue, wrong):
    with pytest.raises(
        TypeError, match=rf"{next(iter(wrong))} is of type (dict|TrainingConfig)\. Give an nm\.nn\.\w+\("
    ):
        nm.tl.train(tissue, 9, **wrong)


@pytest.mark.filterwarnings("ignore:Training did not work")  # one step
def test_eq_2_as_printed_goes_with_the_linear_axis(tissue):
    model = nm.tl.train(tissue, 9, training=PAPER, network=nm.nn.NetworkConfig(axis="linear"), progress=False)
    record = tissue["table"].uns["nextmarker"]["train"]
    assert model.normalization.axis == "linear"
    np.testing.assert_allclose(record["slope_start"], 2 / record["x_c_start"])


def test_record_tells_whether_training_worked(trained):
    tissue, model = trained
    record = tissue["table"].uns["nextmarker"]["train"]
    assert record["random_loss"] == pytest.approx(random_nt_xent(48, 2, 0.5, 128))
    assert record["final_loss"] == record["loss"][-1]
    assert record["markers"].tolist() == ["DNA", "CD3", "CD20"]
    assert record["markers_without_signal"].tolist() == []
    for name, value in model.normalization.as_arrays().items():
        np.testing.assert_array_equal(record[name], value)
    assert (record["x_c"] != record["x_c_start"]).all()


def test_record_survives_writing(trained, tmp_path):
    adata = trained[0]["table"]
    adata.write_h5ad(tmp_path / "table.h5ad")
    adata.write_zarr(tmp_path / "table.zarr")
    for copy in (ad.read_h5ad(tmp_path / "table.h5ad"), ad.read_zarr(tmp_path / "table.zarr")):
        for name, value in adata.uns["nextmarker"]["train"].items():
            np.testing.assert_array_equal(copy.uns["nextmarker"]["train"][name], value)


def test_tells_how_training_went_unless_asked_to_be_silent(make, training, capsys):
    nm.tl.train(make(), training=training, progress=False)
    assert capsys.readouterr().out == ""
    sdata = make()
    nm.tl.train(sdata, 9, training=training)
    record = sdata["table"].uns["nextmarker"]["train"]
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"trained 4 steps: loss from {record['loss'][0]:.2f} to {record['final_loss']:.2f}, "
        f"random embeddings {record['random_loss']:.2f}"
    )
    assert second.startswith("learned normalization relative to its start: x_c ")


def test_a_training_that_learned_nothing_warns(tissue, training):
    """Cells that look all alike cannot be told apart."""
    for image in tissue.images.values():
        image.data[:] = 3
    with pytest.warns(UserWarning, match=r"final loss is 4\.\d\d.*nm\.pl\.cells"):
        nm.tl.train(tissue, 9, training=training, progress=False)


def test_a_training_that_diverges_leaves_the_table_as_it_was(tissue):
    before = tissue["table"].copy()
    diverging = nm.nn.TrainingConfig(steps=9, batch_size=48, learning_rate=1e30)
    with pytest.raises(ValueError, match="learning_rate="):
        nm.tl.train(tissue, 9, training=diverging, progress=False)
    assert tissue["table"].uns["nextmarker"].keys() == before.uns["nextmarker"].keys()


def test_same_seed_same_model_and_the_global_seed_is_left_alone(make, training, trained):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    again = nm.tl.train(make(), 9, training=training, random_state=3, progress=False).digest()
    assert torch.rand(1) == expected
    other = nm.tl.train(make(), 9, training=training, random_state=1, progress=False).digest()
    assert trained[1].digest() == again != other


def test_chunks_of_the_store_do_not_matter(make, training, trained):
    one_chunk = nm.tl.train(make(chunks=(3, 200, 200)), 9, training=training, random_state=3, progress=False)
    assert one_chunk.digest() == trained[1].digest()


def test_default_patch_size_follows_the_distance_of_neighbours(make, training, capsys):
    model = nm.tl.train(make(), training=training)
    assert 13 <= model.config.patch_size <= 16  # cells stand 12 apart, jittered
    assert f"patch size: {model.config.patch_size} px" in capsys.readouterr().out


def test_pixel_sizes_meet_at_the_finest(make, training, capsys):
    sdata = make((1.0, 0.5))
    coarse = nm.tl.train(sdata, 10, unit="micrometre", training=training, progress=False).config
    assert (coarse.patch_size, coarse.pixel_size) == (20, 0.5)
    assert nm.tl.train(sdata, 10, training=training, progress=False).config.patch_size == 10
    chosen = nm.tl.train(sdata, training=training).config
    assert 26 <= chosen.patch_size <= 32
    assert f"({chosen.patch_size / 2:.1f} um)" in capsys.readouterr().out


def test_a_marker_without_signal_is_named(tissue, training):
    tissue.images["image_0"].data[1] = 0
    tissue.images["image_1"].data[1] = 0
    with pytest.warns(UserWarning, match=r"without signal.*\['CD3'\]"):
        model = nm.tl.train(tissue, 9, training=training, progress=False)
    assert tissue["table"].uns["nextmarker"]["train"]["markers_without_signal"].tolist() == ["CD3"]
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("sizes", "arguments", "message"),
    [
        ((None, None), {"patch_size": 10, "unit": "micrometre"}, "needs the pixel size.*nm.pp.set_pixel_size"),
        ((None, None), {"patch_size": 10, "unit": "inch"}, "'pixel', 'micrometre'"),
        ((None, None), {"unit": "inch"}, "'pixel', 'micrometre'"),
        ((None, None), {"patch_size": 2}, "must be at least 3"),
        ((None, None), {"patch_size": float("nan")}, "must be at least 3"),
        ((None, None), {"patch_size": 2}, "at least 3"),
        ((1.0, None), {"patch_size": 10}, r"'image_1'.*nm.pp.set_pixel_size"),
    ],
)
def test_patch_sizes_that_make_no_sense(make, sizes, arguments, message):
    sdata = make(sizes)
    with pytest.raises(ValueError, match=message):
        nm.tl.train(sdata, progress=False, **arguments)
    assert "train" not in sdata["table"].uns["nextmarker"]


def test_one_cell_is_not_enough(make):
    tissue = make((None,))
    tissue.tables["table"] = tissue["table"][:1].copy()
    with pytest.raises(ValueError, match="at least two cells"):
        nm.tl.train(tissue, 9, progress=False)


class Steps:
    """Counts the steps, and interrupts the training before its loss, or after a number of finished steps."""

    def __init__(self, monkeypatch, *, within=None, after=None):
        self.begun = self.finished = 0

        def loss(projections, temperature):
            self.begun += 1
            if self.begun == within:
                raise KeyboardInterrupt
            return nm.nn.nt_xent(projections, temperature)

        def step(*arguments):
            value = one_step(*arguments)
            self.finished += 1
            if self.finished == after:
                raise KeyboardInterrupt
            return value

        monkeypatch.setattr(TRAINING, "nt_xent", loss)
        monkeypatch.setattr(TRAINING, "_step", step)


def train(sdata, training, folder, **arguments):
    arguments = {"random_state": 3, **arguments}
    return nm.tl.train(sdata, 9, training=training, progress=False, checkpoint=folder, **arguments)


def loss_of(sdata):
    return sdata["table"].uns["nextmarker"]["train"]["loss"].tobytes()


ONCE = [{"within": 1}], [{"within": 3}], [{"after": 2}]
TWICE = [{"within": 2}, {"after": 1}]


@pytest.mark.parametrize("interruptions", [*ONCE, TWICE])
def test_an_interrupted_training_goes_on(make, training, trained, monkeypatch, tmp_path, interruptions):
    sdata = make()
    monkeypatch.setattr(KEPT, "SECONDS", 0)
    left = training.steps
    for interruption in interruptions:
        steps = Steps(monkeypatch, **interruption)
        torch.rand(3)  # the global generator does not matter
        with pytest.raises(KeyboardInterrupt):
            train(sdata, training, tmp_path)
        left -= steps.finished - (steps.finished == interruption.get("after"))  # which was not kept
        assert progress(tmp_path) == {"train": {"done": training.steps - left, "total": training.steps, "unit": "step"}}
        assert "nextmarker" not in sdata["table"].uns or "train" not in sdata["table"].uns["nextmarker"]
    steps = Steps(monkeypatch)
    model = train(sdata, training, tmp_path)
    assert steps.finished == left
    assert model.digest() == trained[1].digest()
    assert loss_of(sdata) == loss_of(trained[0])
    again = train(sdata, training, tmp_path)
    assert steps.finished == left
    assert again.digest() == model.digest()


def test_a_training_is_kept_at_its_end_and_rarely_before(make, training, monkeypatch, tmp_path):
    written = []
    keep = KEPT.Checkpoint.keep
    monkeypatch.setattr(KEPT.Checkpoint, "keep", lambda self, *arguments: (written.append(1), keep(self, *arguments)))
    train(make(), training, tmp_path)
    assert len(written) == 1


@pytest.mark.parametrize("change", ["seed", "training", "network", "pixels", "centres", "intensities"])
def test_a_state_of_another_training_is_not_continued(make, training, monkeypatch, tmp_path, change):
    train(make(), training, tmp_path)
    sdata, arguments = make(), {}
    if change == "seed":
        arguments["random_state"] = 4
    elif change == "training":
        training = replace(training, temperature=0.4)
    elif change == "network":
        arguments["network"] = nm.nn.NetworkConfig(log_threshold=0.1)
    elif change == "pixels":
        sdata["image_1"].data = sdata["image_1"].data.map_blocks(lambda block: block[..., ::-1])
    elif change == "centres":
        shapes = sdata.shapes["cells_image_0"]
        shapes.geometry = shapes.geometry.translate(0.25, 0)
    else:
        sdata["table"].X[0] += 1
    steps = Steps(monkeypatch)
    train(sdata, training, tmp_path, **arguments)
    assert steps.finished == training.steps
