"""The whole analysis as one HTML file."""

from __future__ import annotations

import os
import platform
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from jinja2 import Environment, StrictUndefined

from nextmarker import _keys
from nextmarker._errors import counted
from nextmarker._files import check_file_path, replaced_files
from nextmarker._record import read_record
from nextmarker._regions import as_list, read_regions
from nextmarker._table import get_table, require
from nextmarker.pl._pixels import check_channels
from nextmarker.pl.html.sections import write_sections
from nextmarker.pl.html.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from nextmarker._regions import Region

LIBRARIES = ("nextmarker", "anndata", "igraph", "leidenalg", "numpy", "scanpy", "spatialdata", "torch")
"""Whose versions are listed."""


def report(
    sdata: SpatialData,
    path: str | Path,
    *,
    groupby: str = _keys.CLUSTERS,
    channels: str | Sequence[str] | None = None,
    overwrite: bool = False,
    table_key: str = _keys.TABLE,
) -> Path:
    """Write a report of the whole analysis: one HTML file that opens in any browser, also offline.

    It contains what was read and skipped, all images with the centres of their cells, training, normalization, clusters
    and their markers, typical cells, composition, differences between images, cell types, parameters and versions; and,
    if there are any, transferred types, neighbours, niches and differences between groups. The summary at its top says
    what to look at first. Results that do not exist yet are named with the call that makes them. Everything is taken
    from the object, so the report can also be written after saving and reading it again.

    Pictures are part of the file: about 3 MB for ten images and 7 MB for a hundred. Images are read one at a time, at a
    coarse scale if they have one.

    Parameters
    ----------
    sdata
        Images with cells and a table.
    path
        The file, such as ``report.html``. A symbolic link is replaced by the file; its target is not changed.
    groupby
        Column of `.obs` with the clusters. Cells are coloured by the cell types that `nm.tl.annotate` gave to these
        clusters, or else by the clusters.
    channels
        One or several channels to draw in grey behind the centres. By default the nuclear channels that were given to
        `nm.pp.detect_cells`; if these are unknown, the centres are drawn on black.
    overwrite
        Replace an existing file.
    table_key
        Name of the table in `sdata.tables`.

    Returns
    -------
    Path of the file.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is False.
    FileNotFoundError
        If the folder does not exist.
    IsADirectoryError
        If `path` is a folder.
    KeyError
        If the table, the column or a channel does not exist.
    OSError
        If the folder is not writable or the disk is full. An existing file is kept.
    TypeError
        If `sdata` is not a SpatialData object, or `path` is not a path.
    ValueError
        If the table does not match circles and images.

    Examples
    --------
    >>> import tempfile, nextmarker as nm
    >>> sdata = nm.datasets.synthetic_tissue(n_images=1, n_cells=50)
    >>> nm.pp.detect_cells(sdata, nuclear_channels=["DNA1", "DNA2"], diameter=6, progress=False)
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = nm.pl.report(sdata, f"{folder.name}/report.html")
    >>> "The cells are not embedded" in file.read_text(encoding="utf-8")
    True
    >>> folder.cleanup()
    """
    target = _check_place(path, overwrite=overwrite)
    if not hasattr(sdata, "images"):
        msg = f"Expected SpatialData with the images, got {type(sdata).__name__}: nm.pl.report(sdata, path)."
        raise TypeError(msg)
    adata = get_table(sdata, table_key)
    if groupby != _keys.CLUSTERS:
        require(adata, "obs", groupby, "nm.tl.cluster(adata), or choose another: groupby=...")
    regions = read_regions(sdata, table_key)
    shown = _choose_channels(adata, regions, channels)
    source = Source(sdata, adata, regions, groupby, shown, table_key)
    with replaced_files(target.parent) as drafts, _default_style():
        (drafts / target.name).write_text(_render(source), encoding="utf-8")
    return target


def _check_place(path: str | Path, *, overwrite: bool) -> Path:
    """Raise an error if the file cannot be written here."""
    if not isinstance(path, (str, Path)):
        msg = f"path is of type {type(path).__name__}: nm.pl.report(sdata, 'report.html')."
        raise TypeError(msg)
    target = Path(path).expanduser()
    check_file_path(target)
    if os.path.lexists(target) and not overwrite:
        msg = f"{str(target)!r} exists already: choose another path, or replace it with overwrite=True."
        raise FileExistsError(msg)
    return target


def _choose_channels(adata: AnnData, regions: Sequence[Region], channels: str | Sequence[str] | None) -> list[str]:
    """Choose the channels behind the centres; none if the nuclear channels are unknown, or not in all images."""
    if channels is not None:
        check_channels(regions, as_list(channels), "channels")
        return as_list(channels)
    nuclear = [str(name) for name in read_record(adata, "detect_cells").get("nuclear_channels", ())]
    everywhere = all(set(nuclear) <= set(region.pixels["c"].to_numpy()) for region in regions)
    return nuclear if everywhere else []


@contextmanager
def _default_style() -> Iterator[None]:
    """Draw unseen and whatever the style of the user; names of markers may contain $. Close all figures at the end."""
    before = set(plt.get_fignums())
    with plt.ioff(), plt.style.context(["default", {"text.parse_math": False}]):
        try:
            yield
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)


def _render(source: Source) -> str:
    sections = write_sections(source)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("nextmarker.pl.html").joinpath("report.html").read_text("utf-8"))
    versions = {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
    cells = f"{counted(source.adata.n_obs, 'cell')} in {counted(len(source.regions), 'image')}"
    counts = [cells, counted(source.adata.n_vars, "marker")]
    if source.groupby in source.adata.obs:
        counts.append(counted(source.adata.obs[source.groupby].nunique(), "cluster"))
    return template.render(
        title=f"nextmarker report: {cells}",
        summary=f"{', '.join(counts)}.",
        sections=sections,
        versions=versions,
        date=date.today().isoformat(),
    )
