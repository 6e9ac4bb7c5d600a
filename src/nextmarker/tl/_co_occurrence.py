"""Which cell types occur together, by distance, image by image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_value
from nextmarker._record import record_name, refuse_foreign_keys, write_results
from nextmarker._table import get_table
from nextmarker.tl._space import Images, count_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def co_occurrence(
    data: AnnData | SpatialData,
    groupby: str = _keys.CELL_TYPE,
    *,
    distances: Sequence[float] = (10, 20, 30, 50, 75, 100),
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.CO_OCCURRENCE,
    table_key: str = _keys.TABLE,
) -> None:
    """Measure which cell types occur together within a distance, in each image by itself.

    The ratio is the share of a type among all cells within the distance of the cells of another type, divided by its
    share among those around all cells: 2 means twice as frequent. squidpy's `sq.gr.co_occurrence` computes it.

    All pairs of cells are looked at, so the time grows with the square of the cells of an image: about 0.5 seconds for
    5,000 cells, a hundred times as long for 50,000. squidpy needs much memory for many cells, types and distances.

    Parameters
    ----------
    data
        Table of cells with types and positions, or the SpatialData object that contains it.
    groupby
        Column of `.obs` with cell types or clusters. Cells without a type are left out.
    distances
        Distances in the unit of `.obsm["spatial"]`: micrometres if the pixel size is known, otherwise pixels. Each
        includes all cells that are nearer.
    image_key
        Column of `.obs` with the images. Cells without an image are left out.
    key_added
        Name of the result.
    table_key
        Name of the table in the SpatialData object.

    Returns
    -------
    None. Writes into the table:

    - `.uns[key_added]`: a table with one row for each image, pair of types and distance, and the columns `image`,
      `cell_type`, `neighbor`, `distance` and `ratio`, how frequent the type `neighbor` is around cells of `cell_type`.
      It is NaN if the image lacks one of the types, or one of them has no other cell within the distance
    - `.uns["nextmarker"]["co_occurrence"]`, or `["co_occurrence_<key_added>"]` for another `key_added`: a record of the
      parameters

    Raises
    ------
    KeyError
        If the table, a column or the positions are missing.
    ValueError
        If distances are not positive and ascending, no cell has both a type and an image, positions are not finite,
        images of several patients have the same name, or the result would replace something that nextmarker did not
        write. The table is not changed.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> x, y = np.divmod(np.arange(200), 10)
    >>> # each type in its own part of the image
    >>> obs = pd.DataFrame(
    ...     {"image": "core_1", "cell_type": np.where(x < 10, "T", "B")}, x.astype(str) + "," + y.astype(str)
    ... )
    >>> adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x, y]).astype(float)})
    >>> nm.tl.co_occurrence(adata, distances=[1, 20])
    >>> adata.uns["co_occurrence"].query("cell_type == 'B'")[["neighbor", "distance", "ratio"]].round(1)
      neighbor  distance  ratio
    0        B       1.0    1.9
    1        B      20.0    1.0
    2        T       1.0    0.1
    3        T      20.0    1.0
    """
    adata = get_table(data, table_key)
    steps = np.asarray(distances, dtype=float)
    ascending = steps.size > 0 and np.isfinite(steps).all() and (np.diff(steps, prepend=0) > 0).all()
    check_value("distances", distances, bool(ascending), "positive and ascending")
    refuse_foreign_keys(adata, [f"uns/{key_added}"], _keys.CO_OCCURRENCE)
    images = Images(adata, groupby, image_key)

    n_types = len(images.types)
    ratios = np.full((len(images.names), n_types, n_types, len(steps)), np.nan)
    for number, (_, rows) in enumerate(images):
        typed = rows[images.codes[rows] >= 0]
        if len(typed) > 1:
            present, codes = np.unique(images.codes[typed], return_inverse=True)
            ratios[number][np.ix_(present, present)] = _without_empty(
                count_together(images.positions[typed], codes, steps)
            )

    image, first, second, step = np.indices(ratios.shape).reshape(4, -1)
    columns = {
        "image": pd.Categorical.from_codes(image, images.names),
        "cell_type": pd.Categorical.from_codes(first, images.types),
        "neighbor": pd.Categorical.from_codes(second, images.types),
        "distance": steps[step],
        "ratio": ratios.ravel(),
    }
    table = pd.DataFrame(columns, index=np.arange(ratios.size).astype(str))
    record = {"groupby": groupby, "image_key": image_key, "distances": steps}
    write_results(adata, record_name(_keys.CO_OCCURRENCE, key_added), {f"uns/{key_added}": table}, record)


def _without_empty(ratios: np.ndarray) -> np.ndarray:
    """Put NaN where a type has no cell within the distance at all; squidpy has 0."""
    alone = (ratios == 0).all(axis=1, keepdims=True) | (ratios == 0).all(axis=0, keepdims=True)
    return np.where(alone, np.nan, ratios)
