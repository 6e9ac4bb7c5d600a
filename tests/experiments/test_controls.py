import numpy as np
import pytest
import torch

import nextmarker as nm
from experiments.controls import embed_control, fix_arcsinh, fuse_early, leave_as_is, share_encoder
from nextmarker.nn import ModelConfig, NeXtMarker, TrainingConfig

COUNTS = torch.poisson(torch.full((5, 3, 16, 16), 2.0), generator=torch.Generator().manual_seed(0))


def make_model(change):
    torch.manual_seed(0)
    model = NeXtMarker(ModelConfig(("a", "b", "c"), 16), start=[1.0, 2.0, 3.0])
    change(model)
    return model


def test_a_shared_encoder_sees_every_marker_alike():
    model = make_model(share_encoder)
    model.normalization.start[:] = 1.0
    order = [2, 0, 1]
    torch.testing.assert_close(model.respond(COUNTS[:, order]), model.respond(COUNTS)[:, order])


def test_early_fusion_mixes_the_markers_and_keeps_the_widths():
    model, plain = make_model(fuse_early), make_model(leave_as_is)
    changed = COUNTS.clone()
    changed[:, 0] = 0
    assert model.respond(COUNTS).shape == plain.respond(COUNTS).shape
    assert not torch.equal(model.respond(COUNTS)[:, 1:], model.respond(changed)[:, 1:])
    assert torch.equal(plain.respond(COUNTS)[:, 1:], plain.respond(changed)[:, 1:])


def test_fixed_arcsinh_learns_nothing_of_the_counts():
    model = make_model(fix_arcsinh)
    torch.testing.assert_close(model.normalization.signal(COUNTS), torch.asinh(COUNTS))
    assert not list(model.normalization.parameters())


@pytest.mark.parametrize("training", [None, TrainingConfig(steps=2, batch_size=16)])
def test_the_unchanged_control_is_the_default(training):
    sdata = nm.datasets.synthetic_cells(60)
    nm.pp.add_cells(sdata, "truth_cells_1", progress=False)
    _, interpretability, embedding = embed_control(leave_as_is, 9, training, sdata, 0)
    assert interpretability.shape == (60, 5, 8)
    if training is not None:
        nm.tl.embed(sdata, nm.tl.train(sdata, 9, training=training, progress=False), progress=False)
        np.testing.assert_allclose(embedding, sdata["table"].obsm["X_nextmarker"], rtol=0, atol=1e-6)
