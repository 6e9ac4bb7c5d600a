"""Writes cells and their clusters as GeoJSON for QuPath."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from shapely import points

from nextmarker import _keys
from nextmarker._errors import no_such
from nextmarker._files import replaced_files
from nextmarker._palette import PALETTE
from nextmarker._regions import circle_radii, read_regions
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region

CORNERS = 4  # per quarter of a circle, with the extreme points
DECIMALS = 2  # of a pixel, as QuPath itself writes


def write_geojson(
    sdata: SpatialData,
    path: str | Path,
    *,
    groupby: str = _keys.CLUSTERS,
    measurements: Sequence[str] = (),
    table_key: str = _keys.TABLE,
) -> list[Path]:
    """Write the cells as GeoJSON for QuPath: detections, classified by cluster, in pixel coordinates.

    In QuPath, open the image and drop the file on it, or choose *File > Import objects from file*. Both programs count
    coordinates in pixels of the full-resolution image from its top left corner, and the first pixel covers (0, 0) to
    (1, 1), so nothing is shifted by half a pixel.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    path
        The file, ``*.geojson``. If the table has cells of several images, one file per image is written: instead of
        ``cells.geojson``, ``cells_<image>.geojson``. Existing files are replaced, either all or none. A symbolic link
        is replaced by the file; its target is not changed.
    groupby
        Column of ``.obs`` with the class of each cell: text or categories. Colours are those of the figures: scanpy's
        ``.uns[f"{groupby}_colors"]`` if they exist, otherwise ours; beyond 30 classes QuPath chooses them.
    measurements
        Markers (mean raw counts in the circle) and numeric columns of ``.obs`` to write for each cell.
    table_key
        Name of the table in ``sdata.tables``.

    Returns
    -------
    Paths of the files. Each is a FeatureCollection of detections with outline (a circle, as a polygon marked as an
    ellipse), name, class with colour, and measurements. Cells without a class are written without one; values that are
    not finite are left out.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If `path`, or the path of the file of one image, is a folder.
    KeyError
        If the table, a column or a marker does not exist.
    OSError
        If the folder is not writable or the disk is full. Existing files are kept.
    TypeError
        If the column `groupby` contains numbers, a measurement contains text, or `path` is not a path.
    ValueError
        If the table does not match the circles.

    Examples
    --------
    >>> import json, tempfile, nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=50)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=6, progress=False)
    >>> sdata["table"].obs["type"] = "immune"
    >>> folder = tempfile.TemporaryDirectory()
    >>> (file,) = nm.io.write_geojson(sdata, f"{folder.name}/cells.geojson", groupby="type")
    >>> cell = json.loads(file.read_text())["features"][0]
    >>> cell["properties"]["classification"], cell["geometry"]["type"]
    ({'name': 'immune', 'color': [230, 159, 0]}, 'Polygon')
    >>> folder.cleanup()
    """
    regions = read_regions(sdata, table_key)
    adata = get_table(sdata, table_key)
    classes = _classes(adata, groupby)
    values = {name: _measurement(adata, name) for name in measurements}
    radii = [circle_radii(sdata, region, table_key) for region in regions]
    files = _files(path, [region.image for region in regions])
    with replaced_files(files[0].parent) as drafts:
        for region, radius, target in zip(regions, radii, files, strict=True):
            with (drafts / target.name).open("w", encoding="utf-8") as file:
                _write_features(file, _features(region, radius, adata.obs_names, classes, values))
    return files


def _files(path: str | Path, images: Sequence[str]) -> list[Path]:
    """Choose the path of the file of each image; an error if one cannot be written."""
    if not isinstance(path, (str, Path)):
        msg = f"path is of type {type(path).__name__}: nm.io.write_geojson(sdata, 'cells.geojson')."
        raise TypeError(msg)
    target = Path(path).expanduser()
    if not target.parent.is_dir():
        msg = f"No folder {str(target.parent)!r}: create it, or choose another path."
        raise FileNotFoundError(msg)
    several = len(images) > 1 and not target.is_dir()
    files = [target.with_name(f"{target.stem}_{image}{target.suffix}") for image in images] if several else [target]
    folder = next((file for file in files if file.is_dir()), None)
    if folder is not None:
        msg = f"{str(folder)!r} is a folder: choose another file name, such as 'cells.geojson'."
        raise IsADirectoryError(msg)
    return files


def _classes(adata: AnnData, groupby: str) -> list[dict[str, Any] | None]:
    """Class of each cell in QuPath's format, None for cells without one."""
    column = require(adata, "obs", groupby, "nm.tl.cluster(adata), or choose another column: groupby=...")
    if pd.api.types.is_numeric_dtype(column) and not isinstance(column.dtype, pd.CategoricalDtype):
        msg = (
            f".obs[{groupby!r}] contains numbers, not classes. Convert it, adata.obs[{groupby!r}].astype(str), or "
            f"write the numbers: measurements=[{groupby!r}]."
        )
        raise TypeError(msg)
    categories = column.astype("category").cat
    kinds: list[dict[str, Any]] = [{"name": str(name)} for name in categories.categories]
    kept = adata.uns.get(f"{groupby}_colors", [])
    shades = kept if len(kept) >= len(kinds) else PALETTE
    if len(shades) >= len(kinds):
        for kind, shade in zip(kinds, shades, strict=False):
            kind["color"] = [round(255 * part) for part in to_rgb(shade)]
    return [kinds[code] if code >= 0 else None for code in categories.codes]


def _measurement(adata: AnnData, name: str) -> np.ndarray:
    if name not in adata.obs and name not in adata.var_names:
        there = [*adata.var_names, *adata.obs]
        raise KeyError(no_such("column or marker", name, "the table", there, "Choose among these: measurements=[...]."))
    values = adata.obs[name] if name in adata.obs else adata[:, name].to_df()[name]
    if not pd.api.types.is_numeric_dtype(values):
        msg = f".obs[{name!r}] contains no numbers. Use it as the class: groupby={name!r}."
        raise TypeError(msg)
    return values.to_numpy(dtype=float, na_value=np.nan)


def _features(
    region: Region,
    radii: np.ndarray,
    names: pd.Index,
    classes: list[dict[str, Any] | None],
    values: Mapping[str, np.ndarray],
) -> Iterator[dict[str, Any]]:
    for row, centre, radius in zip(region.rows, region.centres, radii, strict=True):
        properties: dict[str, Any] = {"objectType": "detection", "name": str(names[row])}
        if classes[row] is not None:
            properties["classification"] = classes[row]
        known = {name: float(column[row]) for name, column in values.items() if np.isfinite(column[row])}
        if known:
            properties["measurements"] = known
        yield {"type": "Feature", "geometry": _circle(centre, radius), "properties": properties}


def _circle(centre: np.ndarray, radius: float) -> dict[str, Any]:
    """A polygon that QuPath converts to an ellipse with the same bounds; GeoJSON has no circles."""
    outline = points(centre).buffer(radius, quad_segs=CORNERS).exterior.coords
    ring = np.round(outline, DECIMALS).tolist()
    return {"type": "Polygon", "coordinates": [ring[::-1]], "isEllipse": True}  # counterclockwise, as in the standard


def _write_features(file: Any, features: Iterator[dict[str, Any]]) -> None:
    """Write one feature per line, without keeping all of them in memory."""
    file.write('{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        file.write(("," if number else "") + "\n" + json.dumps(feature))
    file.write("\n]}\n")
