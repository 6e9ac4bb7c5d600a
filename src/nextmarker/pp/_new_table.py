"""A new table of the cells of several images: checked before anything is computed, and linked to their elements."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import TableModel
from spatialdata.transformations import get_transformation

from nextmarker import _keys
from nextmarker._coordinates import apply, pixel_size
from nextmarker._errors import check_each_once
from nextmarker._regions import as_list, shared_markers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData

CATEGORICAL = [_keys.REGION, _keys.IMAGE, _keys.SAMPLE, _keys.ACQUISITION]


@dataclass(frozen=True)
class Part:
    """The rows of a table that lie in one image."""

    element: str
    """Element of the object that holds the cells."""
    image: str
    instances: np.ndarray
    """Number of each cell in its element, int (cells,)."""
    centres: np.ndarray
    """Centres (x, y) in pixels of the image, float64 (cells, 2)."""
    X: np.ndarray
    """Intensities, float32 (cells, markers)."""
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """Further columns of `.obs`."""


def check_markers(sdata: SpatialData, images: Sequence[str], markers: Sequence[str] | str | None) -> list[str]:
    """Choose the markers of the table, by default all, and check what a table needs to know of its images.

    Raises
    ------
    ValueError
        If the panels of the images differ, a marker is named twice or missing, or a pixel size is contradictory.
    """
    wanted = as_list(markers) if markers is not None else None
    if wanted is not None:
        check_each_once("markers", wanted)
    chosen = shared_markers(sdata, images, wanted)
    for image in images:
        pixel_size(sdata, image)  # an error if contradictory
    return chosen


def check_names(sdata: SpatialData, places: Mapping[str, str], arguments: str, *, overwrite: bool) -> None:
    """Refuse names that are taken or that files cannot have.

    Parameters
    ----------
    places
        Kind of each element about to be written, such as `"tables"`, by its name.
    arguments
        The arguments by which the user chooses other names.
    overwrite
        Whether elements of the same kind are to be replaced.

    Raises
    ------
    ValueError
        If it is one of these.
    """
    taken = {
        name.lower(): (name, kind) for kind, name, _ in sdata.gen_elements()
    }  # names must differ by more than case
    own: list[str] = []
    foreign: list[str] = []
    for name, kind in places.items():
        if not re.fullmatch(r"(?!__)[\w.-]+", name) or set(name) == {"."}:
            allowed = f"Use letters, digits, '_', '-', '.' in {arguments.replace('=...', '')}"
            msg = f"{name!r} cannot name an element. {allowed}."
            raise ValueError(msg)
        if name.lower() in taken:
            there, its_kind = taken[name.lower()]
            (own if (there, its_kind) == (name, kind) else foreign).append(f"sdata.{its_kind}[{there!r}]")
    if foreign or (own and not overwrite):
        others = "others" if len(places) > 1 else "another"
        fix = f"choose {others} with {arguments}" + (", or overwrite=True" if not foreign else "")
        exist = "These elements exist already" if len(places) > 1 else "This element exists already"
        msg = f"{exist}: {', '.join(foreign or own)}; {fix}."
        raise ValueError(msg)


def make_table(
    sdata: SpatialData, markers: Sequence[str], parts: Sequence[Part], systems: Mapping[str, str]
) -> AnnData:
    """Make the table of all images.

    Parameters
    ----------
    systems
        Coordinate system of `obsm["spatial"]` by image.
    """
    obs = pd.concat([_obs(sdata, part) for part in parts])
    for column in obs.columns.intersection(CATEGORICAL):
        obs[column] = pd.Categorical(obs[column], categories=pd.unique(obs[column].dropna()))
    var = _var(sdata, markers, [part.image for part in parts])
    adata = AnnData(np.concatenate([part.X for part in parts]), obs=obs, var=var)
    adata.obsm[_keys.SPATIAL] = np.concatenate([_positions(sdata, part, systems[part.image]) for part in parts])
    elements = [part.element for part in parts]
    return TableModel.parse(adata, region=elements, region_key=_keys.REGION, instance_key=_keys.INSTANCE)


def _obs(sdata: SpatialData, part: Part) -> pd.DataFrame:
    columns: dict[str, Any] = {
        _keys.REGION: part.element,
        _keys.INSTANCE: part.instances,
        _keys.IMAGE: part.image,
    }
    acquisition = sdata.attrs.get(_keys.ACQUISITIONS, {}).get(part.image, {})
    columns |= {key: str(acquisition[key]) for key in (_keys.SAMPLE, _keys.ACQUISITION) if key in acquisition}
    return pd.DataFrame(columns | part.columns, index=[f"{part.image}_{number}" for number in part.instances])


def _var(sdata: SpatialData, markers: Sequence[str], images: Sequence[str]) -> pd.DataFrame:
    """Original names and metals of the markers; several where images differ."""
    known = sdata.attrs.get(_keys.CHANNELS, {})
    var = pd.DataFrame(index=list(markers))
    for column in (_keys.ORIGINAL_NAME, _keys.METAL):
        named = [
            dict(zip(known[image]["name"], known[image][column], strict=True))
            for image in images
            if column in known.get(image, {})
        ]
        if named:
            values = [dict.fromkeys(names[marker] for names in named if marker in names) for marker in markers]
            var[column] = ["; ".join(filter(None, value)) for value in values]
    return var


def _positions(sdata: SpatialData, part: Part, system: str) -> np.ndarray:
    transformation = get_transformation(sdata.images[part.image], system)
    return apply(transformation.to_affine_matrix(("x", "y"), ("x", "y")), part.centres)
