"""What all synthetic data share: the truth beside the images, and checks of what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
from spatialdata.models import Labels2DModel, ShapesModel

from nextmarker.io import _image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialdata import SpatialData

PIXEL_SIZE = 1.0  # micrometres, as in imaging mass cytometry


def apportion(shares: Sequence[float], total: int) -> np.ndarray:
    """Whole numbers in proportion to `shares`, by the largest remainders."""
    exact = np.asarray(shares) / np.sum(shares) * total
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def tabulate(cells: pd.DataFrame, masks: np.ndarray, kinds: list[str]) -> gpd.GeoDataFrame:
    """Make the true cells of an image: circles of the area of their masks, with their type."""
    labels = np.arange(1, len(cells) + 1)
    area = np.bincount(masks.ravel(), minlength=len(cells) + 1)[1:]
    return gpd.GeoDataFrame(
        {"radius": np.sqrt(area / np.pi), "cell_type": pd.Categorical(np.take(kinds, cells["kind"]), kinds)},
        geometry=gpd.points_from_xy(cells["x"], cells["y"]),
        index=labels,
    )


def with_truth(images: list[_image.Image], masks: list[np.ndarray], truths: list[gpd.GeoDataFrame]) -> SpatialData:
    """Put images, masks and true cells together."""
    sdata = _image.to_spatialdata(images)
    for image, labels, truth in zip(images, masks, truths, strict=True):
        where = _image.transformation(image.name, image.pixel_size)
        sdata.labels[f"masks_{image.name}"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations=where)
        sdata.shapes[f"truth_{image.name}"] = ShapesModel.parse(truth, transformations=where)
    return sdata


def check_integers(**numbers: int) -> None:
    """Refuse what is no integer, or below 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, np.integer)):
            msg = f"{name} must be an integer, not {number!r}."
            raise TypeError(msg)
        if number < 1:
            msg = f"{name} must be at least 1, not {number}."
            raise ValueError(msg)


def check_seed(random_state: int) -> None:
    """Refuse what is no seed."""
    if isinstance(random_state, bool) or not isinstance(random_state, (int, np.integer)):
        msg = f"random_state must be an integer, not {random_state!r}."
        raise TypeError(msg)
    if random_state < 0:
        msg = f"random_state must be 0 or more, not {random_state}."
        raise ValueError(msg)
