"""Cells and their clusters to GeoJSON, in the form that QuPath reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from shapely import points

from nextmarker import _keys
from nextmarker._files import replaced_files
from nextmarker._regions import circle_radii, read_regions
from nextmarker._table import get_table, require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._files import replaced_files
from nextmarker._regions import Region

CORNERS = 4  # per quarter of a circle; the extreme points are among them
DECIMALS = 2  # of a pixel, as QuPath itself writes


def write_geojson(
    sdata: SpatialData,
    path: str | Path,
    *,
    color: str = _keys.CLUSTERS,
    measurements: Sequence[str] = (),
    table_key: str = _keys.TABLE,
) -> list[Path]:
    """Write the cells as GeoJSON for QuPath: detections, classified by cluster, in the pixels of the image.

    In QuPath, open the image and drop the file on it, or choose *File > Import objects from file*. Coordinates are
    pixels of the image at full resolution from its top left corner, in both programs: the first pixel reaches from
    (0, 0) to (1, 1), so nothing is shifted by half a pixel.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    path
        The file, ``*.geojson``. Where the table has cells of several images, each gets a file of its own, with the name
        of the image: ``cells.geojson`` becomes ``cells_<image>.geojson``. Files that are there are replaced, all of
        them or none. A link is replaced by the file; what it leads to stays as it is.
    color
        Column of ``.obs`` that names the class of each cell: text or categories. Its colours are those that scanpy
        keeps in ``.uns[f"{color}_colors"]``, where there are any; QuPath chooses them elsewhere.
    measurements
        Markers (their mean intensity in the circle, raw counts) and numeric columns of ``.obs`` to write for each cell.
    table_key
        Name of the table in ``sdata.tables``.

    Returns
    -------
    The files written. Each is a FeatureCollection of detections: a circle as a polygon marked as an ellipse, the name
    of the cell, its class with colour, its measurements. A cell without a class has none; values that are not finite
    are left out.

    Raises
    ------
    FileNotFoundError
        If the folder to write into does not exist.
    IsADirectoryError
        If `path`, or a file of one of the images, is a folder.
    KeyError
        If there is no such table, column or marker.
    OSError
        If the folder cannot be written, or the disk is full: the old files are still there.
    TypeError
        If `color` is a column of numbers, a measurement one of text, or `path` is not a path.
    ValueError
        If the table is out of step with the circles.

    Examples
    --------
    >>> import json, tempfile, nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=50)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=6, progress=False)
    >>> sdata["table"].obs["type"] = "immune"
    >>> folder = tempfile.TemporaryDirectory()
    >>> (file,) = nm.io.write_geojson(sdata, f"{folder.name}/cells.geojson", color="type")
    >>> cell = json.loads(file.read_text())["features"][0]
    >>> cell["properties"]["classification"], cell["geometry"]["type"]
    ({'name': 'immune'}, 'Polygon')
    >>> folder.cleanup()
    """
    regions = read_regions(sdata, table_key)
    adata = get_table(sdata, table_key)
    classes = _classes(adata, color)
    values = {name: _measurement(adata, name) for name in measurements}
    radii = [circle_radii(sdata, region, table_key) for region in regions]
    files = _files(path, [region.image for region in regions])
    with replaced_files(files[0].parent) as drafts:
        for region, radius, target in zip(regions, radii, files, strict=True):
            with (drafts / target.name).open("w", encoding="utf-8") as file:
                _write_features(file, _features(region, radius, adata.obs_names, classes, values))
    return files


def _files(path: str | Path, images: Sequence[str]) -> list[Path]:
    """Name a file for each image, and refuse names that cannot be written."""
    if not isinstance(path, (str, Path)):
        msg = f"Cells are written to a path, not to {type(path).__name__}: nm.io.write_geojson(sdata, 'cells.geojson')."
        raise TypeError(msg)
    target = Path(path).expanduser()
    if not target.parent.is_dir():
        msg = f"There is no folder {str(target.parent)!r} to write into: make it, or choose another path."
        raise FileNotFoundError(msg)
    several = len(images) > 1 and not target.is_dir()
    files = [target.with_name(f"{target.stem}_{image}{target.suffix}") for image in images] if several else [target]
    folder = next((file for file in files if file.is_dir()), None)
    if folder is not None:
        msg = f"{str(folder)!r} is a folder: choose another name for the file, such as 'cells.geojson'."
        raise IsADirectoryError(msg)
    return files


def _classes(adata: AnnData, color: str) -> list[dict[str, Any] | None]:
    """Class of each cell as QuPath has it, None for none."""
    column = require(adata, "obs", color, "nm.tl.cluster(adata), or name another column: color=...")
    if pd.api.types.is_numeric_dtype(column) and not isinstance(column.dtype, pd.CategoricalDtype):
        msg = (
            f".obs[{color!r}] holds numbers, not classes. Make it categorical, "
            f"adata.obs[{color!r}].astype(str), or write the numbers: measurements=[{color!r}]."
        )
        raise TypeError(msg)
    categories = column.astype("category").cat
    shades = adata.uns.get(f"{color}_colors", [])
    kinds: list[dict[str, Any]] = [{"name": str(name)} for name in categories.categories]
    if len(shades) >= len(kinds):
        for kind, shade in zip(kinds, shades, strict=False):
            kind["color"] = [round(255 * part) for part in to_rgb(shade)]
    return [kinds[code] if code >= 0 else None for code in categories.codes]


def _measurement(adata: AnnData, name: str) -> np.ndarray:
    if name not in adata.obs and name not in adata.var_names:
        msg = (
            f"No column or marker {name!r} to measure. Columns are {sorted(adata.obs)}, markers {[*adata.var_names]}. "
            "Choose among these: measurements=[...]."
        )
        raise KeyError(msg)
    values = adata.obs[name] if name in adata.obs else adata[:, name].to_df()[name]
    if not pd.api.types.is_numeric_dtype(values):
        msg = f".obs[{name!r}] holds no numbers, and measurements are numbers. Use it as the class: color={name!r}."
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
    """A polygon that QuPath turns into an ellipse with the same bounds; GeoJSON knows no circles."""
    outline = points(centre).buffer(radius, quad_segs=CORNERS).exterior.coords
    ring = np.round(outline, DECIMALS).tolist()
    return {"type": "Polygon", "coordinates": [ring[::-1]], "isEllipse": True}  # counterclockwise, as the norm asks


def _write_features(file: Any, features: Iterator[dict[str, Any]]) -> None:
    """Write one feature in each line, without holding all of them."""
    file.write('{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        file.write(("," if number else "") + "\n" + json.dumps(feature))
    file.write("\n]}\n")
