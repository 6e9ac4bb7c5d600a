"""All sections of a report, and what they say if results are missing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._record import read_record
from nextmarker.pl.html import clusters, groups, images, tissue
from nextmarker.pl.html.blocks import Block, Section, Words, as_text, table
from nextmarker.pl.html.source import Source

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(__file__).parents[2]
LONGEST = 20
"""Most values of a parameter that are listed."""
STEPS = ("detect_cells", "add_cells", "add_samples", "train", "embed", "cluster", "marker_attribution", "annotate")
"""The order in which parameters are listed; other steps follow by name."""


def write_sections(source: Source) -> list[Section]:
    """Write all sections; one whose results are missing says which call makes them, or is left out."""
    sections, said = [], set()
    for part in PARTS:
        if not part.missing and not part.is_there(source):
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            blocks = _write(part, source)
        ours = [str(each.message) for each in caught if PACKAGE in Path(each.filename).parents]
        new = [message for message in dict.fromkeys(ours) if message not in said]
        said.update(new)
        sections.append(Section(part.title, [*(Words(message, "check") for message in new), *blocks]))
    return sections


def _write(part: Part, source: Source) -> list[Block]:
    if not part.is_there(source):
        return [Words(part.missing.format(groupby=source.groupby))]
    try:
        return part.write(source)
    except (KeyError, ValueError) as error:  # results of other cells or clusters: the message names the remedy
        return [Words(str(error.args[0]), "check")]


def _parameters(source: Source) -> list[Block]:
    records = source.adata.uns[_keys.RECORD]
    steps = [name for name in sorted(records, key=_place_of_step) if hasattr(records[name], "items")]
    return [
        table(step, pd.DataFrame(listing, columns=["parameter", "value"]), folded=True)
        for step in steps
        if (listing := _describe_step(records[step]))
    ]


def _place_of_step(name: str) -> tuple[int, str]:
    places = [place for place, step in enumerate(STEPS) if f"{name}_".startswith(f"{step}_")]
    return max(places, default=len(STEPS)), name


def _describe_step(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the parameters of a step that are numbers, text or short lists, the seed first."""
    short = {
        name: value
        for name, value in record.items()
        if not isinstance(value, pd.DataFrame) and not hasattr(value, "items") and np.size(value) <= LONGEST
    }
    flat = [name for name in sorted(short, key=lambda name: (name != "random_state", name)) if np.ndim(short[name]) < 2]
    return [("seed" if name == "random_state" else name, as_text(short[name])) for name in flat]


@dataclass(frozen=True)
class Part:
    """A section: its heading, what it shows, and what it says if that is missing; by default it is then left out."""

    title: str
    write: Callable[[Source], list[Block]]
    is_there: Callable[[Source], bool]
    missing: str = ""


def _has_clusters(source: Source) -> bool:
    return source.groupby in source.adata.obs


def _has_attribution(source: Source) -> bool:
    return _has_clusters(source) and source.attribution in source.adata.uns


def _has_images_and_activation(source: Source) -> bool:
    return _has_clusters(source) and _keys.INTERPRETABILITY in source.adata.layers


ATTRIBUTE = (
    "Which markers set the clusters apart is not known: `nm.tl.cluster(adata)`, then "
    '`nm.tl.marker_attribution(adata, groupby="{groupby}")`.'
)
PARTS = (
    Part(
        "Files",
        images.files,
        lambda source: _keys.REPORT in source.sdata.attrs,
        "Which files the images came from is not known: `nm.io.read(paths)` records what it reads and skips.",
    ),
    Part("Images and cells", images.images, lambda _: True),
    Part(
        "Training",
        images.training,
        lambda source: bool(read_record(source.adata, "train")),
        "No model was trained on this table: `nm.tl.train(sdata)` trains one. The training of a model from a file is "
        "in the table that it was trained on.",
    ),
    Part(
        "Normalization",
        images.normalization,
        lambda source: bool(read_record(source.adata, _keys.EMBED_STEP)),
        "The cells are not embedded: `nm.tl.embed(sdata)` embeds them.",
    ),
    Part(
        "UMAP",
        clusters.umap,
        lambda source: clusters.UMAP in source.adata.obsm and _has_clusters(source),
        "The table has no UMAP of its clusters. scanpy computes one: `nm.tl.cluster(adata)`, `import scanpy as sc`, "
        '`sc.tl.umap(adata, neighbors_key="{groupby}_neighbors")`.',
    ),
    Part("Clusters", clusters.clusters, _has_attribution, ATTRIBUTE),
    Part("Typical cells", clusters.typical_cells, _has_attribution, ATTRIBUTE),
    Part(
        "Cell types",
        clusters.cell_types,
        lambda source: f"{source.annotation}_annotation" in source.adata.uns,
        "The clusters have no names: `nm.tl.annotate(adata, signatures)` names them by the markers of cell types.",
    ),
    Part("Composition", clusters.composition, _has_clusters, "The cells are not clustered: `nm.tl.cluster(adata)`."),
    Part(
        "Differences between images",
        clusters.differences,
        lambda source: _has_images_and_activation(source) and source.adata.obs[_keys.IMAGE].nunique() > 1,
        "Images are compared if there are several, and their cells have clusters: `nm.tl.embed(sdata)`, then "
        "`nm.tl.cluster(adata)`.",
    ),
    Part("Transferred types", clusters.transferred, lambda source: bool(source.results(_keys.TRANSFER_STEP, "obs"))),
    Part("Neighbours", tissue.neighbors, lambda source: bool(source.results(_keys.NEIGHBORHOOD))),
    Part("Niches", tissue.niches, lambda source: bool(source.results(_keys.NICHES_STEP, "obs"))),
    Part("Differences between groups", groups.groups, lambda source: bool(source.results(_keys.COMPARE_STEP))),
    Part(
        "Parameters",
        _parameters,
        lambda source: _keys.RECORD in source.adata.uns,
        "The table has no record of its analysis: it is lost when tables are joined, and each step writes it again.",
    ),
)
