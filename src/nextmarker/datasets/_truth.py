"""Shared by all synthetic data: the true cells, and checks of the arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
from spatialdata.models import Labels2DModel, ShapesModel

from nextmarker._errors import check_value
from nextmarker.io import _image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

PIXEL_SIZE = 1.0  # micrometres, as in imaging mass cytometry
MOST_COUNTS = np.iinfo(np.uint16).max


def apportion(shares: Sequence[float], total: int) -> np.ndarray:
    """Integers in proportion to `shares`, by the largest remainder method."""
    exact = np.asarray(shares) / np.sum(shares) * total
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def tabulate(cells: pd.DataFrame, masks: np.ndarray, kinds: list[str]) -> gpd.GeoDataFrame:
    """Make the true cells of an image: circles with the area of their masks, and their type."""
    labels = np.arange(1, len(cells) + 1)
    area = np.bincount(masks.ravel(), minlength=len(cells) + 1)[1:]
    return gpd.GeoDataFrame(
        {"radius": np.sqrt(area / np.pi), "cell_type": pd.Categorical(np.take(kinds, cells["kind"]), kinds)},
        geometry=gpd.points_from_xy(cells["x"], cells["y"]),
        index=labels,
    )


def with_truth(images: list[_image.Image], masks: list[np.ndarray], truths: list[gpd.GeoDataFrame]) -> SpatialData:
    """Combine images, masks and true cells."""
    sdata = _image.to_spatialdata(images)
    for image, labels, truth in zip(images, masks, truths, strict=True):
        where = _image.transformation(image.name, image.pixel_size)
        sdata.labels[f"masks_{image.name}"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations=where)
        sdata.shapes[f"truth_{image.name}"] = ShapesModel.parse(truth, transformations=where)
    return sdata


def check_integers(least: int, **numbers: int) -> None:
    """Raise an error for a value that is not an integer or too small."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            msg = f"{name} must be an integer, not {number!r}."
            raise TypeError(msg)
        if number < least:
            msg = f"{name} must be at least {least}, not {number}."
            raise ValueError(msg)


def check_levels(least: float = 0.0, /, **levels: float) -> None:
    """Raise an error for a value that is too small or not finite."""
    for name, level in levels.items():
        check_value(name, level, least <= level < np.inf, f"a number of at least {least:g}")
