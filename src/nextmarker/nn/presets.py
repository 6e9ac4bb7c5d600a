"""Settings and networks by name: the default, and the two experiments of the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from nextmarker.nn.model import Network
from nextmarker.nn.training import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

# The presets of the paper spell out all that the paper states, so that they stay when a default changes.
_PAPER_NETWORK: Final = Network(axis="linear", features=8, embedding=256, blocks=1, focus=None, faint=None, zero=False)

PRESETS: Final[Mapping[str, tuple[Settings, Network]]] = {
    "default": (Settings(), Network()),
    # Experiment 1. The paper tells neither how deep and how long, nor where the sigmoids start.
    "paper-synthetic": (
        Settings(
            steps=3000,
            batch_size=256,
            views=4,
            patch_scales=(1.0,),
            intensity_scaling=(0.9, 1.1),
            size_scaling=(0.9, 1.1),
            hidden_markers=0.0,
            swap_surroundings=False,
            whiten_features=False,
            within_images=False,
            temperature=0.5,
            learning_rate=1e-3,
            final_learning_rate=1e-3,
            ramp=0.0,
            tail=0.0,
            penalty="paper",
            start=0.25,
        ),
        replace(_PAPER_NETWORK, blocks=2),
    ),
    # Experiment 2: two views at each of three sizes, which are 10, 8 and 6 px with patch_size=10.
    "paper-imc": (
        Settings(
            steps=1200,
            batch_size=1024,
            views=2,
            patch_scales=(1.0, 0.8, 0.6),
            intensity_scaling=(0.5, 2.0),
            size_scaling=(0.66, 1.5),
            hidden_markers=0.0,
            swap_surroundings=False,
            whiten_features=False,
            within_images=False,
            temperature=0.5,
            learning_rate=1e-3,
            final_learning_rate=1e-4,
            ramp=100 / 1200,
            tail=100 / 1200,
            penalty="paper",
            start=0.5,
        ),
        _PAPER_NETWORK,
    ),
}
"""Settings and network of each preset, by its name."""
