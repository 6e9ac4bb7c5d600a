"""Learned normalization: one sigmoid per marker (Eq. 1), and a penalty on implausible sigmoids (Eq. 2)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Penalty = Literal["relative", "paper"]
Axis = Literal["log", "linear"]

_LEAST = -85.0
"""Logarithm of the counts up to which a pixel is empty; float32 has no precise numbers below."""
_OF_EMPTY = -1e30
"""Taken as the logarithm of an empty pixel: its sigmoid is exactly zero, and the product of the two is not NaN."""


def start_centres(sample: np.ndarray, fraction: float = 0.5) -> np.ndarray:
    """Choose the initial centres of the sigmoids: a fraction of the 90th percentile of each marker's nonzero pixels.

    Parameters
    ----------
    sample
        Raw counts, (pixels, markers).
    fraction
        0.5 in the paper.

    Returns
    -------
    float64 (markers,); NaN for a marker without positive pixels.

    Examples
    --------
    >>> import numpy as np
    >>> start_centres(np.array([[0, 0], [4, 0], [4, 0]]))
    array([ 2., nan])
    """
    positive = (column[column > 0] for column in sample.T)
    return np.array([fraction * np.percentile(column, 90) if column.size else np.nan for column in positive])


class Normalization(nn.Module):
    """One sigmoid per marker, f(x) = 1 / (1 + exp(-4 x' (x - x_c))) (Eq. 1), on a linear or a logarithmic axis.

    On the logarithmic axis x and x_c are replaced by their logarithms, so f(x) = x^n / (x^n + x_c^n) with n = 4 x'. It
    rises over several orders of magnitude, where the sigmoid of the paper, on the linear axis, acts as a threshold,
    and maps zero counts to exactly zero.

    Centre and slope are learned as factors of their initial values, x_c = start * exp(a) and x' = x'_start * exp(b),
    with x'_start = 2 / start on the linear axis and 1 / 4 on the logarithmic one. So both stay positive, and one
    learning rate suits counts of 1 and of 10,000.

    Parameters
    ----------
    start
        Initial centres in raw counts, (markers,).
    axis
        `"linear"` in the paper.

    Examples
    --------
    >>> import torch
    >>> counts = torch.tensor([0.0, 1.0, 5.0, 10.0]).reshape(1, 1, 4, 1)
    >>> Normalization(torch.tensor([5.0]), "linear")(counts).flatten().tolist()
    [0.0003353..., 0.0016588..., 0.5, 0.9996...]
    >>> Normalization(torch.tensor([5.0]), "log")(counts).flatten().tolist()
    [0.0, 0.1666..., 0.5, 0.6666...]
    """

    start: Tensor

    def __init__(self, start: Tensor, axis: Axis = "log") -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("start", start.float())
        self.log_centre = nn.Parameter(torch.zeros_like(self.start))
        self.log_slope = nn.Parameter(torch.zeros_like(self.start))

    @property
    def centre(self) -> Tensor:
        """x_c in raw counts, (markers,)."""
        return self.start * self.log_centre.exp()

    @property
    def slope_start(self) -> Tensor:
        """Initial x', (markers,)."""
        return 2 / self.start if self.axis == "linear" else torch.full_like(self.start, 1 / 4)

    @property
    def slope(self) -> Tensor:
        """x', (markers,): per raw count on the linear axis, without a unit on the logarithmic one."""
        return self.slope_start * self.log_slope.exp()

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Learned and initial values: `x_c`, `slope`, `x_c_start`, `slope_start`, float32 (markers,) each."""
        values = {
            "x_c": self.centre,
            "slope": self.slope,
            "x_c_start": self.start,
            "slope_start": self.slope_start,
        }
        return {name: value.detach().cpu().numpy() for name, value in values.items()}

    def forward(self, counts: Tensor) -> Tensor:
        """Map raw counts (cells, markers, height, width) to [0, 1]."""
        centre, slope = self.centre[:, None, None], self.slope[:, None, None]
        if self.axis == "linear":
            return torch.sigmoid(4 * slope * (counts - centre))
        # the logarithm of zero would make the gradient NaN, and takes ten times as long
        log_counts = F.threshold(counts.clamp(min=math.exp(_LEAST - 1)).log(), _LEAST, _OF_EMPTY)
        return torch.sigmoid(4 * slope * (log_counts - centre.log()))

    def signal(self, counts: Tensor) -> Tensor:
        """Compute f(x) - f(0), the signal above that of an empty pixel."""
        signal = self(counts)
        return signal if self.axis == "log" else signal - self(torch.zeros_like(counts[:1, :, :1, :1]))

    def penalty(self, kind: Penalty) -> Tensor:
        """Penalize implausible sigmoids, summed over the markers.

        Parameters
        ----------
        kind
            `"paper"`: Eq. 2 as printed, in raw counts, for the linear axis. With initial centres below 2 counts it is
            active from the first step. `"relative"`: only the term of Eq. 2 that does not hold by construction, free of
            units: max(0, 2 / (x' x_c) - 1) on the linear axis, which keeps the background at zero, or max(0, x' - 1) on
            the logarithmic axis, which keeps the sigmoid from becoming a threshold.
        """
        centre, slope = self.centre, self.slope
        if kind == "paper":
            return (torch.relu(-centre) + torch.relu(slope - 1) + torch.relu(2 / slope - centre)).sum()
        if self.axis == "linear":
            return torch.relu(2 / (slope * centre) - 1).sum()
        return torch.relu(slope - 1).sum()
