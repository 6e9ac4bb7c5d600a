"""Sections on the images: what was read, cells, training and normalization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._outcome import describe_outcome, training_worked
from nextmarker._record import read_record
from nextmarker.io._report import report as read_files
from nextmarker.pl._normalization import normalization as draw_normalization
from nextmarker.pl._training import training as draw_training
from nextmarker.pl.html.blocks import Block, Table, Words, drawn, first_few, table
from nextmarker.pl.html.thumbnails import draw_thumbnails

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextmarker._regions import Region
    from nextmarker.pl.html.source import Source


def files(source: Source) -> list[Block]:
    """List what was read and skipped."""
    files = read_files(source.sdata).reset_index()
    skipped = (files["status"] != "read").to_numpy()
    lost = f"skipped {counted(skipped.sum(), 'file')} or parts of them" if skipped.any() else "skipped nothing"
    listing = table("Files", files[["source", "image", "status", "note"]], marked=np.flatnonzero(skipped).tolist())
    return [Words(f"Read {counted((~skipped).sum(), 'image')}, and {lost}.", "check" if skipped.any() else ""), listing]


def images(source: Source) -> list[Block]:
    """Draw every image with the centres of its cells."""
    sizes = pd.Series([len(region.rows) for region in source.regions])
    spread = f", from {sizes.min():,} to {sizes.max():,} in an image, median {sizes.median():,.0f}"
    words = f"{counted(sizes.sum(), 'cell')} in {counted(len(sizes), 'image')}{spread if len(sizes) > 1 else ''}."
    blocks: list[Block] = [Words(words)]
    empty = [name for name in source.sdata.images if name not in {region.image for region in source.regions}]
    if empty:
        blocks.append(
            Words(f"{counted(len(empty), 'image')} without cells in this table: {first_few(empty)}.", "check")
        )
    grey = f"In grey, {' + '.join(source.channels)}, each image scaled to its own brightest pixels."
    black = "The nuclear channel is unknown, so the centres are on black: `nm.pl.report(sdata, path, channels=[...])`."
    blocks.append(Words(grey if source.channels else black))
    pictures = draw_thumbnails(source.sdata, source.adata, source.regions, source.colored, source.channels)
    return [*blocks, pictures, table("Images", pd.DataFrame([_describe_image(region) for region in source.regions]))]


def _describe_image(region: Region) -> dict[str, Any]:
    width, height = region.pixels.sizes["x"], region.pixels.sizes["y"]
    return {
        "image": region.image,
        "cells": len(region.rows),
        "width x height (pixels)": f"{width:,} x {height:,}",
        "pixel size (µm)": "unknown" if region.pixel_size is None else region.pixel_size,
        "channels": region.pixels.sizes["c"],
    }


def training(source: Source) -> list[Block]:
    """Say whether training worked, and draw its loss."""
    record = read_record(source.adata, "train")
    verdict = Words(describe_outcome(record), "good" if training_worked(record) else "check")
    alt = f"Loss of {len(record['loss'])} training steps."
    caption = "Loss of each step, and its running mean: if training works, it falls clearly below the dashed line."
    seed = f"seed {record['random_state']}"
    settings = f"{len(record['loss']):,} steps, patches of {record['patch_size']} pixels, {seed}."
    blocks: list[Block] = [verdict, Words(settings), drawn(draw_training(source.adata), alt, caption)]
    silent = list(record.get("markers_without_signal", ()))
    if silent:
        blocks.append(Words(f"Markers without signal in training: {first_few(silent)}.", "check"))
    return blocks


def normalization(source: Source) -> list[Block]:
    """Draw the normalization of each marker, and list the zero of the images."""
    record = read_record(source.adata, _keys.EMBED_STEP)
    axes = draw_normalization(source.sdata, table_key=source.table_key)
    caption = (
        "The learned sigmoid of each marker, and the histogram of its positive pixels. Green lines are the zero of "
        "each image: the background in its empty places, which is subtracted from its cells. A zero of 0 has no line."
    )
    blocks: list[Block] = [drawn(axes, f"Sigmoids of {len(axes)} markers.", caption)]
    if "background" in record:
        blocks.append(_zeros(record))
    filled = record.get("filled_with_zero", {})
    lacking = [f"{image} ({' '.join(markers)})" for image, markers in sorted(filled.items()) if len(markers)]
    if lacking:
        blocks.append(Words(f"Images lack markers, which were taken as zero: {first_few(lacking)}.", "check"))
    return blocks


def _zeros(record: Mapping[str, Any]) -> Table:
    """List between which counts the zeros of the images lie, and which image has the highest."""
    offset, background = np.asarray(record["offset"]), np.asarray(record["background"])
    highest = np.asarray(record["images"])[background.argmax(axis=0)]
    content = pd.DataFrame(
        {
            "marker": record["markers"],
            "centre of the sigmoid": record["x_c"],
            "lowest background": background.min(axis=0),
            "median background": np.median(background, axis=0),
            "highest background": background.max(axis=0),
            "image with the highest": np.where(background.max(axis=0) > 0, highest, ""),
            "highest offset": offset.max(axis=0),
        }
    )
    return table("The zero of the images, in counts per pixel", content)
