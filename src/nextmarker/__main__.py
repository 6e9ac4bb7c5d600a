"""The command line: ``nextmarker demo`` on synthetic tissue, ``nextmarker run`` on images."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import nextmarker as nm
from nextmarker import _keys

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments after the program's name, those of the process by default.

    Returns
    -------
    The exit status: 0, or 2 after an error of the user, or 130 after an interruption.

    Examples
    --------
    >>> from nextmarker.__main__ import main
    >>> main(["run", "missing.tif", "--nuclear", "DNA1", "-o", "missing_folder/out.zarr"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        with _signals_restored(), warnings.catch_warnings():
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            arguments.command(arguments)
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    except (ValueError, KeyError, TypeError, OSError) as error:
        if not _is_for_the_user(error):
            raise
        print(f"error: {error.args[0] if isinstance(error, KeyError) else error}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Let a stop by the system tidy up as Ctrl+C does, and leave both as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_warning(message: Warning | str, *_: object) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _is_for_the_user(error: Exception) -> bool:
    """Tell an error of the user, raised by nextmarker or the file system, from a bug that surfaced in a library."""
    *_, (raised_in, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, OSError) or raised_in.f_globals["__name__"].split(".")[0] == "nextmarker"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nextmarker", description="Cells of multiplex images, clustered and explained."
    )
    parser.add_argument("--version", action="version", version=nm.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the whole chain on synthetic tissue and compare it with the truth")
    demo.set_defaults(command=_demo)
    demo.add_argument("-o", "--output", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")

    run = commands.add_parser("run", help="find, embed, cluster and explain the cells of images")
    run.set_defaults(command=_run)
    run.add_argument("images", nargs="+", metavar="IMAGES", help="image files, or folders of them")
    run.add_argument("--nuclear", nargs="+", required=True, metavar="NAME", help="channels that show the nuclei")
    run.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.zarr", help="store to write")
    run.add_argument("--markers", nargs="+", metavar="NAME", help="channels to use (default: all; all images alike)")
    run.add_argument("--channel-names", nargs="+", metavar="NAME", help="channel names, where the files hold none")
    run.add_argument(
        "--panel", metavar="CSV", help="table of the channels to keep and their names: channel, name, keep"
    )
    run.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres per pixel, where the files do not tell"
    )
    run.add_argument("--patch-size", type=float, metavar="PX", help="width of a cell's patch (default: from the data)")
    run.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same result (default: 0)")
    run.add_argument("--device", metavar="D", help="cpu or cuda (default: cuda where there is one)")
    run.add_argument("--overwrite", action="store_true", help="replace the store and the figures of an earlier run")
    return parser


def _demo(arguments: argparse.Namespace) -> None:
    if os.path.lexists(arguments.output) and not arguments.output.is_dir():
        msg = f"{str(arguments.output)!r} is there already and is no folder: choose another -o."
        raise FileExistsError(msg)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with _output(arguments.output / "tissue.zarr", overwrite=True) as unfinished:
        sdata = nm.datasets.synthetic_tissue()
        _analyse(sdata, nuclear=["DNA1", "DNA2"])
        _save(sdata, unfinished)
        _print_clusters(sdata, true_type=_compare_with_truth(sdata))


def _run(arguments: argparse.Namespace) -> None:
    with _output(arguments.output, overwrite=arguments.overwrite) as unfinished:
        sdata = nm.io.read(
            arguments.images,
            channel_names=arguments.channel_names,
            panel=arguments.panel,
            pixel_size=arguments.pixel_size,
        )
        _analyse(sdata, arguments.nuclear, arguments.markers, arguments.patch_size, arguments.seed, arguments.device)
        _save(sdata, unfinished)
        _print_clusters(sdata)


def _analyse(
    sdata: SpatialData,
    nuclear: list[str],
    markers: list[str] | None = None,
    patch_size: float | None = None,
    seed: int = 0,
    device: str | None = None,
) -> None:
    nm.pp.detect_cells(sdata, nuclear=nuclear, markers=markers)
    nm.tl.embed(sdata, patch_size=patch_size, random_state=seed, device=device)
    nm.tl.cluster(sdata[_keys.TABLE], random_state=seed)
    nm.tl.marker_attribution(sdata[_keys.TABLE])


@contextmanager
def _output(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a folder to write `store` and `figures` into, and move them to their places once both are complete."""
    from nextmarker.io.store.replace import put_in_place, unfinished
    from nextmarker.io.store.write import check_place, resolved

    store = resolved(path)
    figures = resolved(store.parent / f"{store.stem}_figures")
    check_place(store, overwrite=overwrite, path="-o", replace="--overwrite")
    _check_figures(figures, store, overwrite=overwrite)
    with unfinished(store) as folder:
        (folder / "figures").mkdir()
        yield folder
        for number in (signal.SIGINT, signal.SIGTERM):  # what follows takes moments, and is not to be left half done
            signal.signal(number, signal.SIG_IGN)
        put_in_place(folder / "store", store, overwrite=overwrite)
        figures.mkdir(exist_ok=True)
        for figure in (folder / "figures").iterdir():
            figure.replace(figures / figure.name)
    print(f"\nwritten: {store} and {figures}")


def _check_figures(figures: Path, store: Path, *, overwrite: bool) -> None:
    """Refuse a folder that figures cannot be moved into."""
    if figures.is_dir():
        if figures.stat().st_dev != store.parent.stat().st_dev or not os.access(figures, os.W_OK):
            msg = f"{str(figures)!r} is read-only or on another disk than {str(store)!r}: choose another -o."
            raise PermissionError(msg)
        if not overwrite:
            msg = f"{str(figures)!r} is there already: choose another -o, or replace it with --overwrite."
            raise FileExistsError(msg)
    elif os.path.lexists(figures) or not figures.parent.is_dir():
        msg = f"{str(figures)!r} is no folder, and the figures need one of this name: choose another -o."
        raise FileExistsError(msg)


def _save(sdata: SpatialData, folder: Path) -> None:
    import matplotlib as mpl
    import numpy as np

    mpl.use("Agg")  # no screen needed
    adata = sdata[_keys.TABLE]
    drawings = {
        "cells": nm.pl.cells(sdata, color=_keys.CLUSTERS),
        "training": nm.pl.training(adata),
        "normalization": nm.pl.normalization(sdata),
        "marker_attribution": nm.pl.marker_attribution(adata),
        "patches": nm.pl.patches(sdata),
    }
    for name, drawing in drawings.items():
        axes = np.asarray(drawing, dtype=object)
        axes.flat[0].figure.savefig(folder / "figures" / f"{name}.png", dpi=150, bbox_inches="tight")
    nm.io.write(sdata, folder / "store")


def _compare_with_truth(sdata: SpatialData) -> pd.Series:
    """Print how cells and clusters agree with the truth, and return the true type under each centre, NaN for none."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import adjusted_rand_score

    from nextmarker._cells import read_regions

    obs = sdata[_keys.TABLE].obs
    true_type = pd.Series(np.nan, index=obs.index, dtype=object)
    n_true = n_found = 0
    for region in read_regions(sdata):
        truth = sdata.shapes[f"truth_{region.image}"]["cell_type"]
        columns, rows = np.floor(region.centres).astype(int).T
        label = sdata.labels[f"masks_{region.image}"].to_numpy()[rows, columns]
        true_type.iloc[region.rows] = truth.reindex(label).to_numpy()
        n_true += len(truth)
        n_found += len(np.unique(label[label > 0]))
    known = true_type.notna()
    agreement = adjusted_rand_score(true_type[known], obs.loc[known, _keys.CLUSTERS])
    print(f"\ncells: {n_found} of {n_true} true cells found, by {len(obs)} centres")
    print(f"clusters: adjusted Rand index {agreement:.3f} against the true types")
    return true_type


def _print_clusters(sdata: SpatialData, true_type: pd.Series | None = None) -> None:
    import pandas as pd

    from nextmarker._table import read_record

    adata = sdata[_keys.TABLE]
    clusters = adata.obs[_keys.CLUSTERS].astype(str)
    table = clusters.value_counts().rename("cells").to_frame()
    if true_type is not None:
        table["true type"] = true_type.fillna("none").groupby(clusters).agg(lambda types: types.mode().iloc[0])
    record = read_record(adata, _keys.CLUSTER_STEP)
    if "largest_image" in record:
        shares = zip(record["largest_image_share"], record["largest_image"], strict=True)
        largest = [f"{100 * share:.0f} % {image}" for share, image in shares]
        table["largest image"] = pd.Series(largest, index=adata.obs[_keys.CLUSTERS].cat.categories)
    top = nm.tl.top_markers(adata).astype(str)
    table["top markers"] = top.groupby("cluster")["marker"].agg(", ".join)
    print(f"\n{adata.n_obs} cells in {len(sdata.images)} images, {len(table)} clusters")
    print(table.rename_axis("cluster").to_string())


if __name__ == "__main__":
    sys.exit(main())
