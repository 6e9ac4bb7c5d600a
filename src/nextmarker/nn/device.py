"""Where tensors live."""

from __future__ import annotations

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
        msg = f"device={device!r} cannot be used ({error}). Leave it out, and device={here!r} is used."
        raise ValueError(msg) from error
