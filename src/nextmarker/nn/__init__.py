"""The network, on tensors only: normalization, encoder, model, patches, loss and training loop."""

from nextmarker.nn.loss import nt_xent, random_nt_xent
from nextmarker.nn.model import ModelConfig, NetworkConfig, NeXtMarker, load_model
from nextmarker.nn.normalization import Normalization
from nextmarker.nn.presets import PRESETS
from nextmarker.nn.training import TrainingConfig

__all__ = [
    "PRESETS",
    "ModelConfig",
    "NeXtMarker",
    "NetworkConfig",
    "Normalization",
    "TrainingConfig",
    "load_model",
    "nt_xent",
    "random_nt_xent",
]
