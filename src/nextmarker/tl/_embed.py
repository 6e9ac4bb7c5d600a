"""Embed every cell of a SpatialData object."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from nextmarker import _keys
from nextmarker._errors import check_option, check_value
from nextmarker._provenance import name_embedding, warn_of_replaced_embedding
from nextmarker._regions import read_regions
from nextmarker._table import get_table, refuse_foreign_keys, write_results
from nextmarker._tiles import stream_tiles
from nextmarker.nn.device import pick_device, to_device
from nextmarker.nn.encoder import CACHED
from nextmarker.nn.model import NeXtMarker, load_model
from nextmarker.nn.views import Crops, cut_patches, fixed_rotations, reach
from nextmarker.tl._missing import fill_with_zero, lacking_markers, refuse_lacking, warn_of_lacking
from nextmarker.tl._places import PlaceCheck
from nextmarker.tl._train import train
from nextmarker.tl._zero import Zero, describe_zeros, measure_zero, warn_of_no_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region
    from nextmarker._tiles import Tile

Missing = Literal["refuse", "zero"]

ROWS_AT_ONCE = 65_536
"""Cells whose F is computed at one time."""


def embed(
    sdata: SpatialData,
    model: NeXtMarker | str | Path | None = None,
    *,
    patch_size: float | None = None,
    unit: Literal["pixel", "micrometre"] = "pixel",
    missing: Missing = "refuse",
    rotations: int = 4,
    tile_size: int = 1024,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Embed cells: interpretability I and embedding F of every cell of the table.

    Trains a model first when none is given. Cells are drawn by the same resampling as in training, and I and F are
    averaged over a few rotations. Each image is read once, tile by tile, and nine small windows of it once before.

    Each image has its own zero. About 250 places spread over those windows show what the model responds where a marker
    is absent: the lower third of them counts as empty. That response is subtracted from the response of every cell, so
    that background which differs between images does not separate their cells. The offset that a camera adds to every
    pixel, the first percentile of the pixels, is subtracted before. Hot, dead and saturated pixels, or a smear over a
    corner, change neither. A marker that is bright in more than about two thirds of an image loses part of its signal
    with its zero, in all cells of that image alike. Models trained with `nm.nn.Network(zero=False)`, as those of the
    paper, subtract nothing.

    Parameters
    ----------
    sdata
        Images, and a table of cells made by `nm.pp.detect_cells` or `nm.pp.add_cells`.
    model
        A model, which is left as it is, or the path of a saved one. Markers are matched by name: images may have more
        channels, in any order.
    patch_size
        For training, if no model is given: see `nm.tl.train`.
    unit
        Unit of `patch_size`.
    missing
        What becomes of a marker of the model that the table or some image does not have: `"refuse"` raises, `"zero"`
        takes its counts as zero there and warns, so that its I is exactly zero and F rests on the other markers.
    rotations
        Rotations over which a cell is averaged.
    tile_size
        Side of a tile in pixels; memory depends on it, the result does not.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed of the training.
    device
        Torch device; by default a GPU where there is one.
    progress
        Show progress bars, and log how training went.

    Returns
    -------
    None. Writes into the table:

    `.obsm["X_nextmarker"]` : float32 (cells, 256)
        F, the embedding.
    `.obsm["X_interpretability"]` : float32 (cells, markers * 8)
        I, the features of the first marker first.
    `.layers["interpretability"]` : float32 (cells, markers)
        Activation of a marker: the mean of its features. Zero for a marker the model does not know.
    `.varm["nextmarker_crosstalk"]` : float32 (markers, 256 * 8)
        The weights W_m of F = sum of W_m I_m + b, each (256, 8) made flat.
    `.obs["nextmarker_embedding"]` : categorical
        The name of this embedding: the digest of the model, and that of F. It stays with the cells when tables are
        cut or joined, and tells which results belong to them.
    `.uns["nextmarker"]["embed"]`
        The record: model digest, name of the embedding, patch size, network, learned sigmoids, and as
        `filled_with_zero` the markers that were missing, by image. The zero of each image is in

        `images` : object (images,)
            Names of the images, in the order of the next three.
        `offset` : float32 (images, markers)
            Counts that a camera added to every pixel; 0 for none.
        `background` : float32 (images, markers)
            Mean counts per pixel in empty places, with the offset.
        `zero_response` : float32 (images, markers)
            Response of empty places, the mean of a marker's features.

        Markers are those of the model, in its order (`markers`).

    Warns
    -----
    UserWarning
        If markers are filled with zero counts, clusters or attributions of another embedding stay in the table, or
        markers have no signal above the background of an image: its pixels are noise, and no cell is brighter.

    Raises
    ------
    KeyError
        If the table or one of its images is missing.
    ValueError
        If the images or the table lack markers of the model, and with `missing="zero"` if they lack them all, a pixel
        size is missing, pixels are not finite, or a key is taken by something else. The table is as before.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> model = nm.tl.train(sdata, patch_size=12, settings=nm.nn.Settings(steps=20), progress=False)
    >>> nm.tl.embed(sdata, model, progress=False)
    >>> sdata["table"].obsm["X_nextmarker"].shape[1]
    256
    """
    for name, value in (("rotations", rotations), ("tile_size", tile_size)):
        check_value(name, value, value >= 1, "at least 1")
    check_option("missing", missing, get_args(Missing))
    adata = get_table(sdata, table_key)
    places = _places()
    refuse_foreign_keys(adata, list(places.values()), argument=None)
    regions = read_regions(sdata, table_key)
    if model is None:
        model = train(
            sdata,
            patch_size,
            unit=unit,
            table_key=table_key,
            random_state=random_state,
            device=device,
            progress=progress,
        )
    elif patch_size is not None:
        msg = "A model brings its own patch size. Leave out patch_size, or the model to train another."
        raise ValueError(msg)
    elif not isinstance(model, NeXtMarker):
        model = load_model(model)
    lacking = lacking_markers(model, adata, regions)
    if missing == "refuse":
        refuse_lacking(lacking, adata, regions)
    warn_of_lacking(lacking, model, regions)
    check = PlaceCheck(sdata, table_key, model.architecture.markers)
    interpretability, embedding, zeros = embed_regions(
        model, regions, lacking, adata.n_obs, rotations, tile_size, pick_device(device), progress, check
    )
    warn_of_no_signal(model, regions, lacking, interpretability, zeros)
    parameters = {
        "rotations": rotations,
        "tile_size": tile_size,
        "missing": missing,
        "filled_with_zero": {image: np.array(markers, dtype=object) for image, markers in lacking.items()},
        **describe_zeros(zeros),
    }
    _write(adata, model, interpretability, embedding, places, parameters)


@torch.inference_mode()
def embed_regions(
    model: NeXtMarker,
    regions: Sequence[Region],
    lacking: Mapping[str, Sequence[str]],
    n_cells: int,
    rotations: int,
    tile_size: int,
    device: torch.device,
    progress: bool,
    check: Callable[[Region, Tile], None] | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Zero]]:
    """Embed the cells of all images, tile by tile.

    Parameters
    ----------
    lacking
        Markers whose counts are taken as zero, by image.
    check
        Called with each tile before it is embedded.

    Returns
    -------
    I, float32 (cells, markers, features), and F, float32 (cells, embedding), in the order of the table, and the zero of
    each image, if the model subtracts one.
    """
    known = model.architecture
    model = deepcopy(model).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.eval()
    interpretability = np.empty((n_cells, len(known.markers), known.network.features), np.float32)
    zeros: dict[str, Zero] = {}
    with tqdm(total=n_cells, desc="embedding", unit="cell", disable=not progress) as bar:
        for region in regions:
            step = region.step(known.pixel_size)
            halo = reach(known.patch_size, step)
            absent = lacking.get(region.image, [])
            filled = replace(region, pixels=fill_with_zero(region.pixels, absent))
            zero = zeros.get(region.image) or measure_zero(model, filled, device)
            if zero is not None:
                zeros[region.image] = zero
            for tile in stream_tiles(filled, known.markers, tile_size=tile_size, halo=halo):
                if check is not None:
                    check(region, tile)
                for rows, crops in _batches(tile, step, device, max(CACHED // rotations, 1)):
                    interpretability[rows] = _interpret(model, crops, rotations, zero)[: len(rows)].cpu()
                    bar.update(len(rows))
            # exactly zero, which f(0) - f(0) is only up to rounding
            interpretability[np.ix_(region.rows, np.isin(known.markers, absent))] = 0
    # F is linear in I, so that of the averaged I is the average; in the order of the table, no tile shows in it
    blocks = torch.from_numpy(interpretability).flatten(1).split(ROWS_AT_ONCE)
    embedding = torch.cat([model.crosstalk(block.to(device)).cpu() for block in blocks])
    return interpretability, embedding.numpy(), zeros


def _interpret(model: NeXtMarker, crops: Crops, rotations: int, zero: Zero | None) -> torch.Tensor:
    """I of the cells of one tile, from their responses averaged over rotations, (cells, markers, features)."""
    cells = len(crops.centres)
    if zero is not None:
        crops = replace(crops, offset=zero.offset)
    views = [
        cut_patches(crops, model.architecture.patch_size, rotation.expand(cells, 2, 2).to(crops.pixels.device))
        for rotation in fixed_rotations(rotations)
    ]
    response = model.respond(torch.cat(views)).unflatten(0, (rotations, cells)).mean(0)
    return model.interpret(response, None if zero is None else zero.response)


def _batches(tile: Tile, step: float, device: torch.device, size: int) -> Iterator[tuple[np.ndarray, Crops]]:
    """Divide the cells of a tile into batches of one size, the last filled up with a cell again.

    Sums are taken in another order in batches of another size, and a cell would show in its last bits where tiles end.
    """
    pixels = to_device(tile.pixels, device)
    for first in range(0, len(tile.rows), size):
        filled = np.arange(first, first + size).clip(max=len(tile.rows) - 1)
        centres = torch.from_numpy(tile.centres[filled]).to(device)
        yield tile.rows[first : first + size], Crops(pixels, centres, step)


def _places() -> dict[str, str]:
    return {
        "embedding": f"obsm/{_keys.EMBEDDING}",
        "features": f"obsm/{_keys.INTERPRETABILITY_FEATURES}",
        "activation": f"layers/{_keys.INTERPRETABILITY}",
        "crosstalk": f"varm/{_keys.CROSSTALK}",
        "name": f"obs/{_keys.EMBEDDED}",
    }


def _write(
    adata: AnnData,
    model: NeXtMarker,
    interpretability: np.ndarray,
    embedding: np.ndarray,
    places: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> None:
    """Write results in the order of the table's markers, zero for those that the model does not know."""
    known = model.architecture
    shared = np.isin(known.markers, adata.var_names)
    at = adata.var_names.get_indexer(np.array(known.markers)[shared])
    features = np.zeros((adata.n_obs, adata.n_vars, known.network.features), np.float32)
    features[:, at] = interpretability[:, shared]
    crosstalk = np.zeros((adata.n_vars, known.network.embedding * known.network.features), np.float32)
    crosstalk[at] = model.crosstalk_by_marker().flatten(1).cpu().numpy()[shared]
    name = name_embedding(model.digest(), embedding)
    results = {
        places["embedding"]: embedding,
        places["features"]: features.reshape(adata.n_obs, -1),
        places["activation"]: features.mean(2),
        places["crosstalk"]: crosstalk,
        places["name"]: pd.Categorical([name]).repeat(adata.n_obs),
    }
    record = {
        **parameters,
        "model": model.digest(),
        "embedded_as": name,
        "markers": np.array(known.markers, dtype=object),
        "patch_size": known.patch_size,
        "pixel_size": known.pixel_size,
        **asdict(known.network),
        **model.normalization.as_arrays(),
    }
    warn_of_replaced_embedding(adata, name)
    write_results(adata, _keys.EMBED_STEP, results, record)
