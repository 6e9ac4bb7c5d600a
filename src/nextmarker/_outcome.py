"""Whether a training worked, from its record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

LEAST_GAIN = 0.05
"""Training worked if the mean similarity of views of the same cell exceeds that of different cells by this much."""


def training_worked(record: Mapping[str, Any]) -> bool:
    """Whether views of the same cell became more similar, which lowers the loss by up to 1 / temperature."""
    return bool(record["final_loss"] <= record["random_loss"] - LEAST_GAIN / record["temperature"])


def describe_outcome(record: Mapping[str, Any]) -> str:
    """Say in words whether a training worked.

    Examples
    --------
    >>> describe_outcome({"final_loss": 5.05, "random_loss": 6.25, "temperature": 0.1})
    'Training worked: the final loss, 5.05, is 1.20 below that of random embeddings, 6.25.'
    """
    final, random = record["final_loss"], record["random_loss"]
    if training_worked(record):
        gain = f"{random - final:.2f} below that of random embeddings, {random:.2f}"
        return f"Training worked: the final loss, {final:.2f}, is {gain}."
    return (
        f"Training did not work: the final loss is {final:.2f}, that of random embeddings {random:.2f}. Check the "
        "centres, nm.pl.cells(sdata), or train longer: training=nm.nn.TrainingConfig(steps=...)."
    )
