"""The state of a training between two steps, from which it goes on as if it had not been interrupted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from nextmarker.nn.model import NeXtMarker


@dataclass
class TrainingState:
    """All that a step of the training changes, but for what draws the cells."""

    model: NeXtMarker
    head: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    losses: list[float]
    """Loss of every step done."""

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return everything as arrays, the losses as `loss`."""
        tensors = {
            "generator": self.generator.get_state(),
            "global_generator": torch.get_rng_state(),
            **_named("model", self.model.state_dict()),
            **_named("head", self.head.state_dict()),
        }
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors |= _named(f"optimizer/{number}", values)
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
        return {**arrays, "loss": np.array(self.losses)}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Return to the state of which `as_arrays` made arrays."""
        self.losses[:] = arrays["loss"].tolist()
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.model.load_state_dict(_unnamed("model", tensors))
        self.head.load_state_dict(_unnamed("head", tensors))
        content = self.optimizer.state_dict()
        count = sum(len(group["params"]) for group in content["param_groups"])
        content["state"] = {number: _unnamed(f"optimizer/{number}", tensors) for number in range(count)}
        self.optimizer.load_state_dict(content)
        self.generator.set_state(tensors["generator"])
        torch.set_rng_state(tensors["global_generator"])


class Kept(Protocol):
    """Keeps the state of a training."""

    def restore(self, state: TrainingState) -> None:
        """Bring a new training to the state that was kept, if there is one."""

    def after_step(self, state: TrainingState) -> None:
        """Keep the state if it is time."""


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _unnamed(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
