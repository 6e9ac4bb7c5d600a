"""Matches the panels of images."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import dask.array as da
import pandas as pd
import xarray as xr

from nextmarker import _keys
from nextmarker._errors import check_option, listed, no_such
from nextmarker._regions import choose_images, read_panels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from spatialdata import SpatialData

Join: TypeAlias = Literal["intersection", "union"]


def match_panels(
    sdata: SpatialData,
    *,
    aliases: Mapping[str, str] | None = None,
    join: Join = "intersection",
    images: Sequence[str] | str | None = None,
) -> pd.DataFrame:
    """Match the panels of images that differ in the order, number or spelling of their channels.

    Parameters
    ----------
    sdata
        Images from any reader, with one or several scales. Match panels before detecting cells: tables are not changed.
    aliases
        New names for channels, by their present name in any image: `{"CD45RO": "CD45-RO"}`.
    join
        `"intersection"` keeps the markers that all images have. `"union"` keeps all markers; a marker that an image
        lacks is filled with zeros, which the model cannot distinguish from a marker without signal.
    images
        Images to match; by default all.

    Returns
    -------
    DataFrame, images x markers, with the values

    ``"present"``, ``"alias"``
        The image has the marker, under this name or an alias.
    ``"filled"``
        The image lacks the marker, which is now zero.
    ``"dropped"``, ``"missing"``
        The marker was removed; the image had it (dropped) or not (missing).

    Images whose channels change are replaced in place, lazily. Channels are in the order of the first image; in a union
    those that only later images have follow. Data types, scales and transformations are kept. The table is also stored
    in ``sdata.attrs["nextmarker_panels"]``, image to marker to str; ``sdata.attrs["nextmarker_channels"]`` keeps the
    previous names. A store that `sdata` was read from is not changed.

    Raises
    ------
    KeyError
        If an image does not exist.
    ValueError
        If `join` has another value; if an alias is not in any image, gives two channels of an image the same name, or
        refers to another alias; if the images have no marker in common, or an image has several channels of the same
        name. Nothing is changed then.

    Examples
    --------
    >>> import numpy as np, nextmarker as nm
    >>> from spatialdata import SpatialData
    >>> from spatialdata.models import Image2DModel
    >>> panels = {"a": ["DNA1", "CD3", "CD45RO"], "b": ["CD45-RO", "DNA1"]}
    >>> sdata = SpatialData(
    ...     images={
    ...         name: Image2DModel.parse(np.ones((len(panel), 30, 40)), dims=("c", "y", "x"), c_coords=panel)
    ...         for name, panel in panels.items()
    ...     }
    ... )
    >>> nm.pp.match_panels(sdata, aliases={"CD45RO": "CD45-RO"})
          DNA1  CD45-RO      CD3
    a  present    alias  dropped
    b  present  present  missing
    >>> sdata["b"]["c"].values.tolist()
    ['DNA1', 'CD45-RO']
    """
    check_option("join", join, get_args(Join))
    chosen = choose_images(sdata, images)
    before = read_panels(sdata, chosen)
    renamed = _rename(before, aliases or {})
    every = list(dict.fromkeys(name for panel in renamed.values() for name in panel))
    wanted = every if join == "union" else [name for name in every if all(name in p for p in renamed.values())]
    if not wanted:
        msg = f"The images {listed(chosen)} have no marker in common. Choose others, images=[...], or set aliases=..."
        raise ValueError(msg)
    places = {image: [panel.index(m) if m in panel else None for m in wanted] for image, panel in renamed.items()}
    changed = {image: places[image] for image, panel in before.items() if panel != wanted}
    elements = {image: _select(sdata.images[image], found, wanted) for image, found in changed.items()}
    columns = [*wanted, *(name for name in every if name not in wanted)]
    report = pd.DataFrame(
        {image: _statuses(before[image], renamed[image], wanted, columns) for image in chosen}, index=columns
    ).T
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Oo]verwriting")  # which is intended
        for image, element in elements.items():
            sdata.images[image] = element
    _record(sdata, before, places, wanted, report)
    return report


def _rename(panels: Mapping[str, list[str]], aliases: Mapping[str, str]) -> dict[str, list[str]]:
    unknown = [name for name in aliases if all(name not in panel for panel in panels.values())]
    if unknown:
        every = sorted({name for panel in panels.values() for name in panel})
        raise ValueError(no_such("channel", unknown, "the images", every, "Rename others: aliases=..."))
    chained = [name for name in aliases.values() if aliases.get(name, name) != name]
    if chained:
        msg = f"aliases refer to {chained}, which are aliases themselves. Map each to its final name."
        raise ValueError(msg)
    renamed = {image: [aliases.get(name, name) for name in panel] for image, panel in panels.items()}
    for image, panel in renamed.items():
        repeated = sorted({name for name in panel if panel.count(name) > 1})
        if repeated:
            both = [old for old, new in zip(panels[image], panel, strict=True) if new in repeated]
            msg = f"aliases give {both} of image {image!r} the same name: {repeated}. Rename or drop one of them."
            raise ValueError(msg)
    return renamed


def _statuses(
    before: Sequence[str], renamed: Sequence[str], wanted: Sequence[str], columns: Iterable[str]
) -> list[str]:
    own = dict(zip(renamed, before, strict=True))

    def status(marker: str) -> str:
        if marker not in wanted:
            return "dropped" if marker in own else "missing"
        if marker not in own:
            return "filled"
        return "present" if own[marker] == marker else "alias"

    return [status(marker) for marker in columns]


def _select(
    element: xr.DataArray | xr.DataTree, places: Sequence[int | None], markers: Sequence[str]
) -> xr.DataArray | xr.DataTree:
    """Select channels by position; zeros for those without one."""
    if isinstance(element, xr.DataArray):
        return _select_channels(element, places, markers)
    scales = {
        scale: xr.Dataset({name: _select_channels(pixels, places, markers) for name, pixels in node.data_vars.items()})
        for scale, node in element.children.items()
    }
    return xr.DataTree.from_dict(scales, name=element.name)


def _select_channels(pixels: xr.DataArray, places: Sequence[int | None], markers: Sequence[str]) -> xr.DataArray:
    n_channels = pixels.sizes["c"]
    data = da.asarray(pixels.transpose("c", "y", "x").data)
    if None in places:
        zeros = da.zeros((1, *data.shape[1:]), dtype=data.dtype, chunks=(1, *data.chunks[1:]))
        data = da.concatenate([data, zeros])
    data = data[[n_channels if place is None else place for place in places]]
    others = {name: coordinate for name, coordinate in pixels.coords.items() if "c" not in coordinate.dims}
    return xr.DataArray(data, {**others, "c": list(markers)}, ("c", "y", "x"), pixels.name, pixels.attrs)


def _record(
    sdata: SpatialData,
    before: Mapping[str, Sequence[str]],
    places: Mapping[str, Sequence[int | None]],
    wanted: Sequence[str],
    report: pd.DataFrame,
) -> None:
    known = dict(sdata.attrs.get(_keys.CHANNELS, {}))
    for image, panel in before.items():
        found = known.get(image, {})
        columns = {_keys.ORIGINAL_NAME: dict(zip(panel, panel, strict=True))}
        for column in (_keys.ORIGINAL_NAME, _keys.METAL):
            if column in found:
                columns[column] = dict(zip(found["name"], found[column], strict=True))
        names = [None if place is None else panel[place] for place in places[image]]
        known[image] = {"name": list(wanted)} | {
            column: ["" if name is None else values.get(name, "") for name in names]
            for column, values in columns.items()
        }
    sdata.attrs[_keys.CHANNELS] = known
    sdata.attrs[_keys.PANELS] = report.T.to_dict()
