"""Histograms of the markers of an annotation, with their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._provenance import read_annotation
from nextmarker._record import read_record, record_name
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

BLUE, ORANGE = "#56B4E9", "#D55E00"
COLUMNS = 5
BINS = 60


def thresholds(
    data: AnnData | SpatialData,
    markers: Sequence[str] | None = None,
    *,
    key: str = _keys.CELL_TYPE,
    table_key: str = _keys.TABLE,
) -> np.ndarray:
    """Draw the activation of each marker in all cells, and the threshold above which it counts as positive.

    Use it to check the thresholds that `nm.tl.annotate` proposed, and to choose others. The line is the threshold,
    dashed if it is of one cell type only; the share of cells above it is written beside the marker. The number of cells
    is on a logarithmic axis, so that rare positive cells are visible.

    Parameters
    ----------
    data
        Table after `nm.tl.annotate`, or the SpatialData object that contains it.
    markers
        Markers to draw; by default all that the signatures name.
    key
        Name of the annotation, the `key_added` of `nm.tl.annotate`.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    Axes, one for each marker, object array (markers,).

    Raises
    ------
    KeyError
        If the table, the annotation, its layer or a marker does not exist.
    ValueError
        If clusters or types were changed after the annotation.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> activation = np.repeat([[0.9, 0.1], [0.0, 0.8]], 20, axis=0)
    >>> adata = AnnData(
    ...     obs=pd.DataFrame({"nextmarker": pd.Categorical(np.repeat(["0", "1"], 20))}, np.arange(40).astype(str)),
    ...     var=pd.DataFrame(index=["CD3", "CD20"]),
    ...     layers={"interpretability": activation},
    ... )
    >>> nm.tl.annotate(adata, {"T cell": "CD3+ CD20-", "B cell": "CD20+ CD3-"})
    >>> axes = nm.pl.thresholds(adata)
    >>> [ax.get_title() for ax in axes]
    ['CD3: 50 % positive', 'CD20: 50 % positive']
    """
    adata = get_table(data, table_key)
    record = read_record(adata, record_name(_keys.ANNOTATE_STEP, key))
    call = "nm.tl.annotate(adata, signatures)"
    if not record:
        there = adata.uns.get(_keys.RECORD, {})
        raise KeyError(no_such("annotation", key, f".uns[{_keys.RECORD!r}]", there, f"Write it with {call}."))
    read_annotation(adata, key)
    require(adata, "layers", record["layer"], call)
    used = record["thresholds"]
    known = used["marker"].drop_duplicates().tolist()
    lacking = [name for name in markers or known if name not in known or name not in adata.var_names]
    if lacking:
        raise KeyError(no_such("marker", lacking, "the annotation", known, "Choose others: markers=[...]."))
    axes = _grid(len(markers or known))
    for ax, marker in zip(axes, markers or known, strict=True):
        values = adata[:, [marker]].to_df(record["layer"])[marker].to_numpy()
        _draw(ax, values, used[used["marker"] == marker])
    axes[0].figure.supylabel("cells", fontsize="medium")
    layer = str(record["layer"])
    axes[0].figure.supxlabel("activation" if layer == _keys.INTERPRETABILITY else layer, fontsize="medium")
    return axes


def _grid(n: int) -> np.ndarray:
    rows = -(-n // COLUMNS)
    columns = -(-n // rows)  # as few empty places as possible
    figure, grid = plt.subplots(rows, columns, figsize=(2.3 * columns, 1.7 * rows), squeeze=False, layout="constrained")
    for ax in grid.flat[n:]:
        figure.delaxes(ax)
    return grid.ravel()[:n]


def _draw(ax: Axes, values: np.ndarray, used: pd.DataFrame) -> None:
    common = used["threshold"].mode()[0]
    ax.hist(values, bins=BINS, color=BLUE)
    for threshold in used["threshold"].unique():
        ax.axvline(threshold, color=ORANGE, linestyle="-" if threshold == common else "--", linewidth=1.2)
    ax.set_yscale("log")
    ax.set_title(f"{used['marker'].iloc[0]}: {100 * (values > common).mean():.0f} % positive", fontsize="small")
    ax.tick_params(labelsize="x-small")
