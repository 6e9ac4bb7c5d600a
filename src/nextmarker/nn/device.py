"""Where tensors live."""

from __future__ import annotations

import torch


def pick_device(device: str | None = None) -> torch.device:
    """Take the device asked for, else a GPU, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
