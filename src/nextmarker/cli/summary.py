"""What the commands print: clusters, types, whether training worked, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nextmarker as nm
from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._outcome import LEAST_GAIN
from nextmarker._provenance import read_annotation
from nextmarker._record import read_record
from nextmarker.cli.options import as_names
from nextmarker.cli.places import shown, typed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import pandas as pd
    from anndata import AnnData

NAMED = 3
"""Largest number of images, and of markers of each, that are printed."""
GAINS = {"good": 5 * LEAST_GAIN, "weak": LEAST_GAIN}
"""By how much views of one cell must be more similar than those of others; less than the last is a failure."""


def print_clusters(adata: AnnData, true_type: pd.Series | None = None) -> None:
    """Print one line per cluster: its size, the image with most of its cells, and its top markers."""
    import pandas as pd

    clusters = adata.obs[_keys.CLUSTERS].astype(str)
    table = clusters.value_counts().rename("cells").to_frame()
    if true_type is not None:
        table["true type"] = true_type.fillna("none").groupby(clusters).agg(lambda types: types.mode().iloc[0])
    record = read_record(adata, _keys.CLUSTER_STEP)
    if "largest_image" in record:
        shares = zip(record["largest_image_share"], record["largest_image"], strict=True)
        largest = [f"{100 * share:.0f} % {image}" if image else "unknown" for share, image in shares]
        table["largest image"] = pd.Series(largest, index=adata.obs[_keys.CLUSTERS].cat.categories)
    top = nm.get.top_markers(adata).astype(str)
    named = top.groupby("cluster")["marker"].agg(", ".join)
    table["top markers"] = named.reindex(table.index).fillna("(none stands out)")
    images = adata.obs[_keys.IMAGE].nunique()
    print(f"\n{adata.n_obs} cells in {images} image{'s' * (images != 1)}, {len(table)} clusters")
    print(table.rename_axis("cluster").to_string())
    _print_unusual_images(adata)


def print_types(adata: AnnData) -> None:
    """Print the cells of each type, and the clusters that have it."""
    types = adata.obs[_keys.CELL_TYPE]
    table = types.value_counts(sort=False).rename("cells").to_frame()
    table["share"] = [f"{100 * cells / max(types.notna().sum(), 1):.1f} %" for cells in table["cells"]]
    annotation = adata.uns[f"{_keys.CELL_TYPE}_annotation"].astype(str)
    clusters = annotation.groupby("cell_type")["cluster"].agg(lambda names: as_names(names, ", "))
    table["clusters"] = clusters.reindex(table.index.astype(str)).fillna("").to_numpy()
    print(f"\n{types_in_words(types)}")
    print(table.rename_axis("cell type").to_string())


def types_in_words(types: pd.Series) -> str:
    """Count the types and their cells, and apart from them the cells of which no type is known."""
    sizes = types.value_counts().rename(index=str)
    without = sizes[sizes.index.isin(_keys.NO_TYPE)]
    named = f"{counted(sizes.sum() - without.sum(), 'cell')} of {counted(count_types(sizes), 'type')}"
    return ", ".join([named, *(f"{cells:,} {name}" for name, cells in without[without > 0].items())])


def count_types(sizes: pd.Series) -> int:
    """Count the types that have cells, from the cells of each name."""
    names = [str(name) for name, cells in sizes.items() if cells and name not in _keys.NO_TYPE]
    return len({name for several in names for name in several.split(_keys.OR)})


def training_in_words(record: Mapping[str, Any]) -> str:
    """Say whether training worked, by how far the loss is below that of random embeddings."""
    below = float(record["random_loss"] - record["final_loss"])
    gain = below * float(record["temperature"])
    word = next((word for word, least in GAINS.items() if gain >= least), "failed")
    fix = {"good": "", "weak": ": try more --steps", "failed": ": check the cells in the figures, or more --steps"}
    how = f"{below:.1f} below chance" if below > 0 else "no better than chance"
    return f"training: {word}, {how} (loss {record['final_loss']:.1f}, chance {record['random_loss']:.1f}){fix[word]}"


def print_end(adata: AnnData, store: Path, opens: Path) -> None:
    """Print the last lines: whether training worked, what to open, and what to do next."""
    record = read_record(adata, "train")
    if record:
        print(training_in_words(record))
    print(f"open: {shown(opens)}")
    print(f"next: {next_step(adata, store)}")


def next_step(adata: AnnData, store: Path) -> str:
    """What to do next with a store."""
    where = typed(store)
    if _keys.CLUSTERS not in adata.obs:
        return f"nextmarker cluster {where}"
    if _keys.CELL_TYPE not in adata.obs:
        return f"nextmarker annotate {where} --signatures FILE"
    try:
        read_annotation(adata, _keys.CELL_TYPE)
    except (KeyError, ValueError):
        return f"nextmarker annotate {where} --signatures FILE, since clusters have changed"
    return f"in Python, sdata = spatialdata.read_zarr({shown(store)!r}): niches, groups of patients and more figures"


def _print_unusual_images(adata: AnnData) -> None:
    """Print the images in which markers are much brighter or dimmer than in the others."""
    from nextmarker.get._batches import LEAST_IMAGES, UNUSUAL

    if adata.obs[_keys.IMAGE].nunique() < LEAST_IMAGES:
        return
    table = nm.get.unusual_images(adata)
    table = table[table["z"].abs() > UNUSUAL]
    markers = table.astype(str).groupby("image", sort=False)["marker"].agg(lambda names: ", ".join(names.head(NAMED)))
    if len(markers):
        named = "; ".join(f"{image} ({names})" for image, names in markers.head(NAMED).items())
        more = f" and {len(markers) - NAMED} more" if len(markers) > NAMED else ""
        print(f"Markers differ from other images in {named}{more}: the report shows them.")
