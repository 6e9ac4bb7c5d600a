"""Whether a training worked, niches are stable, cells fit the name of their cluster, and are like a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEAST_GAIN = 0.05
"""Training worked if the mean similarity of views of the same cell exceeds that of different cells by this much."""
LEAST_STABLE = 0.7
"""Niches are stable if repeated runs have at least this mean adjusted Rand index."""
LEAST_AGREEMENT = 0.5
"""A cluster fits its name if at least this share of its cells has that type by itself."""
NOTABLE = 0.05
"""Share of the cells of an image that are unlike a reference, from which on it is named."""


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


def are_stable(stability: Sequence[float]) -> bool:
    """Whether one of the numbers of niches that were tried is stable; also if only one was asked for."""
    return len(stability) == 0 or max(stability) >= LEAST_STABLE


def unlike_reference(obs: pd.DataFrame, outside: np.ndarray, in_reference: float, image_key: str) -> pd.DataFrame:
    """Find images many of whose cells are unlike all of a reference, the worst first.

    Parameters
    ----------
    outside
        Which cells are, bool (cells,).
    in_reference
        Share of the cells of the reference that are, by chance.

    Returns
    -------
    Share of such cells (`mean`), their number (`sum`), and all cells (`size`), by image.
    """
    images = obs[image_key].astype(str).to_numpy() if image_key in obs else np.full(len(obs), "all cells")
    shares = pd.Series(outside).groupby(images).agg(["mean", "sum", "size"])
    return shares[shares["mean"] > max(NOTABLE, 2 * in_reference)].sort_values("mean", ascending=False)
