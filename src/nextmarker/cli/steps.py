"""The steps of an analysis, from the options of a command."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import nextmarker as nm
from nextmarker import _keys
from nextmarker._errors import no_such

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker.nn import NeXtMarker

ANNOTATING = ("aliases", "thresholds", "overrule", "by", "min_score", "margin")
SAMPLING = ("on", "time_key", "columns")


def check_device(device: str | None) -> None:
    """Raise an error if this machine does not have the device."""
    from nextmarker.nn.device import pick_device

    pick_device(device)


def load_model(path: str | None) -> NeXtMarker | None:
    """Load the model that is to be used, if there is one."""
    return None if path is None else nm.nn.load_model(path)


def read_images(options: SimpleNamespace) -> SpatialData:
    """Read the images lazily, and choose those to analyse."""
    return nm.io.read(
        options.images,
        channel_names=options.channel_names,
        panel=options.panel,
        pixel_size=options.pixel_size,
    )


def detect(sdata: SpatialData, options: SimpleNamespace, checkpoint: Path, model: NeXtMarker | None = None) -> AnnData:
    """Detect the cells; channels are checked first. With a model, its markers are used unless others are chosen."""
    from nextmarker._regions import choose_images, read_panels

    images = choose_images(sdata, options.only)
    panels = read_panels(sdata, images)
    _check_nuclear_channels(options.nuclear_channels, panels)
    markers = options.markers
    if model is not None and markers is None:
        markers = [name for name in model.config.markers if all(name in panel for panel in panels.values())]
    if options.exclude:
        markers = _without(options.exclude, sdata, panels, markers)
    if model is not None and options.missing == "error":
        _check_markers_of_model(model, panels, options)
    nm.pp.detect_cells(
        sdata,
        options.nuclear_channels,
        diameter=options.diameter,
        images=options.only,
        markers=markers,
        checkpoint=checkpoint,
    )
    adata = sdata[_keys.TABLE]
    nuclear = [name for name in options.nuclear_channels if name in adata.var_names]
    if model is None and nuclear:
        print(f"markers: {adata.n_vars}, with the nuclear {', '.join(nuclear)} (--exclude leaves channels out)")
    return adata


def train(sdata: SpatialData, options: SimpleNamespace, checkpoint: Path) -> NeXtMarker:
    """Train a model on the cells of the table."""
    given = {"steps": options.steps, "learning_rate": options.learning_rate}
    if options.learning_rate is not None:
        given["final_learning_rate"] = options.learning_rate / 10
    training = nm.nn.TrainingConfig(**{name: value for name, value in given.items() if value is not None})
    return nm.tl.train(
        sdata,
        options.patch_size,
        training=training,
        random_state=options.seed,
        device=options.device,
        checkpoint=checkpoint,
    )


def embed(sdata: SpatialData, model: NeXtMarker, options: SimpleNamespace, checkpoint: Path) -> None:
    """Embed the cells of the table."""
    nm.tl.embed(sdata, model, missing=options.missing, device=options.device, checkpoint=checkpoint)


def cluster(adata: AnnData, options: SimpleNamespace, restrict_to: list[str] | None = None) -> None:
    """Cluster the cells, or divide some of the clusters, and explain the clusters."""
    nm.tl.cluster(
        adata,
        n_neighbors=options.n_neighbors,
        resolution=options.resolution,
        restrict_to=(_keys.CLUSTERS, restrict_to) if restrict_to else None,
        key_added=_keys.CLUSTERS,
        random_state=options.seed,
    )
    nm.tl.marker_attribution(adata)


def annotate(adata: AnnData, options: SimpleNamespace) -> None:
    """Name clusters or cells by signatures."""
    nm.tl.annotate(adata, options.signatures, **{name: getattr(options, name) for name in ANNOTATING})


def add_samples(data: AnnData | SpatialData, options: SimpleNamespace) -> None:
    """Add the sample sheet to the cells."""
    nm.pp.add_samples(data, options.samples, **{name: getattr(options, name) for name in SAMPLING})


def check_cells(adata: AnnData, n_neighbors: int) -> None:
    """Raise an error if there are too few cells to cluster, before the training.

    Raises
    ------
    ValueError
        If there are.
    """
    if adata.n_obs <= n_neighbors:
        msg = (
            f"{n_neighbors} neighbours need {n_neighbors + 1} cells, and there are {adata.n_obs}: lower n_neighbors=..."
        )
        raise ValueError(msg)


def check_sheets(sdata: SpatialData, options: SimpleNamespace, model: NeXtMarker | None = None) -> None:
    """Read sample sheet and signatures before any work, and match them to images and markers."""
    if options.samples or options.signatures:
        markers = options.markers or (model.config.markers if model else None)
        preview = _preview(sdata, options.only or list(sdata.images), markers, options.exclude or ())
        if options.samples:
            with warnings.catch_warnings():  # shown when they are used
                warnings.simplefilter("ignore")
                add_samples(preview, options)
        if options.signatures:
            _match_signatures(preview, options)


def _preview(
    sdata: SpatialData, images: Iterable[str], markers: Collection[str] | None, exclude: Collection[str]
) -> AnnData:
    """Make a table with one row for each image, and the channels that are chosen."""
    import pandas as pd
    from anndata import AnnData

    from nextmarker._regions import read_panels

    told = sdata.attrs.get(_keys.ACQUISITIONS, {})
    obs = pd.DataFrame({_keys.IMAGE: list(images)}, index=list(images))
    if any(_keys.SAMPLE in told.get(image, {}) for image in obs.index):
        obs[_keys.SAMPLE] = [told.get(image, {}).get(_keys.SAMPLE) for image in obs.index]
    original = {
        name: old
        for known in sdata.attrs.get(_keys.CHANNELS, {}).values()
        for name, old in zip(known["name"], known.get(_keys.ORIGINAL_NAME, known["name"]), strict=True)
    }
    every = dict.fromkeys(name for panel in read_panels(sdata, list(images)).values() for name in panel)
    channels = [name for name in every if name in (markers or every) and name not in exclude]
    var = pd.DataFrame({_keys.ORIGINAL_NAME: [original.get(name, name) for name in channels]}, index=channels)
    return AnnData(obs=obs, var=var)


def _check_nuclear_channels(names: list[str], panels: Mapping[str, list[str]]) -> None:
    """Raise an error that lists all channels."""
    for image, panel in panels.items():
        lacking = [name for name in names if name not in panel]
        if lacking:
            fix = "Choose others: nuclear_channels=[...]."
            raise KeyError(no_such("channel", lacking, f"image {image!r}", panel, fix, most=len(panel)))


def _match_signatures(adata: AnnData, options: SimpleNamespace) -> None:
    from nextmarker.tl.cell_types.markers import use_names_of_table
    from nextmarker.tl.cell_types.signatures import read_signatures

    use_names_of_table(read_signatures(options.signatures), adata, options.aliases)


def _check_markers_of_model(model: NeXtMarker, panels: Mapping[str, list[str]], options: SimpleNamespace) -> None:
    """Raise an error if an image lacks a marker of the model, or it was left out."""
    for image, panel in panels.items():
        there = [name for name in options.markers or panel if name in panel and name not in (options.exclude or ())]
        lacking = [name for name in model.config.markers if name not in there]
        if lacking:
            fix = 'Train on this panel, rename channels by panel=..., or take their counts as zero: missing="zero".'
            where, taken = f"image {image!r} as chosen", model.config.markers
            raise ValueError(no_such("marker", lacking, where, there, fix, taken=taken))


def _without(exclude: list[str], sdata: SpatialData, panels: Mapping[str, list[str]], markers: Any) -> list[str]:
    """Leave channels out of the markers, by default of all channels, which must then be the same in all images."""
    from nextmarker._regions import shared_markers

    every = dict.fromkeys(name for panel in panels.values() for name in panel)
    lacking = [name for name in exclude if name not in every]
    if lacking:
        raise KeyError(no_such("channel", lacking, "the images", every, "Choose among these: exclude=..."))
    kept = [[name for name in panel if name not in exclude] for panel in panels.values()]
    if markers is None and any(set(panel) != set(kept[0]) for panel in kept):
        markers = shared_markers(sdata, list(panels))  # raises the error
    return kept[0] if markers is None else [name for name in markers if name not in exclude]
