"""Choosing a device, and moving counts to it unchanged."""

import numpy as np
import pytest
import torch

from nextmarker.nn.device import patches_at_once, pick_device, reproducible, to_device


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int32, np.float32])
def test_counts_keep_their_values_and_on_a_cpu_their_dtype(dtype):
    counts = np.array([[0, 1], [200, 255]], dtype)
    moved = to_device(torch.from_numpy(counts), torch.device("cpu"))
    np.testing.assert_array_equal(moved.numpy(), counts)
    assert moved.numpy().dtype == dtype


def test_wide_unsigned_counts_leave_the_cpu_as_floats():
    assert to_device(torch.zeros(2, dtype=torch.uint16), torch.device("meta")).dtype == torch.float32
    assert to_device(torch.zeros(2, dtype=torch.uint8), torch.device("meta")).dtype == torch.uint8


def test_of_a_long_error_the_first_line_is_told(monkeypatch):
    def fail(*_, **__):
        msg = "invalid device ordinal\nset CUDA_LAUNCH_BLOCKING=1"
        raise RuntimeError(msg)

    monkeypatch.setattr(torch, "empty", fail)
    with pytest.raises(
        ValueError, match=r"device='cuda:9' cannot be used \(invalid device ordinal\)\. Without it, device='"
    ):
        pick_device("cuda:9")


def test_a_gpu_computes_more_patches_at_once():
    assert patches_at_once(torch.device("cpu")) < patches_at_once(torch.device("meta"))


def test_gradients_are_reproducible_only_within_the_block():
    with reproducible():
        assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.deterministic
