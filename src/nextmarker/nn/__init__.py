"""Tensors only: normalization, encoder, model, views, loss and the training loop."""

from nextmarker.nn.loss import nt_xent, random_nt_xent
from nextmarker.nn.model import Architecture, Network, NeXtMarker, load_model
from nextmarker.nn.normalization import Normalization
from nextmarker.nn.presets import PRESETS
from nextmarker.nn.training import Settings

__all__ = [
    "PRESETS",
    "Architecture",
    "NeXtMarker",
    "Network",
    "Normalization",
    "Settings",
    "load_model",
    "nt_xent",
    "random_nt_xent",
]
