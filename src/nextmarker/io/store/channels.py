"""Tells viewers how to show the channels of an image in a store: colours and limits, beside the names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zarr

from nextmarker._channels import describe


def describe_channels(folder: Path) -> None:
    """Complete the metadata of an image in a store, written by spatialdata with names of channels only."""
    group = zarr.open_group(folder, mode="r+", use_consolidated=False)
    ome: dict[str, Any] = dict(group.attrs["ome"])  # type: ignore[arg-type, call-overload]
    pixels = zarr.open_array(folder / ome["multiscales"][0]["datasets"][0]["path"], mode="r")
    channels = describe([channel["label"] for channel in ome["omero"]["channels"]], pixels)
    group.attrs["ome"] = {**ome, "omero": {**ome["omero"], "channels": channels}}
