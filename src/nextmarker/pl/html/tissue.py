"""Sections on the tissue: which types are neighbours, and niches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._outcome import are_stable
from nextmarker._record import read_record, record_name
from nextmarker._table import count_cells
from nextmarker.pl._composition import composition as draw_composition
from nextmarker.pl._neighbor_pairs import CLEAR, LEAST_IMAGES, images_agree, mean_ratios
from nextmarker.pl._neighborhood import neighborhood as draw_neighborhood
from nextmarker.pl.html.blocks import Block, Words, drawn, first_few, table
from nextmarker.pl.html.clusters import in_each_image
from nextmarker.pl.html.thumbnails import draw_thumbnails

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextmarker.pl.html.source import Source

NAMED = 3
"""Pairs or niches that a sentence names."""
MAPS = 12
"""Images that are drawn with their niches."""


def neighbors(source: Source) -> list[Block]:
    """Draw which types are neighbours more or less often than by chance, and name the pairs that stand out."""
    return [block for key in source.results(_keys.NEIGHBORHOOD) for block in _neighbors(source, key)]


def _neighbors(source: Source, key: str) -> list[Block]:
    links = source.adata.uns[key]
    record = read_record(source.adata, record_name(_keys.NEIGHBORHOOD, key))
    images = counted(links["image"].nunique(), "image")
    types = f"the types in `{record['groupby']}`" if "groupby" in record else "types"
    words = f"Neighbours of {types} in {images}, each compared with chance by itself{_whose(record)}."
    caption = (
        "Red: cells of the type in the row have more neighbours of the type in the column than by chance; blue: fewer. "
        f"Dots: clear, and the same in nearly all of at least {LEAST_IMAGES} images."
    )
    axes = draw_neighborhood(source.adata, key=key)
    return [Words(words), Words(_pairs_in_words(links)), drawn(axes, f"Neighbours of types in {images}.", caption)]


def _whose(record: Mapping[str, Any]) -> str:
    """Say which cells are neighbours."""
    kinds = {
        "knn": f"the {record.get('n_neighbors')} nearest cells of each cell",
        "radius": f"all cells up to a distance of {record.get('radius')}",
        "delaunay": "cells that touch",
    }
    return f"; neighbours are {kinds[record['graph']]}" if record.get("graph") in kinds else ""


def _pairs_in_words(links: pd.DataFrame) -> str:
    """Name the pairs of different types that are neighbours clearly more, or less, often than by chance."""
    mean, n_images = mean_ratios(links), links["image"].nunique()
    sure = images_agree(links) if n_images >= LEAST_IMAGES else mean.abs() >= CLEAR
    known = ~mean.index.isin(_keys.NO_TYPE)
    kinds, values = mean.index.astype(str), mean.to_numpy(dtype=float)
    ratios = {
        (kinds[i], kinds[j]): values[i, j] for i, j in np.argwhere(sure.to_numpy() & known & known[:, None]) if i != j
    }
    by_strength = sorted(ratios, key=lambda pair: abs(ratios[pair]))
    strongest = {frozenset(pair): pair for pair in by_strength}.values()  # of the two directions
    ordered = [pair for pair in reversed(by_strength) if pair in strongest]
    sides = {
        "More": [pair for pair in ordered if ratios[pair] > 0],
        "Less": [pair for pair in ordered if ratios[pair] < 0],
    }
    if not ordered:
        return "No two types are neighbours clearly more or less often than by chance."
    named = [
        f"{which} often than by chance: "
        + first_few((f"{cell} beside {other} ({2 ** ratios[cell, other]:.1f} times)" for cell, other in pairs), NAMED)
        for which, pairs in sides.items()
        if pairs
    ]
    few = "" if n_images >= LEAST_IMAGES else f" With fewer than {LEAST_IMAGES} images, this may be chance."
    return f"{'. '.join(named)}.{few}"


def niches(source: Source) -> list[Block]:
    """Draw the types of each niche and where niches are, and name the types that set them apart."""
    return [block for key in source.results(_keys.NICHES_STEP, "obs") for block in _niches(source, key)]


def _niches(source: Source, key: str) -> list[Block]:
    from nextmarker.get._batches import batches

    obs = source.adata.obs
    record = read_record(source.adata, record_name(_keys.NICHES_STEP, key))
    groupby = str(record["groupby"])
    counts = count_cells(source.adata, groupby, key)
    images = counted(obs.loc[obs[key].notna(), _keys.IMAGE].nunique(), "image")
    by = f"`{groupby}` and the embedding" if "use_rep" in record else f"`{groupby}`"
    words = f"{len(counts)} niches in {images}: places whose cells have similar surroundings, by {by}."
    blocks: list[Block] = [Words(words), Words(_niches_in_words(counts))]
    stability = record.get("stability", ())
    if not are_stable(stability):
        unstable = f"No number of niches is stable: repeated runs agree by {max(stability):.2f} at most, of 1"
        blocks.append(Words(f"{unstable}. Try `n_hops=3`, or more images.", "check"))
    of_images = batches(source.adata, key)
    one = of_images["cluster"][of_images["is_one"]]
    if len(one):
        blocks.append(Words(f"Niches whose cells come mostly from one image: {first_few(one)}.", "check"))
    none = int(obs[key].isna().sum())
    if none:
        blocks.append(Words(f"{counted(none, 'cell')} of {len(obs):,} have no niche.", "check"))
    caption = f"Shares of the categories of {groupby} in each niche."
    least = sorted(len(region.rows) for region in source.regions)[-MAPS:][0]
    largest = [region for region in source.regions if len(region.rows) >= least][:MAPS]
    return [
        *blocks,
        table("Niches", _list_niches(counts), folded=False),
        drawn(draw_composition(source.adata, groupby, by=key), caption, caption),
        draw_thumbnails(source.sdata, source.adata, largest, obs[key].astype("category"), ()),
        *in_each_image(source, key),
    ]


def _niches_in_words(counts: pd.DataFrame) -> str:
    """Name the types that set niches apart, by how much larger their share is than among all cells."""
    shares, of_all = _shares(counts)
    kinds = (shares - of_all).argmax(axis=1)
    order = np.argsort(-(shares - of_all).max(axis=1), kind="stable")
    named = [
        f"niche {counts.index[niche]} by {counts.columns[kind]} "
        f"({100 * shares[niche, kind]:.0f} % of its cells, {100 * of_all[kind]:.0f} % of all)"
        for niche, kind in zip(order, kinds[order], strict=True)
    ]
    return f"What sets niches apart most: {first_few(named, NAMED)}."


def _list_niches(counts: pd.DataFrame) -> pd.DataFrame:
    """List the cells of each niche, and the types that are more frequent in it than among all cells."""
    sizes, (shares, of_all) = counts.to_numpy().sum(axis=1), _shares(counts)
    types = []
    for own in shares:
        more = [kind for kind in np.argsort(of_all - own, kind="stable") if own[kind] > of_all[kind]]
        types.append(first_few((f"{counts.columns[kind]} ({100 * own[kind]:.0f} %)" for kind in more), NAMED))
    columns = {"niche": counts.index, "cells": sizes, "share (%)": (100 * sizes / sizes.sum()).round(1)}
    return pd.DataFrame({**columns, "types that are more frequent than elsewhere": types})


def _shares(counts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Share of each type in each niche, (niches, types), and among all cells."""
    numbers = counts.to_numpy(dtype=float)
    return numbers / numbers.sum(axis=1, keepdims=True), numbers.sum(axis=0) / numbers.sum()
