"""The supervised control learns, from the cells it is given, in the patches that the embedding sees."""

import numpy as np
import pytest
import torch

import nextmarker as nm
from experiments import supervised
from experiments.synthetic import make_cells
from nextmarker.nn.patches import patch_margin


@pytest.fixture(scope="module")
def cells():
    return make_cells(200, seed=0)


@pytest.fixture(scope="module")
def model(cells):
    training = nm.nn.TrainingConfig(steps=2, batch_size=32, marker_dropout=0.0, penalty="paper")
    network = nm.nn.NetworkConfig(axis="linear", embedding=16, log_threshold=None, zero=False)
    return nm.tl.train(cells, 12, training=training, network=network, progress=False)


def test_it_sees_what_the_embedding_sees(cells, model):
    adata = cells["table"]
    nm.tl.embed(cells, model, progress=False)
    margin = patch_margin(12, 1.0, (0.66, 1.5))
    tile = supervised._pad(cells["cells_1"].to_numpy(), adata.obsm["spatial"], margin, torch.device("cpu"))
    weights = torch.nn.Linear(16, 7)
    expected = weights(torch.from_numpy(adata.obsm["X_nextmarker"])).argmax(1)
    assert (supervised._predict(model, weights, tile) == expected.numpy()).mean() > 0.99


def test_it_learns_types_and_repeats_itself(cells, model):
    adata = cells["table"]
    types = adata.obs["cell_type"].isin(["M4", "M4 M5"]).to_numpy().astype(int)
    learn, test = np.arange(120), np.arange(120, 200)
    training = nm.nn.TrainingConfig(steps=25, batch_size=64, marker_dropout=0.0, learning_rate=0.01)
    arguments = (cells["cells_1"].to_numpy(), adata.obsm["spatial"], types, learn)
    network = model.config, model.normalization.start, training
    predicted = supervised.classify_supervised(*arguments, *network)
    assert (predicted[test] == types[test]).mean() > 0.95
    np.testing.assert_array_equal(predicted, supervised.classify_supervised(*arguments, *network))
