"""The model, and the file that holds it."""

import pytest
import torch

from nextmarker.nn import Architecture, Network, NeXtMarker, load_model
from nextmarker.nn.device import pick_device

MARKERS = ("CD3", "CD20", "HLA-DR/DP")


def make_model(pixel_size=None, **network):
    torch.manual_seed(0)
    return NeXtMarker(Architecture(MARKERS, 10, pixel_size, Network(**network)), [2.0, float("nan"), 500.0]).eval()


@torch.inference_mode()
def test_embedding_is_the_sum_over_markers():
    model = make_model(features=4, embedding=6)
    interpretability, embedding = model(torch.rand(5, 3, 10, 10) * 500)
    by_marker = torch.einsum("mef,cmf->ce", model.crosstalk_by_marker(), interpretability)
    torch.testing.assert_close(by_marker + model.crosstalk.bias, embedding)


@torch.inference_mode()
@pytest.mark.parametrize(
    "network", [{}, {"axis": "linear"}, {"focus": None, "faint": None}, {"blocks": 0}, {"blocks": 3}]
)
@pytest.mark.parametrize("size", [6, 10, 25])
def test_counts_of_a_marker_change_only_its_block_of_i(network, size):
    """From raw counts to I, through every block, bit for bit."""
    model = NeXtMarker(Architecture(MARKERS, size, network=Network(**network)), [2.0, 40.0, 500.0]).eval()
    counts = torch.rand(7, 3, size, size) * torch.tensor([5.0, 90.0, 900.0])[:, None, None]
    before = model.interpret(counts)
    for m in range(3):
        changed = counts.clone()
        changed[:, m] = changed[:, m].flip(0) + 3
        after = model.interpret(changed)
        others = [other for other in range(3) if other != m]
        assert torch.equal(after[:, others], before[:, others])
        assert not torch.equal(after[:, m], before[:, m])


@torch.inference_mode()
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_no_counts_are_no_activation(axis):
    assert (make_model(axis=axis).interpret(torch.zeros(2, 3, 10, 10)) == 0).all()


@torch.inference_mode()
@pytest.mark.parametrize("axis", ["log", "linear"])
def test_a_saved_model_embeds_alike(tmp_path, axis):
    model = make_model(pixel_size=0.5, axis=axis, blocks=2, focus=None)
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.architecture == model.architecture
    assert loaded.digest() == model.digest()
    patches = torch.rand(5, 3, 10, 10) * 100
    for ours, theirs in zip(model(patches), loaded(patches), strict=True):
        assert torch.equal(ours, theirs)


def test_digest_tells_models_apart():
    model, other = make_model(), make_model()
    assert model.digest() == other.digest()
    assert model.digest() != make_model(axis="linear").digest()
    with torch.no_grad():
        other.crosstalk.bias[0] += 1e-3
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
        {"focus": 0.0},
        {"faint": -1.0},
    ],
)
def test_a_network_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.* must be "):
        Network(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"markers": ()}, {"markers": ("CD3", "CD3")}, {"patch_size": 2}, {"pixel_size": 0.0}]
)
def test_an_architecture_that_cannot_work_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}=.* must be "):
        Architecture(**{"markers": ("CD3",), "patch_size": 10, **wrong})


def test_a_model_is_read_from_a_path():
    with pytest.raises(TypeError, match="not from int"):
        load_model(3)


@pytest.mark.parametrize("device", ["gpu0", "cuda:99"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=rf"device='{device}' cannot be used.*device='(cpu|cuda)' is used"):
        pick_device(device)
