"""The contrastive loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """NT-Xent for any number of views per cell.

    Each ordered pair of views of the same cell is a positive pair; the negatives are all views of all other cells. The
    loss is the mean over all positive pairs. With two views it is the loss of SimCLR.

    Parameters
    ----------
    projections
        (cells, views, dimensions); they are normalized to length 1.
    temperature
        0.5 in the paper.

    Examples
    --------
    >>> import torch
    >>> views = torch.eye(2)[:, None].expand(2, 2, 2)  # two cells, each with equal views, orthogonal to the other
    >>> float(nt_xent(views, temperature=0.5))  # log(1 + 2 exp(-2))
    0.2395...
    """
    cells, views, _ = projections.shape
    z = F.normalize(projections, dim=-1).flatten(0, 1)  # (cells * views, dimensions)
    similarity = z @ z.T / temperature
    cell = torch.arange(cells, device=z.device).repeat_interleave(views)
    same = cell[:, None] == cell
    negatives = similarity.masked_fill(same, -torch.inf).logsumexp(1)  # (cells * views,)
    pair = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = similarity[pair].reshape(len(z), views - 1)
    return (torch.logaddexp(positive, negatives[:, None]) - positive).mean()


def random_nt_xent(cells: int, views: int, temperature: float, dimensions: int) -> float:
    """NT-Xent of random projections, which the loss of a successful training must fall below.

    This is the mean for independent directions, uniform on the sphere. A projection then has n = (cells - 1) * views
    negatives with independent similarities s, and with m(t) = E exp(t s / temperature) the loss is

        log((n + 1) m(1)) - (m(2) / m(1)^2 - 1) / (2 (n + 1)),

    up to terms of second order in 1 / (n + 1). Equal projections have almost the same loss, log(n + 1).

    Parameters
    ----------
    cells
        Number of cells in a batch.
    views
        Views per cell.
    temperature
        As in `nt_xent`.
    dimensions
        Length of a projection, 2 or more.

    Examples
    --------
    >>> round(random_nt_xent(cells=256, views=2, temperature=0.5, dimensions=128), 3)
    6.252
    """
    similarity = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1]
    log_density = (dimensions - 3) / 2 * torch.log1p(-(similarity**2))

    def log_mean(times: int) -> float:
        weighted = log_density + times * similarity / temperature
        return float(weighted.logsumexp(0) - log_density.logsumexp(0))

    others = (cells - 1) * views + 1
    variance = math.expm1(log_mean(2) - 2 * log_mean(1))
    return math.log(others) + log_mean(1) - variance / (2 * others)
