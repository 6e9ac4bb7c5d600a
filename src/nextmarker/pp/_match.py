"""Matches cell centres to segmented cells."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._coordinates import pixel_size
from nextmarker._errors import check_each_once, check_value, listed, no_such
from nextmarker._logging import logger
from nextmarker._objects import read_objects
from nextmarker._progress import progress_bar
from nextmarker._record import owner_of, read_record, record_name, refuse_foreign_keys, write_results
from nextmarker._regions import as_list, read_regions
from nextmarker._table import get_table
from nextmarker.pp._pairs import NONE, locate, pair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._objects import Objects
    from nextmarker._regions import Region
    from nextmarker.pp._pairs import Located


def match_cells(
    sdata: SpatialData,
    reference: str = _keys.INTENSITY,
    *,
    columns: Sequence[str] | str | Mapping[str, str] | None = None,
    max_distance: float | None = None,
    key_added: str = _keys.MATCHED,
    table_key: str = _keys.TABLE,
    progress: bool = True,
) -> None:
    """Match each cell centre to a segmented cell, and bring columns such as its type over.

    A centre in a mask is matched to this object, any other centre to the object with the nearest centroid. If several
    centres choose the same object, one inside goes before one outside, and then the nearest wins. The others stay
    unmatched, and so do centres in an object that the reference lacks.

    Parameters
    ----------
    sdata
        Images with cell centres, and label images.
    reference
        Table that annotates the labels: that of :func:`nextmarker.pp.integrate`, or any other, such as published types.
        Objects that it lacks are not matched.
    columns
        Columns of `obs` of the reference to bring over, or a dict from their names to new names.
    max_distance
        Largest distance between a centre outside all masks and the centroid of its object, in micrometres if the pixel
        size of all images is known, otherwise in pixels. By default the median diameter of the objects, that of a
        circle of the same area: a cell farther away would not overlap the object.
    key_added
        Name of the new columns.
    table_key
        Name of the table of cell centres.
    progress
        Show a progress bar, and log how many centres were matched.

    Returns
    -------
    None. Writes into the table of cell centres, in place:

    `obs["matched"]`
        Name of the object in the reference, categorical, missing if there is none.
    `obs["matched_distance"]`
        Distance between centre and centroid, in the same unit as `max_distance`, float64, NaN if there is none.
    `obs[column]`
        The columns of the reference, missing where a centre is unmatched. Categories keep their order and colours, text
        becomes categorical, integers become floats if a centre is unmatched. Columns of a former match are removed.
    `uns["nextmarker"]["match_cells"]`
        The parameters, and in `counts` a table with one row per image: centres, objects, matched, unmatched centres and
        unmatched objects. For another `key_added`, in `match_cells_<key_added>`.

    Raises
    ------
    KeyError
        If a table, an element or a column does not exist.
    TypeError
        If labels in the reference are not integers.
    ValueError
        If the reference annotates no labels, several labels of an image or an object twice, its names repeat, the image
        of a labels element is unclear, or a column exists that `match_cells` did not write. Nothing is changed then.

    Warns
    -----
    UserWarning
        If no centre is matched, an image has centres but no objects, or the labels lack objects of the reference.

    See Also
    --------
    nextmarker.pl.matches : draw what was matched and what was not.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.dense_tissue(n_images=2, n_cells=100)
    >>> nm.pp.detect_cells(sdata, "DNA", diameter=7, progress=False)
    >>> nm.pp.integrate(sdata, "masks", progress=False)
    >>> nm.pp.match_cells(sdata, "intensity", columns=["area"], progress=False)
    >>> sdata["table"].uns["nextmarker"]["match_cells"]["counts"]
             centres  objects  matched  unmatched_centres  unmatched_objects
    dense_1       98      100       98                  0                  2
    dense_2       95      100       95                  0                  5
    """
    check_value("max_distance", max_distance, max_distance is None or 0 <= max_distance < np.inf, "0 or more")
    adata = get_table(sdata, table_key)
    regions = read_regions(sdata, table_key)
    objects = read_objects(sdata, reference)
    table = sdata.tables[reference]
    wanted = _choose_columns(table, columns, reference)
    own = [key_added, f"{key_added}_{_keys.DISTANCE}"]
    check_value("columns", columns, not {*own} & {*wanted.values()}, f"given other names than {listed(own)}")
    refuse_foreign_keys(adata, [f"obs/{name}" for name in own], _keys.MATCH_STEP)
    refuse_foreign_keys(adata, [f"obs/{name}" for name in wanted.values()], _keys.MATCH_STEP, "columns")
    scales, unit = _scales(sdata, [*regions, *objects])

    located = {}
    with progress_bar(len(objects), "reading labels", "image", shown=progress) as bar:
        for found in objects:
            located[found.image] = locate(found)
            bar.update()
    limit = _median_diameter(located, scales) if max_distance is None else float(max_distance)
    rows, distance = np.full(adata.n_obs, NONE), np.full(adata.n_obs, np.nan)
    for image, cells, centres in _by_image(regions):
        if image in located:
            chosen, pixels = pair(centres, located[image], limit / scales[image])
            rows[cells] = np.where(chosen == NONE, NONE, located[image].rows[chosen])
            distance[cells] = pixels * scales[image]
    counts = _count(regions, located, rows)
    _warn(counts, located, f"{limit:.3g} {unit}s", reference)
    if progress:
        _report(counts, reference)

    results = _results(table, rows, wanted, key_added) | {f"obs/{own[1]}": distance}
    parameters = {
        "reference": reference,
        "columns": np.array(list(wanted), dtype=object),
        "columns_added": np.array(list(wanted.values()), dtype=object),
        "max_distance": limit,
        "unit": unit,
        "counts": counts,
    }
    step = record_name(_keys.MATCH_STEP, key_added)
    for name in read_record(adata, step).get("columns_added", ()):  # of the former match, which no longer holds
        if owner_of(adata, f"obs/{name}") == step:
            adata.obs.pop(name)
    write_results(adata, step, results, parameters)


def _choose_columns(
    table: AnnData, columns: Sequence[str] | str | Mapping[str, str] | None, reference: str
) -> dict[str, str]:
    """New name of each column to bring over."""
    if not table.obs_names.is_unique:
        call = f"sdata[{reference!r}].obs_names_make_unique()"
        msg = f"Names of objects repeat in the table {reference!r}. Number them: {call}."
        raise ValueError(msg)
    if columns is None:
        return {}
    wanted = dict(columns) if isinstance(columns, Mapping) else {name: name for name in as_list(columns)}
    check_each_once("columns", list(wanted.values()))
    lacking = [name for name in wanted if name not in table.obs]
    if lacking:
        where = f".obs of the table {reference!r}"
        raise KeyError(no_such("column", lacking, where, table.obs, "Choose others: columns=[...]."))
    return wanted


def _scales(sdata: SpatialData, parts: Sequence[Region | Objects]) -> tuple[dict[str, float], str]:
    """Length of a pixel of each image in the unit of distances, and this unit: micrometres if all of them are known."""
    sizes = {part.image: pixel_size(sdata, part.image) for part in parts}
    if all(sizes.values()):
        return {image: float(size or 1) for image, size in sizes.items()}, "micrometre"
    return dict.fromkeys(sizes, 1.0), "pixel"


def _median_diameter(located: Mapping[str, Located], scales: Mapping[str, float]) -> float:
    diameters = [found.diameters * scales[image] for image, found in located.items()]
    return float(np.median(np.concatenate(diameters))) if any(map(len, diameters)) else 0.0


def _by_image(regions: Sequence[Region]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of each image, and rows and centres of all its cells, also of those in several elements."""
    for image in dict.fromkeys(region.image for region in regions):
        own = [region for region in regions if region.image == image]
        yield image, np.concatenate([r.rows for r in own]), np.concatenate([r.centres for r in own])


def _count(regions: Sequence[Region], located: Mapping[str, Located], rows: np.ndarray) -> pd.DataFrame:
    """Count centres, objects and matches of each image."""
    cells = {image: own for image, own, _ in _by_image(regions)}
    images = list(dict.fromkeys([*cells, *located]))
    centres = np.array([len(cells.get(image, [])) for image in images])
    objects = np.array([len(located[image].rows) if image in located else 0 for image in images])
    matched = np.array([int((rows[cells[image]] != NONE).sum()) if image in cells else 0 for image in images])
    counts = {"centres": centres, "objects": objects, "matched": matched}
    counts |= {"unmatched_centres": centres - matched, "unmatched_objects": objects - matched}
    return pd.DataFrame(counts, index=images)


def _warn(counts: pd.DataFrame, located: Mapping[str, Located], limit: str, reference: str) -> None:
    messages = []
    lost = {found.objects.name: found.n_lost for found in located.values() if found.n_lost}
    if lost:
        messages.append(f"{sum(lost.values())} objects of {reference!r} are not in the labels {listed(lost)}.")
    empty = counts.index[(counts["centres"] > 0) & (counts["objects"] == 0)]
    if len(empty) and len(empty) < len(counts):
        messages.append(f"The table {reference!r} has no objects in {listed(empty)}: their centres are unmatched.")
    if not counts["matched"].any():
        causes = f"Are these labels of other images, or is {limit} too near? See nm.pl.matches(sdata)"
        messages.append(f"No centre was matched to an object of {reference!r}. {causes}.")
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=3)


def _report(counts: pd.DataFrame, reference: str) -> None:
    matched, centres, objects = counts[["matched", "centres", "objects"]].sum()
    share = f"{matched:,} of {centres:,} centres ({matched / centres:.0%})"
    logger.info(f"matched {share} to the {objects:,} objects of {reference!r}")


def _results(table: AnnData, rows: np.ndarray, wanted: Mapping[str, str], key_added: str) -> dict[str, Any]:
    """Names and columns of the matched objects, and colours of the categories."""
    names = _bring_over(table.obs_names.to_series(), rows).remove_unused_categories()
    results: dict[str, Any] = {f"obs/{key_added}": names}
    for old, new in wanted.items():
        results[f"obs/{new}"] = _bring_over(table.obs[old], rows)
        if f"{old}_colors" in table.uns:
            results[f"uns/{new}_colors"] = np.array(table.uns[f"{old}_colors"], dtype=object)
    return results


def _bring_over(column: pd.Series, rows: np.ndarray) -> Any:
    """Values of some rows, missing where the row is `NONE`, of a type that files can hold: text as categories."""
    if pd.api.types.is_bool_dtype(column.dtype):
        column = column.astype("boolean") if (rows == NONE).any() else column
    elif pd.api.types.is_string_dtype(column.dtype):
        column = column.astype("category")
    return column.reset_index(drop=True).reindex(rows).array
