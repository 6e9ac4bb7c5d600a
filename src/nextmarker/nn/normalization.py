"""Learned normalization: one sigmoid per marker (Eq. 1) and the penalty that keeps it plausible (Eq. 2)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Penalty = Literal["relative", "paper"]


def start_centres(sample: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Choose where the sigmoids start: a share of the 90th percentile of each marker's nonzero pixels.

    Parameters
    ----------
    sample
        Raw counts, (pixels, markers).
    share
        A half in the paper.

    Returns
    -------
    float64 (markers,); NaN for a marker without a single positive pixel.

    Examples
    --------
    >>> import numpy as np
    >>> start_centres(np.array([[0, 0], [4, 0], [4, 0]]))
    array([ 2., nan])
    """
    positive = (column[column > 0] for column in sample.T)
    return np.array([share * np.percentile(column, 90) if column.size else np.nan for column in positive])


class Normalization(nn.Module):
    """One sigmoid per marker, f(x) = 1 / (1 + exp(-4 x' (x - x_c))) (Eq. 1).

    Centre x_c and slope x' are learned as factors of where they start, x_c = start * exp(a) and
    x' = 2 / start * exp(b). So both stay positive, and one learning rate serves counts of 1 and of 10,000 alike.

    Parameters
    ----------
    start
        Starting centres in raw counts, (markers,).

    Examples
    --------
    >>> import torch
    >>> sigmoid = Normalization(torch.tensor([5.0]))
    >>> sigmoid(torch.tensor([0.0, 5.0, 10.0]).reshape(1, 1, 3, 1)).flatten().tolist()
    [0.0003353..., 0.5, 0.9996...]
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.float())
        self.log_centre = nn.Parameter(torch.zeros_like(self.start))
        self.log_slope = nn.Parameter(torch.zeros_like(self.start))

    @property
    def centre(self) -> Tensor:
        """x_c in raw counts, (markers,)."""
        return self.start * self.log_centre.exp()

    @property
    def slope(self) -> Tensor:
        """x', per raw count, (markers,)."""
        return 2 / self.start * self.log_slope.exp()

    def as_arrays(self) -> dict[str, np.ndarray]:
        """What is learned and where it started: `x_c`, `slope`, `x_c_start`, `slope_start`, float32 (markers,) each."""
        values = {"x_c": self.centre, "slope": self.slope, "x_c_start": self.start, "slope_start": 2 / self.start}
        return {name: value.detach().cpu().numpy() for name, value in values.items()}

    def forward(self, counts: Tensor) -> Tensor:
        """Map raw counts (cells, markers, height, width) to [0, 1]."""
        centre, slope = self.centre[:, None, None], self.slope[:, None, None]
        return torch.sigmoid(4 * slope * (counts - centre))

    def signal(self, counts: Tensor) -> Tensor:
        """f(x) - f(0): what a pixel shows above an empty one, so that no counts are no signal."""
        return self(counts) - torch.sigmoid(-4 * self.slope * self.centre)[:, None, None]

    def penalty(self, kind: Penalty) -> Tensor:
        """Penalize implausible sigmoids, summed over the markers.

        Parameters
        ----------
        kind
            `"paper"`: Eq. 2 as printed, in raw counts; together with a start below 2 counts it is active from the
            first step. `"relative"`: its third term free of units, max(0, 2 / (x' x_c) - 1), which keeps the background
            at zero; the other terms guard against values that this parametrization excludes.
        """
        centre, slope = self.centre, self.slope
        if kind == "relative":
            return torch.relu(2 / (slope * centre) - 1).sum()
        return (torch.relu(-centre) + torch.relu(slope - 1) + torch.relu(2 / slope - centre)).sum()
