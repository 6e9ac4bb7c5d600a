"""The contrastive loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(projections: Tensor, temperature: float) -> Tensor:
    """NT-Xent for any number of views per cell.

    Every ordered pair of views of one cell is a positive, set against all views of all other cells; the mean over all
    pairs. With two views this is the loss of SimCLR.

    Parameters
    ----------
    projections
        (cells, views, dimensions), of any length.
    temperature
        0.5 in the paper.

    Examples
    --------
    >>> import torch
    >>> views = torch.eye(2)[:, None].expand(2, 2, 2)  # two cells, their views alike, the cells orthogonal
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
