"""Positions of cells in tables of other programs, with their unit and image."""

from __future__ import annotations

import gzip
import re
import unicodedata
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import listed, no_path, no_such

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

Unit: TypeAlias = Literal["pixel", "micrometre"]
UNITS = get_args(Unit)

CHUNK = 100_000  # rows of a file that are in memory with all columns
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan"]  # in a sample sheet

_DAMAGE = (OSError, EOFError, zlib.error)
_IMAGE = (_keys.IMAGE, "Image", "fov", "imageid", "ImageNumber")
_IDENTIFIER = ("label", "CellID", "CellId", "Object ID", "ObjectNumber", "Object", "cell_id")


@dataclass(frozen=True)
class _Header:
    """The columns with the positions of cells."""

    x: str
    y: str
    unit: Unit | None = None
    """The unit, if the program always uses the same or the columns name it."""
    first: float = 0.0
    """Coordinate of the centre of the first pixel in this program; 0.5 in SpatialData."""
    named: bool = False
    """Whether the columns name the unit."""
    alongside: str | None = None
    """Another column by which the program is recognised."""


_HEADERS = (
    _Header("x", "y"),
    _Header("X_centroid", "Y_centroid", "pixel"),  # mcquant, MCMICRO
    _Header("centroid-1", "centroid-0", "pixel"),  # scikit-image's regionprops_table, steinbock, ark: row, column
    _Header("Location_Center_X", "Location_Center_Y", "pixel"),  # CellProfiler
    _Header("AreaShape_Center_X", "AreaShape_Center_Y", "pixel"),
    _Header("X_position", "Y_position", "pixel", first=1),  # histoCAT, which counts as MATLAB does
    _Header("x_centroid", "y_centroid", "micrometre", alongside="transcript_counts"),  # Xenium
)
_UNCLEAR = _Header("x_centroid", "y_centroid")

_UNIT_WORDS: dict[str, Unit] = {
    **dict.fromkeys(("px", "pixel", "pixels"), "pixel"),
    **dict.fromkeys(("um", "μm", "micron", "microns", "micrometer", "micrometers"), "micrometre"),
    **dict.fromkeys(("micrometre", "micrometres"), "micrometre"),
}
_PLACE_WORDS = {"centroid", "center", "centre", "position", "pos", "location", "coord", "coordinate", "cell"}


def read_cell_table(source: pd.DataFrame | Path, unit: Unit | None) -> tuple[pd.DataFrame, Unit | None]:
    """Read the positions of cells from a table in memory or in a file.

    Parameters
    ----------
    source
        A table, or a file with comma, semicolon or tab separated values.
    unit
        Unit of the coordinates, if the user states it.

    Returns
    -------
    `x` and `y`, float64, from the top left corner of the image, and `image` if the table names images, with the names
    of the cells as index; and the unit, None (pixels) if neither table nor user states it.

    Raises
    ------
    ValueError
        If the file is not such a table, lacks coordinate columns, or states another unit than the user.
    """
    if isinstance(source, Path):
        name, layout = repr(str(source)), _layout(source)
        columns = pd.Index(_read_csv(source, layout, header=None, nrows=1, dtype=str).iloc[0])  # as in the file
    else:
        name, layout, columns = "the table of cells", {}, source.columns
    header = _find_header(columns, unit, name)
    optional = {_keys.IMAGE: image_column(columns), "identifier": _first_of(_IDENTIFIER, columns)}
    used = {"x": header.x, "y": header.y, **{ours: theirs for ours, theirs in optional.items() if theirs is not None}}
    if repeated := sorted({str(name) for name in columns[columns.duplicated()]} & set(used.values())):
        msg = f"Several columns {repeated} in {name}: rename them."
        raise ValueError(msg)
    if isinstance(source, Path):
        source = _read_csv(source, layout, keep=list(dict.fromkeys(used.values())), low_memory=False)
    frame = pd.DataFrame({ours: source[theirs] for ours, theirs in used.items()})
    if "identifier" in frame:
        frame = frame.set_index("identifier").rename_axis(None)
    if used.get(_keys.IMAGE) == "ImageNumber" and frame[_keys.IMAGE].nunique() == 1:  # CellProfiler's, not a name
        frame = frame.drop(columns=_keys.IMAGE)
    stated = unit or header.unit
    shift = 0.0 if stated == "micrometre" or header.named else 0.5 - header.first
    return frame.assign(x=as_numbers(frame["x"]) + shift, y=as_numbers(frame["y"]) + shift), stated


def read_sheet(path: Path) -> pd.DataFrame:
    """Read all columns of a small file with comma, semicolon or tab separated values, as text.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such a table.
    """
    if not path.is_file():
        raise no_path(path)
    # pandas would also take a group called "None" or "null" for a missing value
    return _read_csv(path, _layout(path), dtype=str, keep_default_na=False, na_values=MISSING)


def image_column(columns: pd.Index) -> str | None:
    """Find the column that names the image in tables of several programs, if there is one."""
    return _first_of(_IMAGE, columns)


def split_by_image(frame: pd.DataFrame, images: list[str], known: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Divide the cells of a table by image.

    Parameters
    ----------
    frame
        From :func:`read_cell_table`.
    images
        Images whose cells are needed.
    known
        All images that the table may name.

    Raises
    ------
    ValueError
        If it is not clear which image a cell belongs to, or no cell belongs to one of `images`.
    """
    if _keys.IMAGE not in frame:
        if len(images) == 1:
            return {images[0]: frame}
        call = f"nm.pp.add_cells(sdata, ..., images={images[0]!r})"
        msg = f"The table of cells has no column 'image', with {listed(images)}. Add it, or choose one image: {call}."
        raise ValueError(msg)
    column = frame[_keys.IMAGE].map(str)  # missing names too, unlike astype(str) of pandas 3
    names = column.unique().tolist()
    matched = match_images(names, known)
    if len(names) == len(images) == 1 and not matched:
        msg = f"The cells of image {names[0]!r} in the table are assigned to {images[0]!r}."
        warnings.warn(msg, UserWarning, stacklevel=4)
        return {images[0]: frame}
    unknown = sorted(set(names) - set(matched))
    if unknown or (names and not set(images) & set(matched.values())):
        fix = "Correct the names in the table of cells."
        raise ValueError(no_such("image", unknown or names, "the chosen images", images, fix))
    if len(set(matched.values())) < len(matched):
        msg = f"The table of cells has several names for the same image: {matched}. Correct them."
        raise ValueError(msg)
    return {image: frame[column.map(matched) == image] for image in images}


def match_images(names: Iterable[str], images: Collection[str]) -> dict[str, str]:
    """Match images to names from other programs, which are those of the file or of an image in it."""
    matched = {}
    for name in names:
        file, _, part = re.split(r"[\\/]", name)[-1].partition(" - ")  # QuPath: "slide.ome.tif - Image 1"
        for spelling in (name, file, re.sub(r"(\.ome)?\.\w+$", "", file, flags=re.IGNORECASE), part):
            if spelling in images:
                matched[name] = spelling
                break
    return matched


def _first_of(names: Iterable[str], columns: pd.Index) -> str | None:
    return next((name for name in names if name in columns), None)


def _find_header(columns: pd.Index, unit: Unit | None, name: str) -> _Header:
    headers = [h for h in _HEADERS if {h.x, h.y, h.alongside or h.x} <= set(columns)]
    own = [h for h in headers if h.unit is None]
    named = _named_headers(columns)
    fitting = [h for h in named if h.unit == (unit or h.unit)]
    if found := [*own, *fitting]:
        return found[0]
    if named:
        msg = f"unit={unit!r} contradicts the column {named[0].x!r} in {name}. Leave it out."
        raise ValueError(msg)
    if headers:
        return headers[0]
    if {_UNCLEAR.x, _UNCLEAR.y} <= set(columns):
        if unit is None:
            msg = f'{_UNCLEAR.x!r} in {name} may be in micrometres. Set unit="pixel" or unit="micrometre".'
            raise ValueError(msg)
        return _UNCLEAR
    missing = [axis for axis in "xy" if axis not in columns]
    fix = "Rename the columns with the coordinates to x and y."
    raise ValueError(no_such("column", missing, name, columns, fix))


def _named_headers(columns: pd.Index) -> list[_Header]:
    """Find pairs of columns that name their unit, such as QuPath's `Centroid X µm`; pixels, which are exact, first."""
    places: dict[tuple[Unit, tuple[str, ...]], dict[str, str]] = {}
    for column in columns:
        # Unicode has two characters for micro, and one is often lost when text is decoded.
        text = re.sub(r"(Âμ|\ufffd|\?)m\b", "μm", unicodedata.normalize("NFKC", str(column)))
        words = re.findall(r"\w+", text.casefold().replace("_", " "))
        if not words or words[-1] not in _UNIT_WORDS or len({"x", "y"} & set(words)) != 1:
            continue
        (axis,) = {"x", "y"} & set(words)
        others = tuple(word for word in words[:-1] if word != axis)
        if _PLACE_WORDS.issuperset(others):
            places.setdefault((_UNIT_WORDS[words[-1]], others), {})[axis] = column
    pairs = [_Header(p["x"], p["y"], unit, named=True) for (unit, _), p in places.items() if len(p) == 2]
    return sorted(pairs, key=lambda header: header.unit != "pixel")


def _layout(path: Path) -> dict[str, str]:
    """Detect the encoding of a file and the separator of its columns."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            start = file.read(1 << 20)
    except _DAMAGE as error:
        raise ValueError(_unreadable(path, str(error))) from error
    first = start.split(b"\n")[0]
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):  # as Excel saves "Unicode text"
        return {"encoding": "utf-16", "sep": "\t"}
    if b"\0" in start:
        raise ValueError(_unreadable(path, "it is not text"))
    try:
        line, encoding = first.decode("utf-8-sig"), "utf-8-sig"
    except UnicodeDecodeError:
        line, encoding = first.decode("cp1252", errors="replace"), "cp1252"
    separator = "\t" if "\t" in line else max(",;", key=line.count)
    return {"encoding": encoding, "sep": separator, "encoding_errors": "replace"}


def _read_csv(path: Path, layout: dict[str, str], keep: list[str] | None = None, **kwargs: object) -> pd.DataFrame:
    """Read all columns, or those to keep; rows of another length than the header are an error."""
    arguments = {"index_col": False, "chunksize": CHUNK, **layout, **kwargs}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            with pd.read_csv(path, **arguments) as chunks:  # type: ignore[call-overload]
                return pd.concat([chunk[keep] if keep else chunk for chunk in chunks])
    except (*_DAMAGE, ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors are ValueErrors
        raise ValueError(_unreadable(path, str(error))) from error


def _unreadable(path: Path, reason: str) -> str:
    return (
        f"{str(path)!r} cannot be read as a table: {reason}. Tables are read from .csv, .tsv and .txt, cells also from "
        ".geojson, .npy and label .tif; read other files yourself, and pass the DataFrame or array."
    )


def as_numbers(column: pd.Series) -> pd.Series:
    """Convert to numbers, with NaN for text; decimal commas are allowed."""
    if not pd.api.types.is_numeric_dtype(column):
        column = column.astype(str).str.replace(",", ".")
    return pd.to_numeric(column, errors="coerce").astype(np.float64)
