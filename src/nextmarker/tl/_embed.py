"""Embed every cell of a SpatialData object."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_option, check_value
from nextmarker._provenance import name_embedding, warn_of_replaced_embedding
from nextmarker._record import fields_of, refuse_foreign_keys, write_results
from nextmarker._regions import read_regions
from nextmarker._table import get_table
from nextmarker.nn.device import pick_device
from nextmarker.nn.model import NeXtMarker, load_model
from nextmarker.tl._features import embed_regions
from nextmarker.tl._missing import lacking_markers, refuse_lacking, warn_of_lacking
from nextmarker.tl._places import read_recorded
from nextmarker.tl._train import train
from nextmarker.tl._zero import describe_zeros, warn_of_no_signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


Missing = Literal["error", "zero"]


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
    of it; images larger than 8,192 pixels are divided. If a client of dask is active, its workers do this, with the
    same result.

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
        Activation, the amount of a marker in the cell: a weighted sum of its features. Zero for a marker the model does
        not know.
    `.varm["nextmarker_crosstalk"]` : float32 (markers, 256 * 8)
        The weights W_m of F = sum over markers of W_m I_m + b, each of shape (256, 8) before flattening.
    `.varm["nextmarker_activation"]` : float32 (markers, 8)
        The weights of the activation.
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
        refuse_lacking(lacking, model, adata, regions)
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


def _places() -> dict[str, str]:
    return {
        "embedding": f"obsm/{_keys.EMBEDDING}",
        "features": f"obsm/{_keys.INTERPRETABILITY_FEATURES}",
        "activation": f"layers/{_keys.INTERPRETABILITY}",
        "crosstalk": f"varm/{_keys.CROSSTALK}",
        "activation_weights": f"varm/{_keys.ACTIVATION_WEIGHTS}",
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
    activation[:, at] = model.activation(interpretability)[:, shared]
    features = None
    if store := parameters["store_features"]:
        kind = np.float16 if store == "float16" else np.float32
        features = np.zeros((adata.n_obs, adata.n_vars, known.network.features), kind)
        features[:, at] = interpretability[:, shared]
        features = features.reshape(adata.n_obs, -1)
    crosstalk = np.zeros((adata.n_vars, known.network.embedding * known.network.features), np.float32)
    crosstalk[at] = model.crosstalk_by_marker().flatten(1).cpu().numpy()[shared]
    activation_weights = np.zeros((adata.n_vars, known.network.features), np.float32)
    activation_weights[at] = model.activation_weights.cpu().numpy()[shared]
    name = name_embedding(model.digest(), embedding)
    results = {
        places["embedding"]: embedding,
        places["features"]: features,
        places["activation"]: activation,
        places["crosstalk"]: crosstalk,
        places["activation_weights"]: activation_weights,
        places["name"]: pd.Categorical([name]).repeat(adata.n_obs),
    }
    record = {
        **parameters,
        "model": model.digest(),
        "embedded_as": name,
        "markers": np.array(known.markers, dtype=object),
        "patch_size": known.patch_size,
        "pixel_size": known.pixel_size,
        **fields_of(known.network),
        **model.normalization.as_arrays(),
    }
    warn_of_replaced_embedding(adata, name)
    write_results(adata, _keys.EMBED_STEP, results, record)
