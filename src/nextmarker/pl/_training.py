"""Loss and learning rate during training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._record import read_record
from nextmarker._table import get_table

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

BLUE, ORANGE = "#0072B2", "#D55E00"


def training(data: AnnData | SpatialData, *, table_key: str = _keys.TABLE, ax: Axes | None = None) -> Axes:
    """Draw the loss of each training step, its running mean, and the learning rate.

    The dashed line is the loss of random embeddings; if training works, the loss falls clearly below it.

    Parameters
    ----------
    data
        Table after `nm.tl.train`, or `nm.tl.embed` without a model, or the SpatialData object that contains it.
    table_key
        Name of the table in the SpatialData object.
    ax
        Axes to draw on; by default a new figure.

    Returns
    -------
    Axes of the loss. The learning rate is on a second y-axis.

    Raises
    ------
    KeyError
        If the table does not exist, or no model was trained on it.

    Examples
    --------
    >>> import numpy as np, nextmarker as nm
    >>> from anndata import AnnData
    >>> record = {"loss": np.linspace(5, 3, 100), "random_loss": 6.25, "learning_rates": np.full(100, 0.001)}
    >>> ax = nm.pl.training(AnnData(uns={"nextmarker": {"train": record}}))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('step', 'loss')
    """
    trained = read_record(get_table(data, table_key), "train")
    if not trained:
        msg = "No model was trained on this table. Train one: nm.tl.train(sdata)."
        raise KeyError(msg)
    loss = pd.Series(np.asarray(trained["loss"], dtype=float), name="loss")
    loss.index += 1

    if ax is None:
        _, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
    running_mean = loss.rolling(max(len(loss) // 20, 1), center=True, min_periods=1).mean()
    ax.plot(loss, color=BLUE, alpha=0.3, linewidth=0.8, label="loss per step")
    ax.plot(running_mean, color=BLUE, linewidth=1.8, label="running mean")
    ax.axhline(trained["random_loss"], color="0.4", linewidth=1, linestyle="--", label="random embeddings")
    ax.set(xlabel="step", ylabel="loss", xlim=(1, max(len(loss), 2)))
    rates = ax.twinx()
    rates.plot(loss.index, trained["learning_rates"], color=ORANGE, linewidth=1, label="learning rate")
    rates.set_ylabel("learning rate", color=ORANGE)
    rates.tick_params(axis="y", colors=ORANGE)
    rates.set_ylim(bottom=0)
    lines = [*ax.get_lines(), *rates.get_lines()]
    labels = [str(line.get_label()) for line in lines]
    ax.legend(lines, labels, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize="small")
    return ax
