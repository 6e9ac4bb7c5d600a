"""What sets a cell apart, against its embedding and its pixels."""

import numpy as np
import pytest
import torch

import nextmarker as nm
from tests.tl.conftest import make_tissue


@pytest.fixture(scope="module")
def embedded():
    sdata = make_tissue()
    model = nm.tl.train(sdata, patch_size=12, training=nm.nn.TrainingConfig(steps=4, batch_size=48), progress=False)
    nm.tl.embed(sdata, model, progress=False)
    return sdata, model


def test_contributions_are_those_of_the_embedding(embedded):
    sdata, model = embedded
    adata = sdata["table"]
    attribution = nm.get.cell_attribution(sdata, adata.obs_names[20], model)
    difference = adata.obsm["X_nextmarker"][20] - adata.obsm["X_nextmarker"].mean(0)
    features = adata.obsm["X_interpretability"].reshape(adata.n_obs, adata.n_vars, -1)
    weights = model.crosstalk_by_marker().numpy()
    parts = np.einsum("mef,mf->me", weights, features[20] - features.mean(0))
    expected = parts @ difference / (difference @ difference)
    np.testing.assert_allclose(attribution["contribution"].sum(("y", "x")), expected, rtol=1e-3, atol=1e-5)
    assert float(attribution["contribution"].sum()) == pytest.approx(1, abs=1e-4)


def test_pixels_are_those_of_the_cell_and_the_contribution_is_where_they_are_bright(embedded):
    sdata, model = embedded
    adata = sdata["table"]
    bright = int(np.argmax(adata.layers["interpretability"][:, 1]))  # a cell with CD3
    attribution = nm.get.cell_attribution(sdata, bright, model)
    (cell, *_) = nm.get.views(sdata, bright, patch_size=12)
    np.testing.assert_array_equal(attribution["counts"], cell)
    counts, own = attribution["counts"].sel(marker="CD3"), attribution["contribution"].sel(marker="CD3")
    assert float(own.sum()) > 0
    inner = np.hypot(counts["y"], counts["x"]) < 5
    assert float(own.where(inner).sum()) > 0.8 * float(own.sum())


def test_the_parts_of_a_response_sum_to_it(embedded):
    _, model = embedded
    counts = torch.poisson(3 * torch.rand(5, 3, 12, 12))
    torch.testing.assert_close(model.locate(counts).sum((-2, -1)), model.respond(counts))


def test_large_patches_keep_their_sums():
    sdata = make_tissue()
    training = nm.nn.TrainingConfig(steps=2, batch_size=48)
    model = nm.tl.train(sdata, patch_size=21, training=training, progress=False)
    nm.tl.embed(sdata, model, progress=False)
    attribution = nm.get.cell_attribution(sdata, 3, model)
    assert attribution["contribution"].shape == (3, 21, 21)
    assert float(attribution["contribution"].sum()) == pytest.approx(1, abs=1e-4)


def test_another_model_is_named(embedded):
    sdata, model = embedded
    other = nm.nn.NeXtMarker(model.config, [1.0, 1.0, 1.0])
    name = sdata["table"].obs_names[0]
    with pytest.raises(ValueError, match=f"Another model embedded the cell '{name}'"):
        nm.get.cell_attribution(sdata, 0, other)
