"""Reports what was read from each file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._regions import require_images

if TYPE_CHECKING:
    from spatialdata import SpatialData


def report(sdata: SpatialData) -> pd.DataFrame:
    """Report what was read or skipped, and why.

    Parameters
    ----------
    sdata
        Object from `nm.io.read` or another reader of nextmarker, also after saving and reading it again.

    Returns
    -------
    One row for each image that was read and each part of a file that was skipped, all strings. The index, ``source``,
    is the file or folder with the part, numbered if there are several rows.

    ``status``
        ``"read"`` or ``"skipped"``.
    ``image``
        Name of the element in `sdata.images`, empty if none was read.
    ``note``
        What was changed or left out, or the reason for skipping.

    Raises
    ------
    KeyError
        If `sdata` was not read by nextmarker.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, nextmarker as nm
    >>> folder = tempfile.TemporaryDirectory()
    >>> header = {"axes": "CYX", "Channel": {"Name": ["DNA1", "CD3"]}}
    >>> tifffile.imwrite(f"{folder.name}/core.ome.tif", np.ones((2, 30, 40), np.uint16), metadata=header)
    >>> nm.io.report(nm.io.read(folder.name))[["status", "image"]].values.tolist()
    [['read', 'core']]
    >>> folder.cleanup()
    """
    require_images(sdata)
    if _keys.REPORT not in sdata.attrs:
        raise KeyError(no_such("report", _keys.REPORT, "sdata.attrs", sdata.attrs, "It is written by nm.io.read(...)."))
    rows = sdata.attrs[_keys.REPORT]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["status", "image", "note"]).rename_axis("source")
