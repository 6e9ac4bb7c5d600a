"""Train a model on the images and cells of a SpatialData object."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from nextmarker import _keys
from nextmarker._coordinates import STATE_SIZE
from nextmarker._errors import check_option, listed
from nextmarker._logging import logger
from nextmarker._outcome import describe_outcome, training_worked
from nextmarker._record import fields_of, write_results
from nextmarker._regions import read_regions, shared_markers
from nextmarker._table import get_table
from nextmarker.nn.activation import set_activation
from nextmarker.nn.device import pick_device
from nextmarker.nn.loss import random_nt_xent
from nextmarker.nn.model import MIN_PATCH_SIZE, ModelConfig, NetworkConfig, NeXtMarker
from nextmarker.nn.normalization import start_centres
from nextmarker.nn.presets import PRESETS
from nextmarker.nn.training import PROJECTION, TrainingConfig, fit, learning_rate
from nextmarker.nn.whitening import whiten_features
from nextmarker.nn.zero import set_scale
from nextmarker.tl._kept_training import KeptTraining, training_key
from nextmarker.tl._sampler import CellSampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from spatialdata import SpatialData

    from nextmarker._regions import Region

PATCH_PER_DISTANCE = 4 / 3
"""Default patch size, in median distances between neighbouring cells."""
WHITENING_CELLS = 512
"""Number of cells from whose views the features are whitened; each marker has only a few features."""


def train(
    sdata: SpatialData,
    patch_size: float | None = None,
    *,
    unit: Literal["pixel", "micrometre"] = "pixel",
    preset: str = "default",
    training: TrainingConfig | None = None,
    network: NetworkConfig | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> NeXtMarker:
    """Train a model by contrastive learning (SimCLR).

    Augmented views of one cell are positives, views of all other cells negatives. Training needs neither labels nor
    masks, only cell centres. The model learns the markers of the table, from the images of the table.

    Parameters
    ----------
    sdata
        Images, and a table of cells made by `nm.pp.detect_cells` or `nm.pp.add_cells`.
    patch_size
        Width of the square around a cell centre that the model sees. By default 4/3 of the median distance between
        neighbouring cells; the value is logged.
    unit
        Unit of `patch_size`. Images of different pixel sizes are resampled to the finest one.
    preset
        Name of a configuration in `nm.nn.PRESETS`: `"default"`, or `"paper-synthetic"` or `"paper-imc"`, those of the
        experiments in the paper. `"paper-imc"` has patches of 10, 8 and 6 px with `patch_size=10`.
    training
        Steps, views, augmentations and learning rate, instead of those of the preset.
    network
        Architecture of the network, instead of that of the preset.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed. The same seed, data and device give the same model.
    device
        Torch device, by default a GPU if there is one.
    checkpoint
        A folder in which the state of the training is kept every ten seconds. The same call after an interruption goes
        on from there, with the same result to the last bit. The state is used if all arguments, the version, the cells,
        their mean intensities, and the pixels in memory at the start (up to 1 GB) are the same; otherwise the training
        begins anew. The folder can be removed afterwards.
    progress
        Show a progress bar, and log the patch size and the outcome of the training.

    Returns
    -------
    The trained model, on the CPU. Its configuration and the outcome of the training are recorded in
    `.uns["nextmarker"]["train"]`, with

    `loss`, `learning_rates` : float64 (steps,)
        Values of every step. The loss is NT-Xent, without the penalty on the sigmoids.
    `final_loss`, `random_loss` : float
        Loss averaged over the last 5 % of the steps, and the loss of random embeddings.
    `markers`, `markers_without_signal` : object (markers,)
        Names of all markers, and of those without positive pixels in a sample of up to two million pixels.
    `x_c`, `slope`, `x_c_start`, `slope_start` : float32 (markers,)
        Learned and initial sigmoids: centres in counts above the offset, and slopes (see `nm.nn.Normalization`).

    Warns
    -----
    UserWarning
        If the final loss is no better than that of random embeddings, or markers have no signal.

    Raises
    ------
    KeyError
        If the table or one of its images is missing.
    TypeError
        If `training` is not an `nm.nn.TrainingConfig`, or `network` not an `nm.nn.NetworkConfig`.
    ValueError
        If the preset does not exist, training and network do not fit together, there are fewer than two cells, panels
        differ, pixels are not finite, only some images have a pixel size, or the loss becomes infinite or NaN. The
        table is not changed.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> model = nm.tl.train(sdata, patch_size=12, training=nm.nn.TrainingConfig(steps=10), progress=False)
    >>> model.config.patch_size
    12
    """
    check_option("preset", preset, PRESETS)
    training, network = training or PRESETS[preset][0], network or PRESETS[preset][1]
    _check_types(training, network)
    if training.penalty == "paper" and network.axis != "linear":
        msg = "penalty='paper' needs sigmoids on the linear axis: network=nm.nn.NetworkConfig(axis='linear')."
        raise ValueError(msg)
    regions = read_regions(sdata, table_key)
    adata = get_table(sdata, table_key)
    markers = shared_markers(sdata, [region.image for region in regions], adata.var_names)
    if adata.n_obs < 2:
        msg = "Contrastive learning needs at least two cells; the table has one. Check it: nm.pl.cells(sdata)."
        raise ValueError(msg)

    pixel_size = _common_pixel_size(regions)
    side = _patch_size(regions, patch_size, unit, pixel_size, progress=progress)
    generator = torch.Generator().manual_seed(random_state)
    sampler = CellSampler(
        regions, markers, side, pixel_size, training, generator, pick_device(device), zero=network.zero
    )
    config = ModelConfig(tuple(markers), side, pixel_size, network)
    kept = None
    if checkpoint is not None:
        means = None if adata.X is None else adata[:, markers].to_df().to_numpy()
        key = training_key(sampler, regions, means, config=config, training=training, seed=random_state)
        kept = KeptTraining(checkpoint, key, sampler, training.steps)
    start = start_centres(sampler.sample_pixels(), training.sigmoid_start)
    silent = [marker for marker, centre in zip(markers, start, strict=True) if np.isnan(centre)]
    if silent:
        msg = f"Markers without signal in the sampled pixels: {silent}. Their activation is zero."
        warnings.warn(msg, stacklevel=2)
    with torch.random.fork_rng():
        torch.manual_seed(random_state)
        model = NeXtMarker(config, start).to(sampler.device)
        loss = fit_and_scale(model, sampler, training, generator=generator, progress=progress, kept=kept)
    model.cpu()
    record = {
        **fields_of(training),
        **fields_of(network),
        "random_state": random_state,
        "patch_size": side,
        "pixel_size": pixel_size,
        "loss": loss,
        "learning_rates": np.array([learning_rate(step, training) for step in range(training.steps)]),
        "final_loss": float(loss[-max(len(loss) // 20, 1) :].mean()),
        "random_loss": _random_loss(sampler, training),
        "markers": np.array(markers, dtype=object),
        "markers_without_signal": np.array(silent, dtype=object),
        **model.normalization.as_arrays(),
        "model": model.digest(),
    }
    write_results(adata, "train", {}, record)
    if progress:
        _log_outcome(record)
    if not training_worked(record):
        warnings.warn(describe_outcome(record), stacklevel=2)
    return model


def fit_and_scale(
    model: NeXtMarker,
    sampler: CellSampler,
    training: TrainingConfig,
    *,
    generator: torch.Generator,
    progress: bool,
    kept: KeptTraining | None = None,
) -> np.ndarray:
    """Train a model in place, set its scale before and after, and how its features are read, and return the loss."""
    set_scale(model, sampler.sample_cells)
    loss = fit(model, sampler.draw, training, generator=generator, progress=progress, kept=kept)
    set_scale(model, sampler.sample_cells)  # training makes the response of some markers stronger
    if training.whiten_features:
        whiten_features(model, sampler.sample_cells(WHITENING_CELLS), training, generator=generator)
    set_activation(model, sampler.sample_cells)
    return loss


def _check_types(training: object, network: object) -> None:
    for name, value, expected in (("training", training, TrainingConfig), ("network", network, NetworkConfig)):
        if not isinstance(value, expected):
            msg = f"{name} is of type {type(value).__name__}. Give an nm.nn.{expected.__name__}(...)."
            raise TypeError(msg)


def _common_pixel_size(regions: Sequence[Region]) -> float | None:
    """Pixel size of the model: the finest of the images, or None if it is unknown for all."""
    sizes = {region.image: region.pixel_size for region in regions}
    unknown = [image for image, size in sizes.items() if size is None]
    if unknown and len(unknown) < len(sizes):
        msg = f"Only {listed(unknown)} lack a pixel size. {STATE_SIZE}"
        raise ValueError(msg)
    return None if unknown else min(size for size in sizes.values() if size is not None)


def _patch_size(
    regions: Sequence[Region], patch_size: float | None, unit: str, pixel_size: float | None, *, progress: bool
) -> int:
    """Width of a patch in pixels of the model. If not given, it is chosen from the data and logged."""
    check_option("unit", unit, ("pixel", "micrometre"))
    if patch_size is None:
        distances = np.concatenate([region.neighbour_distances() / region.scale(pixel_size) for region in regions])
        if not distances.size:
            msg = "No image has two cells, from which to choose the patch size. Give one: patch_size=10."
            raise ValueError(msg)
        median = float(np.median(distances))
        side = max(round(PATCH_PER_DISTANCE * median), MIN_PATCH_SIZE)
        physical = f" ({side * pixel_size:.1f} um)" if pixel_size else ""
        if progress:
            logger.info(
                f"patch size: {side} px{physical}, 4/3 of the median distance to the nearest cell, {median:.1f} px"
            )
        return side
    if unit == "micrometre" and pixel_size is None:
        msg = f"A patch size in micrometres needs the pixel size of the images. {STATE_SIZE}"
        raise ValueError(msg)
    exact = patch_size / pixel_size if unit == "micrometre" and pixel_size else patch_size
    if not MIN_PATCH_SIZE <= exact < np.inf:
        msg = f"patch_size={patch_size} {unit} is {exact:g} px. It must be at least {MIN_PATCH_SIZE} px."
        raise ValueError(msg)
    return round(exact)


def _random_loss(sampler: CellSampler, training: TrainingConfig) -> float:
    cells = min(training.batch_size, sampler.n_cells)
    return random_nt_xent(cells, training.views * len(training.patch_scales), training.temperature, PROJECTION)


def _log_outcome(record: Mapping[str, Any]) -> None:
    logger.info(
        f"trained {record['steps']} steps: loss from {record['loss'][0]:.2f} to {record['final_loss']:.2f}, "
        f"random embeddings {record['random_loss']:.2f}"
    )
    factors = []
    for name in ("x_c", "slope"):
        factor = record[name] / record[f"{name}_start"]
        factors.append(f"{name} {factor.min():.2f} to {factor.max():.2f} (median {np.median(factor):.2f})")
    logger.info(f"learned normalization relative to its start: {', '.join(factors)}")
