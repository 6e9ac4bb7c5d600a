"""Configurations of training and network by name: the default, and the two experiments of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nextmarker.nn.model import NetworkConfig
from nextmarker.nn.training import TrainingConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

# The presets of the paper give all fields, so that they do not change with the defaults.
_PAPER_NETWORK: Final = NetworkConfig(
    axis="linear", features=8, embedding=256, blocks=1, pool_sigmas=(), log_threshold=None, zero=False
)

PRESETS: Final[Mapping[str, tuple[TrainingConfig, NetworkConfig]]] = {
    "default": (TrainingConfig(), NetworkConfig()),
    # Experiment 1. The paper states neither the depth, the length of training nor the initial sigmoids.
    "paper-synthetic": (
        TrainingConfig(
            steps=3000,
            batch_size=256,
            views=4,
            patch_scales=(1.0,),
            intensity_scaling=(0.9, 1.1),
            size_scaling=(0.9, 1.1),
            marker_dropout=0.0,
            swap_surroundings=False,
            whiten_features=False,
            batch_by_image=False,
            temperature=0.5,
            learning_rate=1e-3,
            final_learning_rate=1e-3,
            warmup=0.0,
            cooldown=0.0,
            penalty="paper",
            sigmoid_start=0.25,
        ),
        replace(_PAPER_NETWORK, blocks=2),
    ),
    # Experiment 2: two views at each of three sizes, 10, 8 and 6 px with patch_size=10.
    "paper-imc": (
        TrainingConfig(
            steps=1200,
            batch_size=1024,
            views=2,
            patch_scales=(1.0, 0.8, 0.6),
            intensity_scaling=(0.5, 2.0),
            size_scaling=(0.66, 1.5),
            marker_dropout=0.0,
            swap_surroundings=False,
            whiten_features=False,
            batch_by_image=False,
            temperature=0.5,
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            warmup=100 / 1200,
            cooldown=100 / 1200,
            penalty="paper",
            sigmoid_start=0.5,
        ),
        _PAPER_NETWORK,
    ),
}
"""Configurations of training and network by preset name."""
