"""Where tensors live."""

from __future__ import annotations

import numpy as np
import torch


def pick_device(device: str | None = None) -> torch.device:
    """Take the device asked for, else a GPU, else the CPU.

    Raises
    ------
    ValueError
        If there is no such device.
    """
    here = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device or here).device
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without GPUs
        reason = str(error).partition("\n")[0]
        msg = f"device={device!r} cannot be used ({reason}). Leave it out, and device={here!r} is used."
        raise ValueError(msg) from error


def to_device(counts: np.ndarray, device: torch.device) -> torch.Tensor:
    """Move raw counts to a device, in their dtype where it can index them."""
    tensor = torch.from_numpy(counts)
    wide_unsigned = counts.dtype.kind == "u" and counts.dtype.itemsize > 1  # torch indexes these on the CPU alone
    return (tensor.float() if wide_unsigned and device.type != "cpu" else tensor).to(device)
