"""The model, and the file that holds it."""

import numpy as np
import pytest
import torch

from nextmarker.nn import ModelConfig, NetworkConfig, NeXtMarker, load_model
from nextmarker.nn.device import pick_device

MARKERS = ("CD3", "CD20", "HLA-DR/DP")


def make_model(pixel_size=None, **network):
    torch.manual_seed(0)
    return NeXtMarker(ModelConfig(MARKERS, 10, pixel_size, NetworkConfig(**network)), [2.0, float("nan"), 500.0]).eval()


@torch.inference_mode()
def test_embedding_is_the_sum_over_markers():
    model = make_model(features=4, embedding=6)
    interpretability, embedding = model(torch.rand(5, 3, 10, 10) * 500)
    by_marker = torch.einsum("mef,cmf->ce", model.crosstalk_by_marker(), interpretability)
    torch.testing.assert_close(by_marker + model.crosstalk.bias, embedding)


@torch.inference_mode()
@pytest.mark.parametrize(
    "network",
    [{}, {"axis": "linear"}, {"pool_sigmas": (), "log_threshold": None, "zero": False}, {"blocks": 0}, {"blocks": 3}],
)
@pytest.mark.parametrize("size", [6, 10, 25])
def test_counts_of_a_marker_change_only_its_block_of_i(network, size):
    """From raw counts to I, through every block, bit for bit."""
    model = NeXtMarker(ModelConfig(MARKERS, size, network=NetworkConfig(**network)), [2.0, 40.0, 500.0]).eval()
    counts = torch.rand(7, 3, size, size) * torch.tensor([5.0, 90.0, 900.0])[:, None, None]
    zero = torch.rand(3, 8) * 0.05
    before, _ = model(counts, zero)
    for m in range(3):
        changed = counts.clone()
        changed[:, m] = changed[:, m].flip(0) + 3
        after, _ = model(changed, zero)
        others = [other for other in range(3) if other != m]
        assert torch.equal(after[:, others], before[:, others])
        assert not torch.equal(after[:, m], before[:, m])


@torch.inference_mode()
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_no_counts_are_no_activation(axis):
    interpretability, _ = make_model(axis=axis)(torch.zeros(2, 3, 10, 10))
    assert (interpretability == 0).all()


@torch.inference_mode()
def test_a_marker_without_counts_has_no_activation_whatever_the_zero_of_its_image():
    counts = torch.rand(4, 3, 10, 10) * 50
    counts[:, 1] = 0
    for zero in (None, torch.zeros(3, 8), torch.full((3, 8), 0.01)):
        interpretability, _ = make_model()(counts, zero)
        assert (interpretability[:, 1] == 0).all()
        assert (interpretability[:, [0, 2]].sum(2) > 0).all()


@torch.inference_mode()
@pytest.mark.parametrize("log_threshold", [0.01, 0.2, None])
def test_i_is_what_lies_above_the_zero_on_the_scale_of_the_marker(log_threshold):
    model = make_model(log_threshold=log_threshold)
    model.threshold.copy_(torch.tensor([0.001, 0.02, 0.3]))
    response, zero = torch.rand(6, 3, 8), torch.rand(3, 8) / 2
    above = (response - zero).clamp(min=0).double().numpy()
    expected = above
    if log_threshold is not None:
        expected = np.log(1 + above / np.array([0.001, 0.02, 0.3])[:, None]) / np.log(1 + 1 / log_threshold)
    np.testing.assert_allclose(model.interpret(response, zero), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.interpret(response), model.interpret(response, torch.zeros(3, 8)))
    of_each_cell = zero.expand(6, 3, 8)
    assert torch.equal(model.interpret(response, of_each_cell), model.interpret(response, zero))


@torch.inference_mode()
def test_i_is_0_at_the_zero_1_at_bright_signal_and_linear_below_the_threshold():
    model = make_model(log_threshold=0.1)
    bright = torch.tensor([0.02, 0.1, 0.5])[:, None].expand(3, 8)
    model.threshold.copy_(0.1 * bright[:, 0])
    zero = torch.rand(3, 8)
    assert (model.interpret(zero[None], zero) == 0).all()
    assert (model.interpret(zero[None] / 2, zero) == 0).all()
    torch.testing.assert_close(model.interpret(bright[None]), torch.ones(1, 3, 8))
    steps = torch.tensor([0.001, 0.002, 0.004])[:, None, None]
    faint = model.interpret(steps * bright)
    torch.testing.assert_close(faint / faint[:1], steps.expand(3, 3, 8) / 0.001, rtol=0.02, atol=0)


@torch.inference_mode()
def test_embedding_is_linear_in_i():
    model = make_model()
    first, second = torch.rand(2, 5, 3, 8)
    mixed = model.crosstalk((0.3 * first + 0.7 * second).flatten(1))
    torch.testing.assert_close(
        mixed, 0.3 * model.crosstalk(first.flatten(1)) + 0.7 * model.crosstalk(second.flatten(1))
    )
    interpretability, embedding = model(torch.rand(5, 3, 10, 10) * 50, torch.full((3, 8), 0.01))
    assert torch.equal(embedding, model.crosstalk(interpretability.flatten(1)))


@torch.inference_mode()
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_a_saved_model_embeds_alike(tmp_path, axis):
    model = make_model(pixel_size=0.5, axis=axis, blocks=2, pool_sigmas=())
    model.threshold.copy_(torch.tensor([0.01, 0.2, 0.3]))
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.config == model.config
    assert loaded.digest() == model.digest()
    patches, zero = torch.rand(5, 3, 10, 10) * 100, torch.full((3, 8), 0.01)
    for ours, theirs in zip(model(patches, zero), loaded(patches, zero), strict=True):
        assert torch.equal(ours, theirs)


def test_digest_tells_models_apart():
    model, other = make_model(), make_model()
    assert model.digest() == other.digest()
    assert model.digest() != make_model(axis="linear").digest()
    with torch.no_grad():
        other.crosstalk.bias[0] += 1e-3
    assert model.digest() != other.digest()
    other = make_model()
    other.threshold[0] += 1e-3
    assert model.digest() != other.digest()


def test_a_missing_file_says_how_to_write_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="nm.tl.train"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "wrong",
    [
        {"axis": "cubic"},
        {"features": 0},
        {"features": 8.5},
        {"embedding": 0},
        {"blocks": -1},
        {"pool_sigmas": (0.1, 0.0)},
        {"log_threshold": -1.0},
    ],
)
def test_a_network_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.* must be "):
        NetworkConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"markers": ()}, {"markers": ("CD3", "CD3")}, {"patch_size": 2}, {"pixel_size": 0.0}]
)
def test_an_architecture_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.* must be "):
        ModelConfig(**{"markers": ("CD3",), "patch_size": 10, **wrong})


def test_a_model_is_read_from_a_path():
    with pytest.raises(TypeError, match="of type int"):
        load_model(3)


@pytest.mark.parametrize("device", ["gpu0", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used.*device='(cpu|cuda)' is used"):
        pick_device(device)
