"""Segmented objects: label images, the image each belongs to, and the tables that describe their objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextmarker import _keys
from nextmarker._backing import check_whole
from nextmarker._coordinates import SET, full_resolution, is_micrometre, shared_systems, to_pixels
from nextmarker._errors import listed, no_such
from nextmarker._regions import check_linked

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from anndata import AnnData
    from spatialdata import SpatialData

ATTRS = "spatialdata_attrs"
"""Where spatialdata notes which elements a table annotates."""


@dataclass(frozen=True)
class Objects:
    """The objects of a label image that a table describes."""

    name: str
    """Element of `sdata.labels`."""
    image: str
    """Element of `sdata.images` that it belongs to."""
    labels: xr.DataArray
    """Labels at full resolution, lazy, (y, x); zero is background."""
    matrix: np.ndarray
    """Affine matrix (3, 3) that brings intrinsic coordinates of the labels into pixels of the image."""
    instances: np.ndarray
    """Labels of the objects, int64 (objects,)."""
    rows: np.ndarray
    """Positions of the objects in the table, int (objects,)."""


def read_objects(sdata: SpatialData, table_key: str) -> list[Objects]:
    """Read which label images a table annotates, and which of their objects.

    Raises
    ------
    KeyError
        If the table, one of its columns, or an element that it annotates does not exist.
    TypeError
        If the labels in the table are not integers.
    ValueError
        If the table annotates no labels, the image of an element is unclear, or an object is there twice.
    """
    table = _get_annotating(sdata, table_key)
    region_key, instance_key = (str(table.uns[ATTRS][key]) for key in ("region_key", "instance_key"))
    obs = _linked(table.obs, [region_key, instance_key], table_key)
    found: dict[str, Objects] = {}
    for name, rows in obs.groupby(region_key, observed=True, sort=False).indices.items():
        element = str(name)
        _check_is_labels(sdata, element, table_key)
        instances = _integers(obs[instance_key].to_numpy()[rows], instance_key, table_key)
        image = _choose_image(sdata, element, obs.iloc[rows])
        if image in found:
            both = listed([found[image].name, element])
            msg = f"The table {table_key!r} annotates several labels of image {image!r}: {both}. Choose those of one."
            raise ValueError(msg)
        labels = read_label_image(sdata, element)
        check_integers(element, labels)
        found[image] = Objects(element, image, labels, to_pixels(sdata, element, image), instances, np.asarray(rows))
    return list(found.values())


def read_label_image(sdata: SpatialData, name: str, fix: str | None = None) -> xr.DataArray:
    """Read labels at full resolution, lazily, (y, x).

    Raises
    ------
    FileNotFoundError
        If the store that they are read from is not there any more, or has lost files.
    ValueError
        If they are not flat.
    """
    labels = full_resolution(sdata.labels[name])
    if set(labels.dims) != {"y", "x"}:
        call = f"sdata[{name!r}] = spatialdata.models.Labels2DModel.parse(sdata[{name!r}].max('z'))"
        fix = fix or f"Project them: {call}."
        msg = f"The labels {name!r} have the dimensions {labels.dims} instead of (y, x). {fix}"
        raise ValueError(msg)
    check_whole(name, labels)
    return labels.transpose("y", "x")


def check_integers(name: str, labels: xr.DataArray) -> None:
    """Refuse labels of another type: a probability map or a mask of foreground."""
    if labels.dtype.kind not in "iu":
        call = f"sdata[{name!r}] = sdata[{name!r}].astype('int32')"
        msg = f"The labels {name!r} are {labels.dtype}, not integers. If they number the objects: {call}."
        raise ValueError(msg)


def image_of(sdata: SpatialData, element: str, images: list[str], fix: str) -> str:
    """Find the image that shares a coordinate system with an element; if several do, the one in its name.

    Parameters
    ----------
    fix
        The call that states the image, for the error message.

    Raises
    ------
    ValueError
        If it is not clear which image an element belongs to.
    """
    shared = {image: shared_systems(sdata, element, image) for image in images}
    # the micrometre system is common to all images, so it does not identify one
    candidates = [image for image in images if not all(map(is_micrometre, shared[image]))]
    candidates = candidates or [image for image in images if shared[image]]
    if len(candidates) > 1:
        candidates = [i for i in candidates if element.startswith(f"{i}_") or element.endswith(f"_{i}")]
    if len(candidates) != 1:
        msg = f"Which of the images {listed(images)} do the cells of {element!r} belong to? Name it: {fix}."
        raise ValueError(msg)
    return candidates[0]


def _get_annotating(sdata: SpatialData, table_key: str) -> AnnData:
    make = "nm.pp.integrate(sdata, labels)"
    if table_key not in sdata.tables:
        raise KeyError(no_such("table", table_key, "sdata.tables", sdata.tables, f"Make it: {make}."))
    table = sdata.tables[table_key]
    if not table.uns.get(ATTRS):
        msg = f"The table {table_key!r} annotates no labels. Link it, spatialdata.models.TableModel.parse, or {make}."
        raise ValueError(msg)
    if not table.n_obs:
        msg = f"The table {table_key!r} has no objects. Measure them: {make}."
        raise ValueError(msg)
    return table


def _linked(obs: pd.DataFrame, columns: list[str], table_key: str) -> pd.DataFrame:
    lacking = [column for column in columns if column not in obs]
    if lacking:
        fix = "Link it: spatialdata.models.TableModel.parse."
        raise KeyError(no_such("column", lacking, f".obs of the table {table_key!r}", obs, fix))
    check_linked(obs[columns], table_key)
    repeated = obs.duplicated(columns)
    if repeated.any():
        region, instance = obs.loc[repeated.to_numpy(), columns].iloc[0]
        msg = f"The table {table_key!r} has object {instance} of {region!r} several times. Keep one of them."
        raise ValueError(msg)
    return obs


def _check_is_labels(sdata: SpatialData, name: str, table_key: str) -> None:
    if name in sdata.labels:
        return
    there = [kind for kind, element, _ in sdata.gen_elements() if element == name]
    if there:
        fix = "Name a table of labels: nm.pp.integrate(sdata, labels)."
        msg = f"The table {table_key!r} annotates {name!r} in sdata.{there[0]}, not labels. {fix}"
        raise ValueError(msg)
    fix = f"If it was renamed: sdata.labels[{name!r}] = sdata.labels[...]."
    raise KeyError(no_such("element", name, f"sdata.labels, which {table_key!r} annotates", sdata.labels, fix))


def _integers(instances: np.ndarray, column: str, table_key: str) -> np.ndarray:
    if instances.dtype.kind not in "iu":
        msg = f"The labels in .obs[{column!r}] of the table {table_key!r} are {instances.dtype}, not integers."
        raise TypeError(msg)
    return instances.astype(np.int64)


def _choose_image(sdata: SpatialData, element: str, obs: pd.DataFrame) -> str:
    """Take the image that the table names, or else the one that shares a coordinate system with the labels."""
    named = obs[_keys.IMAGE].unique().tolist() if _keys.IMAGE in obs else []
    if len(named) == 1 and named[0] in sdata.images and shared_systems(sdata, element, named[0]):
        return str(named[0])
    return image_of(sdata, element, list(sdata.images), f"{SET}(sdata[{element!r}], ..., image)")
