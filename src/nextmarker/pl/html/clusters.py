"""Sections on the clusters: UMAP, markers, typical cells, types, composition, and differences between images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.patheffects import withStroke

from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._outcome import LEAST_AGREEMENT, unlike_reference
from nextmarker._provenance import read_annotation
from nextmarker._record import read_record
from nextmarker.pl._annotation import annotation as draw_annotation
from nextmarker.pl._attribution import marker_attribution
from nextmarker.pl._composition import composition as draw_composition
from nextmarker.pl._dots import DOT, choose_colors, draw_dots, draw_key
from nextmarker.pl._patches import patches
from nextmarker.pl._unusual_images import MARKED
from nextmarker.pl._unusual_images import unusual_images as draw_unusual_images
from nextmarker.pl.html.blocks import WEBP, Block, Words, drawn, first_few, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nextmarker.pl.html.source import Source

UMAP = "X_umap"
LONGEST_NAME = 3
"""Letters of a name that is written into the UMAP; longer ones would overlap."""
TYPICAL = 8
"""Cells of each cluster in the gallery."""
MOST_IMAGES = 50
"""Images in a figure."""


def umap(source: Source) -> list[Block]:
    """Draw the stored UMAP, coloured by cluster, and by cell type if there are any."""
    coordinates = np.asarray(source.adata.obsm[UMAP])[:, :2]
    columns = dict.fromkeys([source.groupby, str(source.colored.name)] if source.colored is not None else [])
    blocks: list[Block] = []
    for values in (source.adata.obs[column].astype("category") for column in columns):
        _, ax = plt.subplots(figsize=(5, 5), layout="constrained")
        colors = choose_colors(source.adata, values)
        draw_dots(ax, coordinates, values, colors, float(np.clip(20_000 / len(values), 0.5, 12)))
        _name_groups(ax, coordinates, values)
        draw_key(np.array([ax]), values, colors, **DOT)
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2", box_aspect=1)
        alt = f"UMAP of {len(values):,} cells, coloured by {values.name}."
        blocks.append(drawn(ax, alt, f"UMAP, coloured by {values.name}."))
    return blocks


def _name_groups(ax: Axes, coordinates: np.ndarray, values: pd.Series) -> None:
    """Write short names of groups in their middle, so that colours alone need not tell them apart."""
    if max(len(str(name)) for name in values.cat.categories) > LONGEST_NAME:
        return
    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "fontweight": "bold"}
    style["path_effects"] = [withStroke(linewidth=2.5, foreground="white")]
    middles = pd.DataFrame(coordinates, values.index, ["x", "y"]).groupby(values, observed=True).median()
    for name, x, y in middles.itertuples():
        ax.text(x, y, str(name), **style)


def clusters(source: Source) -> list[Block]:
    """Draw which markers the clusters have, and list the top markers of each."""
    from nextmarker.get._top_markers import top_markers

    axes = marker_attribution(source.adata, key=source.attribution)
    caption = (
        "Large dots: many cells of the cluster have the marker. Dark dots: its mean activation is high. Bars: cells."
    )
    top = top_markers(source.adata, key=source.attribution)
    markers = top.astype({"cluster": str, "marker": str}).groupby("cluster")["marker"].agg(", ".join)
    sizes = source.adata.obs[source.groupby].value_counts(sort=False)
    sizes = sizes[sizes > 0].rename(index=str)
    content = pd.DataFrame(
        {
            "cluster": sizes.index,
            "cells": sizes.to_numpy(),
            "share (%)": (100 * sizes / sizes.sum()).round(1).to_numpy(),
            "markers that set it apart": markers.reindex(sizes.index).fillna("none stands out").to_numpy(),
        }
    )
    picture = drawn(axes, f"Dot plot of {len(sizes)} clusters and {source.adata.n_vars} markers.", caption)
    return [picture, table("Clusters", content, folded=False)]


def typical_cells(source: Source) -> list[Block]:
    """Draw the most typical cells of each cluster."""
    from nextmarker.get._example_cells import example_cells

    cells = example_cells(source.adata, TYPICAL, groupby=source.groupby)
    axes = patches(
        source.sdata,
        groupby=source.groupby,
        cells=list(cells.index),
        key=source.attribution,
        table_key=source.table_key,
    )
    caption = (
        f"The {TYPICAL} cells of each cluster nearest to its mean embedding, in the colours of up to three of its "
        "markers. The brightness of a marker is the same in all patches."
    )
    return [drawn(axes, f"Patches of typical cells of {len(axes)} clusters.", caption, **WEBP)]


def composition(source: Source) -> list[Block]:
    """Draw the share of each cluster or cell type in each image."""
    assert source.colored is not None
    return in_each_image(source, str(source.colored.name))


def in_each_image(source: Source, column: str) -> list[Block]:
    """Draw the share of each category of a column in each image, a limited number of images at a time."""
    obs = source.adata.obs
    shown = [name for name in (column, _keys.IMAGE, _keys.REGION, _keys.INSTANCE) if name in obs]
    images = obs[_keys.IMAGE].astype("category").cat.remove_unused_categories().cat.categories
    colors = {name: source.adata.uns[name] for name in [f"{column}_colors"] if name in source.adata.uns}
    pictures = []
    for first in range(0, len(images), MOST_IMAGES):
        own = images[first : first + MOST_IMAGES]
        some = AnnData(obs=obs.loc[obs[_keys.IMAGE].isin(own).to_numpy(), shown], uns=colors)
        what = f"Shares of the categories of {column}"
        alt = f"{what} in {counted(len(own), 'image')}."
        pictures.append(drawn(draw_composition(some, column), alt, f"{what} in each image."))
    return [*pictures]


def differences(source: Source) -> list[Block]:
    """List which images the clusters come from, and draw the images in which markers differ."""
    from nextmarker.get._batches import batches, unusual_images

    content = batches(source.adata, source.groupby)
    marked = np.flatnonzero(content["is_one"]).tolist()
    one = first_few(map(repr, content["cluster"].iloc[marked]))
    words = f"{len(marked)} of {len(content)} clusters come mostly from one image: {one}. Was it stained differently?"
    content["share"], content["share_of_all"] = 100 * content["share"], 100 * content["share_of_all"]
    rounded = content.drop(columns="is_one").round({"share": 1, "share_of_all": 1, "entropy": 2})
    headings = {"n_cells": "cells", "n_batches": "images", "largest": "largest image", "share": "its share (%)"}
    headings |= {"share_of_all": "its share of all cells (%)", "entropy": "evenness (1: as by chance)"}
    blocks: list[Block] = [
        Words(words, "check") if marked else Words("No cluster comes mostly from one image."),
        table("Images of each cluster", rounded.rename(columns=headings), marked=marked),
    ]
    unusual = unusual_images(source.adata, source.groupby)
    if unusual["z"].isna().all():
        return [*blocks, Words("Too few images have cells of the same cluster to call one unusual.")]
    return [*blocks, *_unusual(unusual)]


def _unusual(unusual: pd.DataFrame) -> list[Block]:
    """Draw the images in which markers differ most, and name those that differ much."""
    from nextmarker.get._batches import UNUSUAL

    largest = unusual.assign(z=unusual["z"].abs()).groupby("image", observed=True)["z"].max()
    shown = largest.sort_values(ascending=False, kind="stable").index[:MOST_IMAGES]
    rows = unusual[unusual["image"].isin(shown)]
    rows = rows.assign(image=rows["image"].cat.remove_unused_categories())
    caption = (
        f"How much brighter or dimmer markers are in each of {len(shown)} images than in the others, in the same "
        f"clusters; dots mark values beyond {MARKED:g}, the text names those beyond {UNUSUAL:g}."
    )
    picture = drawn(draw_unusual_images(rows), f"Differences of markers in {len(shown)} images.", caption)
    far = unusual[unusual["z"].abs() > UNUSUAL].astype({"image": str, "marker": str})
    if far.empty:
        return [Words("No image is unusual."), picture]
    named = [f"{image} ({' '.join(own.head(3))})" for image, own in far.groupby("image", sort=False)["marker"]]
    return [Words(f"Markers differ from other images in {first_few(named)}. Look at these images.", "check"), picture]


def cell_types(source: Source) -> list[Block]:
    """Draw and list how well clusters fit the types they are named after."""
    annotated, record = read_annotation(source.adata, source.annotation)
    caption = (
        "Score of each cluster for each type; boxes mark the types that named it. Margin: lead over the next type."
    )
    picture = drawn(draw_annotation(source.adata, key=source.annotation), "Scores of clusters and types.", caption)
    headings = {"n_cells": "cells", "cell_type": "type", "second": "next type", "weakest": "weakest condition"}
    columns = ["cluster", "n_cells", "cell_type", "score", "margin", "second", "weakest", "mixed"]
    without_name = annotated["cell_type"].isin(_keys.NO_TYPE)
    close = annotated["margin"] < record.get("margin", 0)
    weak = (annotated["agreement"] < LEAST_AGREEMENT) & (annotated["overruled"] == "")
    unclear = np.flatnonzero(without_name | close | weak | annotated["mixed"]).tolist()
    types = source.adata.obs[source.annotation].value_counts()
    blocks: list[Block] = [
        picture,
        table("Types of the clusters", annotated[columns].rename(columns=headings), marked=unclear),
        table("Cells of each type", pd.DataFrame({"type": types.index, "cells": types.to_numpy()})),
    ]
    if unclear:
        named = first_few(map(repr, annotated["cluster"].iloc[unclear]))
        blocks.insert(0, Words(f"The type is unclear, or cells are mixed: cluster {named}.", "check"))
    return blocks


def transferred(source: Source) -> list[Block]:
    """Say how many transferred types are unsure, and list and draw the types."""
    return [block for key in source.results(_keys.TRANSFER_STEP, "obs") for block in _transferred(source, key)]


def _transferred(source: Source, key: str) -> list[Block]:
    record = read_record(source.adata, f"{_keys.TRANSFER_STEP}_{key}")
    obs = source.adata.obs
    labels = obs[key].astype("category")
    unsure = int((labels == _keys.UNSURE).sum())
    reference = f"{record['n_reference']:,} cells with {len(record['types'])} types"
    words = f"{len(labels):,} cells have types in `{key}`, learned from a reference of {reference}"
    blocks: list[Block] = [Words(f"{words}. {unsure:,} of them are unsure ({100 * unsure / len(labels):.1f} %).")]
    outside = (obs[f"{key}_distance"] > 1).to_numpy()
    unlike = unlike_reference(obs, outside, record["outside_in_reference"], _keys.IMAGE)
    if len(unlike):
        named = first_few(f"{image} ({100 * share:.0f} %)" for image, share in unlike["mean"].items())
        why = "They may be of types that the reference lacks, or stained differently."
        blocks.append(Words(f"Many cells are unlike all of the reference in {named}. {why}", "check"))
    never = list(record.get("not_learned", ()))
    if never:
        blocks.append(Words(f"Types with too few clear examples, which no cell can get: {first_few(never)}.", "check"))
    missing = list(record.get("missing_markers", ()))
    if missing:
        words = f"Markers that new images lack were taken as zero: {first_few(missing)}"
        blocks.append(Words(f"{words}. Types that differ in them may be wrong.", "check"))
    sizes = labels.value_counts()
    sure = obs[f"{key}_probability"].groupby(labels, observed=False).median()
    content = pd.DataFrame({"type": sizes.index.astype(str), "cells": sizes.to_numpy()})
    content["share (%)"] = (100 * content["cells"] / len(labels)).round(1)
    content["median probability"] = sure.reindex(sizes.index).to_numpy()
    return [*blocks, *in_each_image(source, key), table(f"Cells of each type in {key}", content)]
