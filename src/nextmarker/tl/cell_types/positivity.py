"""Decides in which cells a marker is positive: thresholds from clusters, and how far a cell is above or below them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from skimage.filters import threshold_otsu

FAINT = float(np.log(2))
"""Activation below which a marker counts as faint; that of about half of a bright signal."""


@dataclass(frozen=True)
class Threshold:
    """Threshold of a marker, and the usual values below and above it."""

    value: float
    low: float
    """Mean of the cells at or below the threshold; the threshold if there are none."""
    high: float
    """Mean of the cells above the threshold; the threshold if there are none."""

    def positivity(self, values: np.ndarray) -> np.ndarray:
        """Compute how clearly a marker is positive: 0 at `low`, 0.5 at the threshold, 1 at `high`, (cells,)."""
        below = (
            np.interp(values, [self.low, self.value], [0.0, 0.5]) if self.low < self.value else np.zeros(len(values))
        )
        above = np.interp(values, [self.value, self.high], [0.5, 1.0])
        return np.where(values > self.value, above, below)


def at_threshold(values: np.ndarray, threshold: float) -> Threshold:
    """Describe a marker, (cells,), below and above a threshold."""
    above = values > threshold
    low = values[~above].mean() if not above.all() else threshold
    high = values[above].mean() if above.any() else threshold
    return Threshold(float(threshold), float(low), float(high))


def propose_threshold(values: np.ndarray, clusters: pd.Categorical, *, are_activations: bool = True) -> float:
    """Propose the threshold of a marker that best divides the clusters in two, by their means.

    Otsu's method on the square root of the mean of each cluster, so that a dim cluster is rather on the side of the
    bright ones than of those without the marker. Clusters are weighted by the square root of their number of cells, so
    that a large one does not outweigh a rare type. If the two groups of clusters differ by less than the standard
    deviation within clusters, the marker does not divide them: `FAINT` is then the threshold, above which all cells may
    have the marker, or below which all may lack it. Other values than activations have no such level, so the threshold
    then divides single cells. Cells without a cluster do not count.

    Parameters
    ----------
    values
        Values of the marker, (cells,).
    are_activations
        Whether these are activations.

    Returns
    -------
    Halfway between the two neighbouring means, or `FAINT`, or Otsu's threshold of the cells.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> propose_threshold(np.array([0.1, 0.1, 0.2, 0.9]), pd.Categorical(["a", "a", "b", "c"]))
    0.55
    """
    table = pd.DataFrame({"cluster": clusters.codes, "value": values})[clusters.codes >= 0]
    groups = table.groupby("cluster")["value"]
    mean, size, variance = (each.to_numpy() for each in (groups.mean(), groups.size(), groups.var(ddof=0)))
    order = np.argsort(mean, kind="stable")
    mean, size, variance = mean[order], size[order], variance[order]
    weight = np.sqrt(size)
    between = _between_groups(np.sign(mean) * np.sqrt(np.abs(mean)), weight)
    best = int((between**2 * _balance(weight)).argmax()) if between.size else 0
    within = np.sqrt(np.average(variance, weights=weight))
    if not between.size or _between_groups(mean, weight)[best] <= within:
        return FAINT if are_activations else float(threshold_otsu(values[clusters.codes >= 0]))
    return float((mean[best] + mean[best + 1]) / 2)


def _between_groups(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Difference between the weighted means of the higher and the lower values, for each place to divide them."""
    below, total = weight.cumsum()[:-1], (weight * values).cumsum()
    return (total[-1] - total[:-1]) / (weight.sum() - below) - total[:-1] / below


def _balance(weight: np.ndarray) -> np.ndarray:
    """Product of the weights of both groups, for each place to divide them."""
    below = weight.cumsum()[:-1]
    return below * (weight.sum() - below)
