"""Transfers cell types from a reference to new cells that were embedded with the same model."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import check_value, listed
from nextmarker._outcome import unlike_reference
from nextmarker._provenance import check_clusters
from nextmarker._record import embedded_as, made_from, read_record, record_name, refuse_foreign_keys, write_results
from nextmarker._table import LAYERS, OURS, get_table, read_labels, read_representations
from nextmarker.tl._missing import newly_missing
from nextmarker.tl.cell_types.classifier import (
    LEAST,
    N_NEIGHBORS,
    Classifier,
    choose_training_cells,
    divide,
    train_classifier,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData

NAMED = 3  # images that a warning lists
GREY = "#b3b3b3"


def transfer(
    data: AnnData | SpatialData,
    reference: AnnData | SpatialData,
    label_key: str,
    *,
    use_rep: str = _keys.EMBEDDING,
    threshold: float = 0.5,
    quantile: float = 0.99,
    key_added: str | None = None,
    table_key: str = _keys.TABLE,
    random_state: int = 0,
) -> None:
    """Assign the cell types of a reference to new cells that were embedded with the same model.

    A classifier (multinomial logistic regression) learns from clear examples only: the reference cells whose type is
    that of all their 10 nearest neighbours in the embedding. Each new cell gets the most probable type. It is
    `"unsure"` if this type is not probable enough, or if the cell is unlike all examples of the type, as cells of a
    type are that the reference does not have.

    Both are measured in the reference, one part at a time, by what was learned from the other parts. The parts are
    images, up to five groups of them, or for a single image a random fifth of its cells. Probabilities are calibrated
    on all reference cells, so that of the cells with probability 0.8 about 80 % have the right type, if types are as
    frequent in the new images. The distance of a cell is the mean Euclidean distance to the five nearest examples of
    its type. Beyond the `quantile` of the distances among the examples themselves a cell lies outside.

    Parameters
    ----------
    data
        Table with new cells, or the SpatialData object that contains it. It may be the reference itself, to type its
        cells that have no type.
    reference
        Table with cell types, or the SpatialData object that contains it.
    label_key
        Column of `.obs` of the reference with the types. Cells without a type (NaN or empty) and those called
        `"unsure"` or `"unknown"` are not used.
    use_rep
        Representation of the cells: a key of `.obsm`, `"X"`, or `"layers/<name>"`.
    threshold
        Cells whose type is less probable are `"unsure"`. At 0.5 a type is more probable than all others together.
    quantile
        Share of the examples that lie within the limit of distance. With a lower value, more cells of an unknown type
        are recognized, and more cells of known types are `"unsure"`.
    key_added
        Name of the results; by default `label_key`.
    table_key
        Name of the table in SpatialData objects.
    random_state
        Seed of random parts and, above 50,000 reference cells, of the search for neighbours. The same seed gives the
        same types.

    Returns
    -------
    None. Writes into the table of the new cells:

    - `.obs[key_added]`: types, categorical, in the order of the reference, and `"unsure"`
    - `.obs[f"{key_added}_probability"]`: probability of the most probable type, float32, also for cells that are
      `"unsure"`
    - `.obs[f"{key_added}_distance"]`: distance divided by the limit of the most probable type, float32; above 1 the
      cell lies outside
    - `.uns[f"{key_added}_colors"]`: the colours of the reference, if it has any, and grey
    - `.uns["nextmarker"]["transfer_<key_added>"]`: a record of the parameters, the model, and for each of the learned
      `types` the number of examples (`n_examples`) and the limit of distance (`limits`); `n_reference`, the number of
      reference cells with a type; `not_learned`, the other types; `outside_in_reference`, the share of reference cells
      that would lie outside; `missing_markers`, if there are any

    Warns
    -----
    UserWarning
        If types have fewer than 10 examples, and are never assigned; if in an image more than 5 % of the cells lie
        outside, and more than twice as many as in the reference; if `nm.tl.embed(..., missing="zero")` took markers as
        zero in images of the new cells that the reference has; or if the types are clusters of another embedding.

    Raises
    ------
    KeyError
        If a table, the representation or the column is missing.
    ValueError
        If the tables were embedded by different models, or it is not known by which, or have different markers where
        these matter; if the reference has fewer than two types that can be learned; if a representation contains
        anything but finite numbers, a parameter is out of range, or a column would be replaced that `transfer` did not
        write. The table is not changed.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextmarker as nm
    >>> from anndata import AnnData
    >>> rng = np.random.default_rng(0)
    >>> def embed(types):
    ...     centres = np.array([{"T": 0, "B": 10, "NK": 20}[name] for name in types])
    ...     obs = pd.DataFrame(
    ...         {"nextmarker_embedding": "0123456789abcdef-01234567"}, index=np.arange(len(types)).astype(str)
    ...     )
    ...     return AnnData(obs=obs, obsm={"X_nextmarker": rng.normal(centres[:, None], size=(len(types), 5))})
    >>> reference = embed(["T"] * 60 + ["B"] * 40)
    >>> reference.obs["cell_type"] = ["T"] * 60 + ["B"] * 40
    >>> new = embed(["T"] * 30 + ["B"] * 50)
    >>> nm.tl.transfer(new, reference, "cell_type")
    >>> new.obs["cell_type"].value_counts().to_dict()
    {'B': 50, 'T': 30, 'unsure': 0}
    """
    adata, known = get_table(data, table_key), get_table(reference, table_key)
    check_value("threshold", threshold, 0 <= threshold < 1, "at least 0 and below 1")
    check_value("quantile", quantile, 0 < quantile <= 1, "above 0 and at most 1")
    key = label_key if key_added is None else key_added
    places = {
        "types": f"obs/{key}",
        "probability": f"obs/{key}_probability",
        "distance": f"obs/{key}_distance",
        "colors": f"uns/{key}_colors",  # not guarded: scanpy writes colours of our types too
    }
    _refuse_to_replace(adata, known, label_key, key)
    refuse_foreign_keys(adata, [places[name] for name in ("probability", "distance")], _keys.TRANSFER_STEP)
    labelled, types = _read_types(known, label_key)
    cells = _read(adata, use_rep, np.ones(adata.n_obs, dtype=bool), "the new cells")
    examples = _read(known, use_rep, labelled, "the reference")
    _refuse_unlike(adata, known, labelled, use_rep)
    if cells.shape[1] != examples.shape[1]:
        msg = f"{use_rep!r} has {cells.shape[1]} features in the new cells and {examples.shape[1]} in the reference."
        raise ValueError(msg)
    check_clusters(known, label_key)

    images = known.obs[_keys.IMAGE][labelled].astype(str).to_numpy() if _keys.IMAGE in known.obs else None
    classifier, sizes = _train(examples, types, images, label_key, quantile, random_state)
    prediction = classifier.predict(cells)
    outside = prediction.distance > 1
    names, colors = _categories(known, label_key)
    labels = types.categories.to_numpy()[prediction.codes]
    labels = np.where((prediction.probability >= threshold) & ~outside, labels, _keys.UNSURE)
    results = {
        "types": pd.Categorical(labels, names),
        "probability": prediction.probability.astype(np.float32),
        "distance": prediction.distance.astype(np.float32),
        **({} if colors is None else {"colors": colors}),
    }
    record = {
        "label_key": label_key,
        "key_added": key,
        "use_rep": use_rep,
        "threshold": threshold,
        "quantile": quantile,
        "random_state": random_state,
        **_describe(classifier, types, sizes),
        **(_describe_models(adata, known, labelled) if use_rep in OURS else {}),
    }
    missing = {} if use_rep == "X" else newly_missing(adata, known)
    record["missing_markers"] = np.array(list(missing), dtype=object) if missing else None
    step = record_name(_keys.TRANSFER_STEP, key)
    write_results(adata, step, {places[name]: value for name, value in results.items()}, record)
    _warn_of_outside(adata.obs, outside, classifier.outside)
    if missing:
        msg = f"Missing markers of the new cells were taken as zero: {', '.join(missing.values())}."
        warnings.warn(f"{msg} Types that differ in them may be wrong.", UserWarning, stacklevel=2)


def _refuse_to_replace(adata: AnnData, reference: AnnData, label_key: str, key: str) -> None:
    """Refuse to replace types that came from elsewhere, such as those to learn from."""
    if key not in adata.obs:
        return
    ours = read_record(adata, record_name(_keys.TRANSFER_STEP, key))
    if not ours or (adata is reference and key == label_key):
        msg = f".obs[{key!r}] has other types. Choose another name, key_added=..., or remove them."
        raise ValueError(msg)


def _read_types(reference: AnnData, label_key: str) -> tuple[np.ndarray, pd.Categorical]:
    """Read which cells of the reference have a type, bool (cells,), and the types of these."""
    labelled, (types,) = read_labels(reference, {"label_key": label_key})
    sure = ~types.isin([_keys.UNSURE, _keys.UNKNOWN])
    labelled[labelled] = sure
    types = types[sure].remove_unused_categories()
    column = f".obs[{label_key!r}] of the reference"
    if len(types.categories) < 2:
        msg = f"{column} needs two types or more, and has {listed(types.categories)}. Choose another: label_key=..."
        raise ValueError(msg)
    if len(types) <= N_NEIGHBORS:
        msg = f"Only {len(types)} cells have a type in {column}; each type needs at least {LEAST}."
        raise ValueError(msg)
    return labelled, types


def _read(adata: AnnData, use_rep: str, cells: np.ndarray, whose: str) -> np.ndarray:
    try:
        return read_representations(adata, use_rep, cells)[use_rep]
    except (KeyError, ValueError) as error:
        error.add_note(f"This is the table of {whose}.")
        raise


def _refuse_unlike(adata: AnnData, reference: AnnData, labelled: np.ndarray, use_rep: str) -> None:
    """Refuse tables whose representations cannot be compared: of different models, or of other markers."""
    if use_rep in OURS:
        of_data = _read_model(adata, np.ones(adata.n_obs, dtype=bool), "data")
        of_reference = _read_model(reference, labelled, "reference")
        if of_data != of_reference:
            msg = (
                f"The new cells were embedded by model {of_data!r}, the reference by {of_reference!r}. Use the latter: "
                "nm.tl.embed(data, model)."
            )
            raise ValueError(msg)
    by_marker = use_rep in ("X", _keys.INTERPRETABILITY_FEATURES) or use_rep.startswith(LAYERS)
    if by_marker and not adata.var_names.equals(reference.var_names):
        msg = (
            f"{use_rep!r} depends on the markers, which differ between the tables, or in order. Use the embedding: "
            f"use_rep={_keys.EMBEDDING!r}."
        )
        raise ValueError(msg)


def _read_model(adata: AnnData, cells: np.ndarray, table: str) -> str:
    """Read the digest of the model that embedded some cells."""
    unknown = embedded_as(adata)[cells].isna().sum()
    if unknown:
        msg = f"The model of {unknown} cells of {table} is unknown. Embed them: nm.tl.embed({table}, model)."
        raise ValueError(msg)
    return made_from(adata, cells)["model"]


def _train(
    cells: np.ndarray,
    types: pd.Categorical,
    images: np.ndarray | None,
    label_key: str,
    quantile: float,
    random_state: int,
) -> tuple[Classifier, np.ndarray]:
    """Train on the types with enough examples; the number of examples of every type is returned too."""
    codes = types.codes.astype(int)
    training = choose_training_cells(cells, codes, random_state)
    sizes = np.bincount(codes[training], minlength=len(types.categories))
    learned = sizes >= LEAST
    others = ", ".join(
        f"{name!r} ({size})" for name, size in zip(types.categories[~learned], sizes[~learned], strict=True)
    )
    rule = f"fewer than {LEAST} cells with only their own type among {N_NEIGHBORS} neighbours"
    if learned.sum() < 2:
        msg = (
            f"Types of .obs[{label_key!r}] cannot be learned, for {rule}: {others}. Choose broader types: label_key=..."
        )
        raise ValueError(msg)
    if others:
        warnings.warn(f"Types that are never assigned, for {rule}: {others}.", UserWarning, stacklevel=3)
    usable = learned[codes]
    folds = divide(codes[usable], training[usable], None if images is None else images[usable], random_state)
    return train_classifier(cells[usable], codes[usable], training[usable], folds, quantile), sizes


def _categories(reference: AnnData, label_key: str) -> tuple[list[str], np.ndarray | None]:
    """List all types of the reference and their colours, and "unsure" in grey if it is not among them."""
    categories = [str(name) for name in reference.obs[label_key].astype("category").cat.categories]
    colors = list(reference.uns.get(f"{label_key}_colors", ()))
    has_colors = len(colors) >= len(categories)
    shown = [at for at, name in enumerate(categories) if name.strip()]
    names = [categories[at] for at in shown]
    shades = [colors[at] for at in shown] if has_colors else []
    if _keys.UNSURE not in names:
        names, shades = [*names, _keys.UNSURE], [*shades, GREY]
    return names, np.array(shades, dtype=object) if has_colors else None


def _describe(classifier: Classifier, types: pd.Categorical, sizes: np.ndarray) -> dict[str, Any]:
    names, learned = types.categories.to_numpy(dtype=object), sizes >= LEAST
    return {
        "types": names[learned],
        "n_examples": sizes[learned],
        "limits": classifier.limits,
        "not_learned": None if learned.all() else names[~learned],
        "n_reference": len(types),
        "temperature": classifier.temperature,
        "outside_in_reference": classifier.outside,
    }


def _describe_models(adata: AnnData, reference: AnnData, labelled: np.ndarray) -> Mapping[str, Any]:
    return {**made_from(adata), "reference_embedded_as": made_from(reference, labelled)["embedded_as"]}


def _warn_of_outside(obs: pd.DataFrame, outside: np.ndarray, in_reference: float) -> None:
    """Warn of images many of whose cells are unlike all of the reference, the worst first."""
    found = unlike_reference(obs, outside, in_reference, _keys.IMAGE)
    if found.empty:
        return
    named = ", ".join(f"{name!r} ({row['sum']:.0f} of {row['size']:.0f})" for name, row in found.head(NAMED).iterrows())
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    msg = (
        f"Many cells are unlike all of the reference, and 'unsure': {named}{more}. Other types, or other staining? "
        "Cluster them: nm.tl.cluster(data)."
    )
    warnings.warn(msg, UserWarning, stacklevel=3)
