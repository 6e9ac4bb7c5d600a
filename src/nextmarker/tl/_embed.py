"""Embed every cell of a SpatialData object."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from nextmarker import _keys
from nextmarker._errors import check_option, check_value
from nextmarker._images import Job, map_images
from nextmarker._provenance import name_embedding, warn_of_replaced_embedding
from nextmarker._record import refuse_foreign_keys, write_results
from nextmarker._regions import read_regions
from nextmarker._table import get_table
from nextmarker._tiles import divide, stream_tiles
from nextmarker.nn.device import arrange_weights, patches_at_once, pick_device
from nextmarker.nn.model import NeXtMarker, load_model
from nextmarker.nn.patches import CellTile, cut_patches, fixed_rotations, patch_margin
from nextmarker.tl._missing import fill_with_zero, lacking_markers, refuse_lacking, warn_of_lacking
from nextmarker.tl._places import Recorded, read_recorded
from nextmarker.tl._train import train
from nextmarker.tl._zero import Zero, describe_zeros, measure_zero, warn_of_no_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._progress import Advance
    from nextmarker._regions import Region
    from nextmarker._tiles import Tile

Missing = Literal["error", "zero"]

PART_SIZE = 8192
"""Images larger than this, in pixels, are embedded in parts."""
ROWS_AT_ONCE = 65_536
"""Number of cells whose F is computed at a time."""


def embed(
    sdata: SpatialData,
    model: NeXtMarker | str | Path | None = None,
    *,
    missing: Missing = "error",
    rotations: int = 4,
    tile_size: int = 1024,
    store_features: bool | Literal["float16"] = True,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
    device: str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> None:
    """Compute interpretability (I) and embedding (F) of every cell of the table.

    Trains a model with the defaults of `nm.tl.train` if none is given. Cells are resampled as in training, and the
    response to a cell is averaged over a few rotations. Each image is read once, tile by tile, after nine small windows
    of it.

    Background is subtracted. The response of the model is computed at about 250 random places in those windows, and its
    35th percentile is taken as the response to empty places, the zero of the image. It is subtracted from the response
    to every cell of the image, so that images with different background can be compared. Before that, the offset that
    a camera adds to every pixel is subtracted, the 1st percentile of the pixels. Neither is changed by hot, dead or
    saturated pixels, or by a smear in a corner. A marker that is bright in more than about two thirds of an image
    loses part of its signal, in all cells of that image alike. Models trained with `nm.nn.NetworkConfig(zero=False)`,
    as in the paper, subtract nothing.

    Parameters
    ----------
    sdata
        Images, and a table of cells made by `nm.pp.detect_cells` or `nm.pp.add_cells`.
    model
        A model or the path of a saved one; it is not changed. Markers are matched by name: images may have more
        channels, in any order.
    missing
        If the table or an image lacks a marker of the model: `"error"` raises an error; `"zero"` takes its counts in
        that image as zero and warns, so that its I is zero and F depends on the other markers only.
    rotations
        Number of rotations over which a cell is averaged.
    tile_size
        Width of a tile in pixels. It affects memory, but not the result.
    store_features
        Whether to store all features of I. They are about half of the table at 41 markers: `"float16"` stores them in
        half precision, to three digits, and False not at all. Only `nm.tl.marker_attribution`,
        `nm.get.cell_attribution` and what is asked of I itself, `use_rep="X_interpretability"`, need them; clusters,
        cell types and activations do not. Embedding again with the same model adds them, and all results stay valid.
    table_key
        Table in `sdata.tables`.
    random_state
        Seed of the training, if no model is given.
    device
        Torch device, by default a GPU if there is one.
    checkpoint
        A folder in which I of each image is kept as soon as it is finished, and the training if no model is given. The
        same call after an interruption goes on from there, with the same result to the last bit. Kept results are used
        if model, rotations, device and version are the same, and for each image its name, size, cells, mean intensities
        and the pixels in nine small windows. So another image, or one that was processed as a whole, is embedded again.
        A retouch outside of these windows is not noticed unless the intensities were measured again: then use another
        folder. It takes as much space as I, and can be removed afterwards.
    progress
        Show progress bars and log messages.

    Returns
    -------
    None. Writes into the table:

    `.obsm["X_nextmarker"]` : float32 (cells, 256)
        F, the embedding.
    `.obsm["X_interpretability"]` : float32 (cells, markers * 8)
        I, all features of the first marker first; see `store_features`.
    `.layers["interpretability"]` : float32 (cells, markers)
        Activation, the mean of the features of a marker. Zero for a marker the model does not know.
    `.varm["nextmarker_crosstalk"]` : float32 (markers, 256 * 8)
        The weights W_m of F = sum over markers of W_m I_m + b, each of shape (256, 8) before flattening.
    `.obs["nextmarker_embedding"]` : categorical
        Identifies this embedding by the digests of the model and of F. It stays with the cells when tables are cut or
        joined, and shows which results belong to them.
    `.uns["nextmarker"]["embed"]`
        A record: digest of the model, name of the embedding, patch size, network, learned sigmoids, and
        `filled_with_zero`, the missing markers of each image. For the zero of each image:

        `images` : object (images,)
            Names of the images, in the order of the following arrays.
        `offset` : float32 (images, markers)
            Counts that the camera added to every pixel; 0 if none.
        `background` : float32 (images, markers)
            Mean counts per pixel in empty places, including the offset.
        `zero_response` : float32 (images, markers)
            Response to empty places, averaged over the features of a marker.

        Markers are those of the model (`markers`), in this order.

    Warns
    -----
    UserWarning
        If counts of missing markers are taken as zero, if the table has clusters or attributions of another embedding,
        or if markers have no signal above the background of an image.

    Raises
    ------
    KeyError
        If the table or one of its images is missing.
    ValueError
        If the images or the table lack markers of the model (with `missing="zero"`: all markers), a pixel size is
        missing, pixels are not finite, or a key is used by something else. The table is not changed.

    Examples
    --------
    >>> import nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=100)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=8, progress=False)
    >>> model = nm.tl.train(sdata, patch_size=12, training=nm.nn.TrainingConfig(steps=10), progress=False)
    >>> nm.tl.embed(sdata, model, progress=False)
    >>> sdata["table"].obsm["X_nextmarker"].shape[1]
    256
    """
    for name, value in (("rotations", rotations), ("tile_size", tile_size)):
        check_value(name, value, value >= 1, "at least 1")
    check_option("missing", missing, get_args(Missing))
    check_value(
        "store_features", store_features, store_features in (True, False, "float16"), "True, False or 'float16'"
    )
    adata = get_table(sdata, table_key)
    places = _places()
    refuse_foreign_keys(adata, list(places.values()), _keys.EMBED_STEP, argument=None)
    regions = read_regions(sdata, table_key)
    if model is None:
        model = train(
            sdata,
            table_key=table_key,
            random_state=random_state,
            device=device,
            checkpoint=checkpoint,
            progress=progress,
        )
    elif not isinstance(model, NeXtMarker):
        model = load_model(model)
    lacking = lacking_markers(model, adata, regions)
    if missing == "error":
        refuse_lacking(lacking, adata, regions)
    warn_of_lacking(lacking, model, regions)
    recorded = partial(read_recorded, sdata, table_key, markers=model.config.markers)
    interpretability, embedding, zeros = embed_regions(
        model, regions, lacking, adata.n_obs, rotations, tile_size, pick_device(device), progress, recorded, checkpoint
    )
    warn_of_no_signal(model, regions, lacking, interpretability, zeros)
    parameters = {
        "rotations": rotations,
        "tile_size": tile_size,
        "missing": missing,
        "store_features": store_features,
        "filled_with_zero": {image: np.array(markers, dtype=object) for image, markers in lacking.items()},
        **describe_zeros(zeros),
    }
    _write(adata, model, interpretability, embedding, places, parameters)


def embed_regions(
    model: NeXtMarker,
    regions: Sequence[Region],
    lacking: Mapping[str, Sequence[str]],
    n_cells: int,
    rotations: int,
    tile_size: int,
    device: torch.device,
    progress: bool,
    recorded: Callable[[Region], Recorded | None] = lambda _: None,
    checkpoint: str | Path | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, Zero]]:
    """Compute I and F of the cells of all images, tile by tile.

    Parameters
    ----------
    lacking
        For each image, the markers whose counts are taken as zero.
    recorded
        Reads what the table holds of the cells of a region, to check where they are.
    checkpoint
        Folder in which I of each image is kept.

    Returns
    -------
    I, float32 (cells, markers, features), and F, float32 (cells, embedding), in the order of the table; and the zero of
    each image, if the model subtracts it.
    """
    known = model.config
    parts = [part for region in regions for part in _divide(region, model, lacking.get(region.image, []))]
    settings = {"model": model.digest(), "rotations": rotations, "device": device.type}
    results = map_images(
        partial(_embed_part, model, rotations, tile_size, device),
        [part.as_job(recorded, settings) for part in parts],
        step=_keys.EMBED_STEP,
        title="embedding",
        unit="cell",
        progress=progress,
        checkpoint=checkpoint,
    )
    interpretability = np.empty((n_cells, len(known.markers), known.network.features), np.float32)
    zeros: dict[str, Zero] = {}
    for number, arrays in results:
        interpretability[parts[number].rows] = arrays["interpretability"]
        if "zero_response" in arrays:
            zeros[parts[number].image.image] = Zero.from_arrays(arrays)
    in_order = {region.image: zeros[region.image] for region in regions if region.image in zeros}
    return interpretability, _combine(model, interpretability, device), in_order


@dataclass(frozen=True)
class _Part:
    """Cells of an image, or of a part of a large one."""

    image: Region
    """The whole image, without cells."""
    cells: Region
    """The part, with cells that are numbered from 0."""
    rows: np.ndarray
    """Positions of the cells in the table."""
    centres: np.ndarray
    """Centres in the whole image."""
    absent: Sequence[str]
    """Markers whose counts are taken as zero."""

    def as_job(self, recorded: Callable[[Region], Recorded | None], settings: Mapping[str, object]) -> Job:
        """Describe what is computed, and what it depends on."""

        def in_table() -> Recorded | None:
            return recorded(replace(self.cells, rows=self.rows))

        def inputs() -> tuple[Region, Region, Sequence[str], Recorded | None]:
            return self.image, self.cells, self.absent, in_table()

        def depends_on() -> dict[str, object]:
            table = in_table()
            means = None if table is None else table.means
            own = {"centres": self.centres, "pixel_size": self.cells.pixel_size, "absent": self.absent, "means": means}
            return {**settings, **own}

        return Job(self.image.image, self.image.pixels, inputs, len(self.rows), depends_on)


def _divide(region: Region, model: NeXtMarker, absent: Sequence[str]) -> Iterator[_Part]:
    """Divide an image into parts of bounded size, with the markers of the model."""
    known = model.config
    pixels = fill_with_zero(region.pixels, absent).sel(c=list(known.markers))
    whole = replace(region, pixels=pixels)
    image = replace(whole, centres=np.empty((0, 2)), rows=np.empty(0, int))
    margin = patch_margin(known.patch_size, region.scale(known.pixel_size))
    for mine, part in divide(whole, size=PART_SIZE, margin=margin):
        cells = replace(part, rows=np.arange(len(part.rows)))
        yield _Part(image, cells, part.rows, region.centres[mine], absent)


@torch.inference_mode()
def _embed_part(
    model: NeXtMarker,
    rotations: int,
    tile_size: int,
    device: torch.device,
    image: Region,
    cells: Region,
    absent: Sequence[str],
    recorded: Recorded | None,
    advance: Advance,
) -> dict[str, np.ndarray]:
    """Compute I of the cells of a part, (cells, markers, features), and the zero of its image."""
    known = model.config
    model = deepcopy(model).to(device).eval()
    arrange_weights(model)
    scale = image.scale(known.pixel_size)
    zero = measure_zero(model, image, device)
    interpretability = np.empty((len(cells.rows), len(known.markers), known.network.features), np.float32)
    margin = patch_margin(known.patch_size, scale)
    for tile in stream_tiles(cells, known.markers, tile_size=tile_size, margin=margin):
        if recorded is not None and recorded.check(cells, tile):
            recorded = None  # one tile is enough
        for rows, batch in _batches(tile, scale, device, max(patches_at_once(device) // rotations, 1)):
            interpretability[rows] = _interpret(model, batch, rotations, zero)[: len(rows)].cpu()
            advance(len(rows))
    interpretability[:, np.isin(known.markers, absent)] = 0  # exactly, without rounding errors
    return {"interpretability": interpretability, **({} if zero is None else zero.as_arrays())}


@torch.inference_mode()
def _combine(model: NeXtMarker, interpretability: np.ndarray, device: torch.device) -> np.ndarray:
    """Compute F of all cells, in the order of the table, so that it does not depend on tiles.

    F is linear in I, so F of the average I is the average F.
    """
    crosstalk = deepcopy(model.crosstalk).to(device)
    blocks = torch.from_numpy(interpretability).flatten(1).split(ROWS_AT_ONCE)
    return torch.cat([crosstalk(block.to(device)).cpu() for block in blocks]).numpy()


def _interpret(model: NeXtMarker, cells: CellTile, rotations: int, zero: Zero | None) -> torch.Tensor:
    """Compute I of the cells of a tile from their responses averaged over rotations, (cells, markers, features)."""
    count = len(cells.centres)
    if zero is not None:
        cells = replace(cells, offset=zero.offset)
    views = [
        cut_patches(cells, model.config.patch_size, rotation.expand(count, 2, 2).to(cells.pixels.device))
        for rotation in fixed_rotations(rotations)
    ]
    response = model.respond(torch.cat(views)).unflatten(0, (rotations, count)).mean(0)
    return model.interpret(response, None if zero is None else zero.response)


def _batches(tile: Tile, scale: float, device: torch.device, size: int) -> Iterator[tuple[np.ndarray, CellTile]]:
    """Divide the cells of a tile into batches of equal size; the last is filled up with copies of its last cell.

    The order of summation depends on the size of a batch, so otherwise the last bits would depend on the tiles.
    """
    cells = CellTile(torch.from_numpy(tile.pixels), torch.from_numpy(tile.centres), scale).to(device)
    for first in range(0, len(tile.rows), size):
        filled = torch.arange(first, first + size, device=device).clamp(max=len(tile.rows) - 1)
        yield tile.rows[first : first + size], replace(cells, centres=cells.centres[filled])


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
    """Write the results in the marker order of the table, zero for markers that the model does not know."""
    known = model.config
    shared = np.isin(known.markers, adata.var_names)
    at = adata.var_names.get_indexer(np.array(known.markers)[shared])
    activation = np.zeros((adata.n_obs, adata.n_vars), np.float32)
    activation[:, at] = interpretability.mean(2)[:, shared]
    features = None
    if store := parameters["store_features"]:
        kind = np.float16 if store == "float16" else np.float32
        features = np.zeros((adata.n_obs, adata.n_vars, known.network.features), kind)
        features[:, at] = interpretability[:, shared]
        features = features.reshape(adata.n_obs, -1)
    crosstalk = np.zeros((adata.n_vars, known.network.embedding * known.network.features), np.float32)
    crosstalk[at] = model.crosstalk_by_marker().flatten(1).cpu().numpy()[shared]
    name = name_embedding(model.digest(), embedding)
    results = {
        places["embedding"]: embedding,
        places["features"]: features,
        places["activation"]: activation,
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
