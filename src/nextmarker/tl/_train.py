"""Train a model on the images and cells of a SpatialData object."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from nextmarker import _keys
from nextmarker._coordinates import STATE_SIZE
from nextmarker._errors import check_option, listed
from nextmarker._logging import logger
from nextmarker._regions import read_regions, shared_markers
from nextmarker._table import get_table, write_results
from nextmarker.nn.device import pick_device
from nextmarker.nn.loss import random_nt_xent
from nextmarker.nn.model import MIN_PATCH_SIZE, Architecture, Network, NeXtMarker
from nextmarker.nn.normalization import start_centres
from nextmarker.nn.presets import PRESETS
from nextmarker.nn.training import PROJECTION, Settings, fit, learning_rate
from nextmarker.nn.whitening import whiten_features
from nextmarker.nn.zero import set_scale
from nextmarker.tl._fields import Fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialdata import SpatialData

    from nextmarker._regions import Region

PATCH_PER_DISTANCE = 4 / 3
"""Patch size by default, in median distances between neighbouring centres."""
LEAST_GAIN = 0.05
"""Mean similarity of views of one cell, above that of other cells, from which training counts as having worked."""


def train(
    sdata: SpatialData,
    patch_size: float | None = None,
    *,
    unit: Literal["pixel", "micrometre"] = "pixel",
    preset: str = "default",
    settings: Settings | None = None,
    network: Network | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> NeXtMarker:
    """Train a model by contrast: views of one cell attract, views of other cells repel.

    Needs no labels and no masks, only centres. What it learns are the markers of the table, on the images of the table.

    Parameters
    ----------
    sdata
        Images, and a table of cells made by `nm.pp.detect_cells` or `nm.pp.add_cells`.
    patch_size
        Side of the square that the model sees around a centre. By default 4/3 of the median distance between
        neighbouring centres; the choice is logged.
    unit
        Unit of `patch_size`. Images of different pixel sizes are resampled to the finest of them.
    preset
        Name of settings and network in `nm.nn.PRESETS`: `"default"`, or `"paper-synthetic"` or `"paper-imc"`, those of
        the paper's experiments. The patch sizes of `"paper-imc"` are 10, 8 and 6 px with `patch_size=10`.
    settings
        Steps, views, augmentations, schedule, in place of the preset's.
    network
        Axis of the sigmoids, widths, depth, pooling and scale, in place of the preset's.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed. The same seed, data and device give the same model.
    device
        Torch device; by default a GPU where there is one.
    progress
        Show a progress bar, and log the chosen patch size and how training went.

    Returns
    -------
    The trained model, on the CPU. How training went is recorded in `.uns["nextmarker"]["train"]`, beside its settings:

    `loss`, `learning_rates` : float64 (steps,)
        Of every step; the loss is NT-Xent, without the penalty on the sigmoids.
    `final_loss`, `random_loss` : float
        NT-Xent averaged over the last twentieth of the steps, and that of random embeddings.
    `markers`, `markers_without_signal` : object (markers,)
        Names of all markers, and of those without a positive pixel among those sampled (up to two million).
    `x_c`, `slope`, `x_c_start`, `slope_start` : float32 (markers,)
        The learned sigmoids and where they started: centres in counts above the offset, and slopes (see
        `nm.nn.Normalization`).

    Warns
    -----
    UserWarning
        If the loss ends no better than that of random embeddings, or markers carry no signal.

    Raises
    ------
    KeyError
        If the table or one of its images is missing.
    TypeError
        If `settings` are not `nm.nn.Settings`, or `network` is not an `nm.nn.Network`.
    ValueError
        If there is no such preset, settings and network do not go together, there are fewer than two cells, panels
        differ, pixels are not finite, only some images have a pixel size, or the loss does not stay finite. The table
        is as before.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> model = nm.tl.train(sdata, patch_size=12, settings=nm.nn.Settings(steps=20), progress=False)
    >>> model.architecture.patch_size
    12
    """
    check_option("preset", preset, PRESETS)
    settings, network = settings or PRESETS[preset][0], network or PRESETS[preset][1]
    _check_kinds(settings, network)
    if settings.penalty == "paper" and network.axis != "linear":
        msg = "penalty='paper' is for sigmoids on the linear axis. Say network=nm.nn.Network(axis='linear')."
        raise ValueError(msg)
    regions = read_regions(sdata, table_key)
    adata = get_table(sdata, table_key)
    markers = shared_markers(sdata, [region.image for region in regions], adata.var_names)
    if adata.n_obs < 2:
        msg = "Contrast needs at least two cells, and the table has one. Check the centres: nm.pl.cells(sdata)."
        raise ValueError(msg)

    pixel_size = _common_pixel_size(regions)
    side = _patch_size(regions, patch_size, unit, pixel_size, progress=progress)
    seed = torch.Generator().manual_seed(random_state)
    fields = Fields(regions, markers, side, pixel_size, settings, seed, pick_device(device), zero=network.zero)
    start = start_centres(fields.sample_pixels(), settings.start)
    silent = [marker for marker, centre in zip(markers, start, strict=True) if np.isnan(centre)]
    if silent:
        msg = f"Markers without signal in the pixels sampled: {silent}. Their activation is zero where they have none."
        warnings.warn(msg, stacklevel=2)
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        model = NeXtMarker(Architecture(tuple(markers), side, pixel_size, network), start).to(fields.device)
        loss = fit_and_scale(model, fields, settings, seed=seed, progress=progress)
    model.cpu()
    record = {
        **{name: np.array(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
        **asdict(network),
        "random_state": random_state,
        "patch_size": side,
        "pixel_size": pixel_size,
        "loss": loss,
        "learning_rates": np.array([learning_rate(step, settings) for step in range(settings.steps)]),
        "final_loss": float(loss[-max(len(loss) // 20, 1) :].mean()),
        "random_loss": _random_loss(fields, settings),
        "markers": np.array(markers, dtype=object),
        "markers_without_signal": np.array(silent, dtype=object),
        **model.normalization.as_arrays(),
        "model": model.digest(),
    }
    write_results(adata, "train", {}, record)
    if progress:
        _log_outcome(record)
    _warn_of_failure(record)
    return model


def fit_and_scale(
    model: NeXtMarker, fields: Fields, settings: Settings, *, seed: torch.Generator, progress: bool
) -> np.ndarray:
    """Train a model in place, set the scale of I before and after, and whiten its features; return the loss."""
    set_scale(model, fields.sample_cells)
    loss = fit(model, fields.draw, settings, seed=seed, progress=progress)
    set_scale(model, fields.sample_cells)  # training makes the features of some markers stronger
    if settings.whiten_features:
        whiten_features(model, fields.sample_cells(), settings, seed=seed)
    return loss


def _check_kinds(settings: object, network: object) -> None:
    for name, value, kind in (("settings", settings, Settings), ("network", network, Network)):
        if not isinstance(value, kind):
            msg = f"{name} is of type {type(value).__name__}. Make it with nm.nn.{kind.__name__}(...)."
            raise TypeError(msg)


def _common_pixel_size(regions: Sequence[Region]) -> float | None:
    """Pixel size of the model: the finest of the images, None where no image says."""
    sizes = {region.image: region.pixel_size for region in regions}
    unknown = [image for image, size in sizes.items() if size is None]
    if unknown and len(unknown) < len(sizes):
        msg = f"The pixel size of {listed(unknown)} is not known, and that of other images is. {STATE_SIZE}"
        raise ValueError(msg)
    return None if unknown else min(size for size in sizes.values() if size is not None)


def _patch_size(
    regions: Sequence[Region], patch_size: float | None, unit: str, pixel_size: float | None, *, progress: bool
) -> int:
    """Side of a patch in pixels of the model; chosen from the data, and logged, if not given."""
    check_option("unit", unit, ("pixel", "micrometre"))
    if patch_size is None:
        distances = np.concatenate([region.neighbour_distances() / region.step(pixel_size) for region in regions])
        if not distances.size:
            msg = "No image has two cells, so no patch size can be chosen. Give one: patch_size=10."
            raise ValueError(msg)
        median = float(np.median(distances))
        side = max(round(PATCH_PER_DISTANCE * median), MIN_PATCH_SIZE)
        physical = f" ({side * pixel_size:.1f} um)" if pixel_size else ""
        if progress:
            logger.info(
                f"patch size: {side} px{physical}, 4/3 of the distance between neighbouring centres, {median:.1f} px"
            )
        return side
    if unit == "micrometre" and pixel_size is None:
        msg = f"A patch size in micrometres needs the pixel size of the images, which is not known. {STATE_SIZE}"
        raise ValueError(msg)
    exact = patch_size / pixel_size if unit == "micrometre" and pixel_size else patch_size
    if not MIN_PATCH_SIZE <= exact < np.inf:
        msg = f"patch_size={patch_size} {unit} gives {exact:g} px, and must give at least {MIN_PATCH_SIZE}."
        raise ValueError(msg)
    return round(exact)


def _random_loss(fields: Fields, settings: Settings) -> float:
    cells = min(settings.batch_size, fields.n_cells)
    return random_nt_xent(cells, settings.views * len(settings.patch_scales), settings.temperature, PROJECTION)


def _log_outcome(record: Mapping[str, Any]) -> None:
    logger.info(
        f"trained {record['steps']} steps: loss {record['loss'][0]:.2f} at first, {record['final_loss']:.2f} at last, "
        f"{record['random_loss']:.2f} for random embeddings"
    )
    moved = []
    for name in ("x_c", "slope"):
        factor = record[name] / record[f"{name}_start"]
        moved.append(f"{name} {factor.min():.2f} to {factor.max():.2f} (median {np.median(factor):.2f})")
    logger.info(f"learned normalization, times its start: {', '.join(moved)}")


def _warn_of_failure(record: Mapping[str, Any]) -> None:
    """Warn unless views of one cell became more alike than those of others: that wins up to 1 / temperature of loss."""
    if record["final_loss"] > record["random_loss"] - LEAST_GAIN / record["temperature"]:
        msg = (
            f"Training did not work: its loss ends at {record['final_loss']:.2f}, that of random embeddings is "
            f"{record['random_loss']:.2f}. Check the centres, nm.pl.cells(sdata), or train longer: Settings(steps=...)."
        )
        warnings.warn(msg, stacklevel=3)
