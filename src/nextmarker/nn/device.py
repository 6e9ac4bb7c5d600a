"""The device that tensors are computed on, and all that depends on it: the size of batches, and reproducibility.

All devices compute in float32. bfloat16 would change responses by 0.5 % (`benchmarks.gpu`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor

CACHED = 64
"""Patches per pass through the network on a CPU. What is computed of more does not fit into its caches."""
ON_GPU = 1024
"""Patches per pass on a GPU. They need about 0.5 GB with 41 markers and 24 pixels."""


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


def to_device(counts: Tensor, device: torch.device) -> Tensor:
    """Move raw counts to a device, as float32 if it cannot index their dtype."""
    cpu_only = counts.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return (counts.float() if cpu_only and device.type != "cpu" else counts).to(device)


def patches_at_once(device: torch.device) -> int:
    """Patches per pass through the network."""
    return CACHED if device.type == "cpu" else ON_GPU


def reproducible() -> AbstractContextManager[None]:
    """Compute gradients in the same order each time, on a GPU too."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True)  # type: ignore[no-any-return]
