"""The device that tensors are computed on."""

from __future__ import annotations

import torch


def pick_device(device: str | None = None) -> torch.device:
    """Choose the given device, otherwise a GPU if there is one, otherwise the CPU.

    Raises
    ------
    ValueError
        If the device does not exist.
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device or default).device
    except (RuntimeError, AssertionError) as error:  # the latter if torch was built without GPU support
        reason = str(error).partition("\n")[0]
        msg = f"device={device!r} cannot be used ({reason}). Without it, device={default!r} is used."
        raise ValueError(msg) from error


def to_device(counts: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move raw counts to a device, as float32 if it cannot index their dtype."""
    cpu_only = counts.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return (counts.float() if cpu_only and device.type != "cpu" else counts).to(device)
