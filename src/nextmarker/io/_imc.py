"""Imaging mass cytometry: .mcd files and the .txt exports that the instrument writes beside them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nextmarker.io._image import check_pixel_size, to_spatialdata
from nextmarker.io._imc_txt import read_alone
from nextmarker.io._mcd import read_all
from nextmarker.io._panel import choose_channels

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


def read_mcd(
    path: str | Path, *, panel: str | Path | pd.DataFrame | None = None, pixel_size: float | None = None
) -> SpatialData:
    """Read all acquisitions of an .mcd file (imaging mass cytometry), lazily.

    Parameters
    ----------
    path
        A file. The .txt exports beside it, `STEM_DESCRIPTION_ID.txt` for `STEM.mcd`, take the place of acquisitions
        that are damaged or incomplete. Panoramas are left out.
    panel
        Which channels to keep and what to call them; see :func:`nextmarker.io.read`.
    pixel_size
        Micrometres per pixel. By default what the file says, which is 1 as a rule.

    Returns
    -------
    SpatialData with one image per acquisition, float32 (c, y, x), named `STEM_DESCRIPTION_ID` as its export; dask, in
    blocks of all channels and 1024 x 1024 pixels, since the file stores the channels of a pixel together. See
    :func:`nextmarker.io.read` for what else it holds, and for how channels are named.

    An acquisition that stopped early has the rows that were scanned; what is missing of the last row is zero. One that
    holds no pixels or is damaged is skipped if it has no export. :func:`nextmarker.io.report` lists all of this.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `panel` or `pixel_size` is of the wrong type.
    ValueError
        If no acquisition can be read, or the panel is not valid or keeps a channel that no acquisition has. Computing
        pixels raises it if their places in the file are impossible.

    Warns
    -----
    UserWarning
        If an acquisition is skipped, incomplete, or was read from its export.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.io.read_mcd("slide.mcd")  # doctest: +SKIP
    >>> list(sdata.images)  # doctest: +SKIP
    ['slide_ROI_001_1', 'slide_ROI_002_2']
    >>> sdata["slide_ROI_001_1"]["c"].values.tolist()  # doctest: +SKIP
    ['DNA1', 'CD3', 'panCK']
    """
    check_pixel_size(pixel_size)
    return to_spatialdata(*choose_channels(*read_all(existing_file(path), pixel_size), panel))


def read_imc_txt(
    path: str | Path, *, panel: str | Path | pd.DataFrame | None = None, pixel_size: float | None = None
) -> SpatialData:
    r"""Read a .txt export of one acquisition (imaging mass cytometry), lazily.

    Parameters
    ----------
    path
        A file of tab-separated values, one line for each pixel, as the instrument writes it.
    panel
        Which channels to keep and what to call them; see :func:`nextmarker.io.read`.
    pixel_size
        Micrometres per pixel. The file does not tell; 1 by default, the distance between the shots of the laser.

    Returns
    -------
    SpatialData with one image, float32 (c, y, x), named as the file; values are rounded to three decimals in an export.
    See :func:`nextmarker.io.read` for what else it holds, and for how channels are named. The places of the pixels are
    read at once, their values when they are needed, and then the whole file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `panel` or `pixel_size` is of the wrong type.
    ValueError
        If the file is no such export, or rows are missing; if the panel is not valid or keeps a channel that is not
        there. Computing pixels raises it if a value is no number.

    Warns
    -----
    UserWarning
        If the acquisition is incomplete.

    Examples
    --------
    >>> import pathlib, tempfile, nextmarker as nm
    >>> columns = ["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", "CD3_12((34))Er170(Er170Di)"]
    >>> lines = [columns] + [[0, 0, 0, x, y, 0, x + y] for y in range(2) for x in range(3)]
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name, "slide_ROI_001_1.txt")
    >>> _ = path.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    >>> image = nm.io.read_imc_txt(path)["slide_ROI_001_1"]
    >>> image["c"].values.tolist(), image.sel(c="CD3").values.tolist()
    (['CD3'], [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])
    >>> folder.cleanup()
    """
    check_pixel_size(pixel_size)
    return to_spatialdata(*choose_channels(*read_alone(existing_file(path), pixel_size), panel))


def existing_file(path: str | Path) -> Path:
    """Refuse a path that is no file."""
    path = Path(path).expanduser()
    if not path.is_file():
        msg = f"{path} is a folder: read it with nm.io.read." if path.is_dir() else f"No such file: {path}."
        raise FileNotFoundError(msg)
    return path
