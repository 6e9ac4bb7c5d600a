"""What became of each file while reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nextmarker import _keys

if TYPE_CHECKING:
    from spatialdata import SpatialData


def report(sdata: SpatialData) -> pd.DataFrame:
    """Tell what was read, what was skipped, and why.

    Parameters
    ----------
    sdata
        What `nm.io.read` or another reader of nextmarker returned; it may have been written and read back.

    Returns
    -------
    One row for each image read and each part of a file skipped, strings; the index, ``source``, is the file or folder
    and the part of it, numbered where one gave several rows.

    ``status``
        ``"read"`` or ``"skipped"``.
    ``image``
        Name of the element in `sdata.images`, empty where none was read.
    ``note``
        What was changed or left out while reading, or why it was skipped.

    Raises
    ------
    KeyError
        If `sdata` does not come from a reader of nextmarker.

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
    if _keys.REPORT not in sdata.attrs:
        msg = (
            f"No record of reading: sdata.attrs has no {_keys.REPORT!r}, it holds {sorted(sdata.attrs)}. "
            "Only what nm.io.read and the other readers return has one."
        )
        raise KeyError(msg)
    rows = sdata.attrs[_keys.REPORT]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["status", "image", "note"]).rename_axis("source")
