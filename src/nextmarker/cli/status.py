"""``nextmarker status``: what a store or a model holds, how far a command has come, and what comes next."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nextmarker import _keys
from nextmarker._errors import counted, listed
from nextmarker._replace import is_being_written, is_store, recover, resolved
from nextmarker.cli.places import shown, typed
from nextmarker.cli.progress import OPTIONS, folder_of, how_to_go_on, is_progress

if TYPE_CHECKING:
    from anndata import AnnData
    from zarr import Group

ORDER = ("detect_cells", "add_cells", "train", _keys.EMBED_STEP, _keys.CLUSTER_STEP, _keys.ATTRIBUTION)
"""Steps in the order of an analysis; all others follow."""


@click.command()
@click.argument("path", metavar="PATH")
def status(path: str) -> None:
    """Tell what PATH holds, and what comes next.

    PATH is a store, the file of a model, or the output of a command that is running or was interrupted.
    """
    place = resolved(path)
    recover(place)
    progress = place if is_progress(place) else folder_of(place)
    if is_progress(progress):
        _describe_progress(progress)
    if is_store(place):
        _describe_store(place)
    elif place.is_file():
        _describe_model(place)
    elif not is_progress(progress):
        msg = f"Neither a store nor a model, and nothing in progress: {path}."
        raise FileNotFoundError(msg)


def _describe_progress(folder: Path) -> None:
    """Print how far a command has come."""
    from nextmarker._checkpoint import progress

    options = tomllib.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    running = is_being_written(resolved(options["output"]))
    print(f"{shown(folder)}: {'running now' if running else 'interrupted'}")
    for step, found in progress(folder).items():
        print(f"{step}: {found['done']} of {counted(int(found['total']), str(found['unit']))}")
    if not running:
        print(f"next: {how_to_go_on(folder)}")


def _describe_store(store: Path) -> None:
    """Print the content of a store, reading neither pixels nor embeddings."""
    import zarr

    group: Any = zarr.open_group(store, mode="r")
    images = sorted(group["images"].keys()) if "images" in group else []
    print(f"{shown(store)}: store of {counted(len(images), 'image')}, {listed(images)}")
    if f"tables/{_keys.TABLE}" not in group:
        print("cells: none\nnext: in Python, nm.pp.detect_cells")
        return
    from nextmarker.cli import summary

    adata = _read_slim(group[f"tables/{_keys.TABLE}"])
    print(f"cells: {adata.n_obs} in {counted(adata.obs[_keys.IMAGE].nunique(), 'image')}, {adata.n_vars} markers")
    records = {step: record for step, record in adata.uns.get(_keys.RECORD, {}).items() if isinstance(record, dict)}
    versions = sorted({str(record.get("version")) for record in records.values()})
    steps = [step for step in ORDER if step in records] + [step for step in records if step not in ORDER]
    print(f"steps: {', '.join(steps)} (nextmarker {', '.join(versions)})")
    if "train" in records:
        print(summary.training_in_words(records["train"]))
    for what, column in (("clusters", _keys.CLUSTERS), ("types", _keys.CELL_TYPE)):
        if column in adata.obs:
            sizes = adata.obs[column].value_counts()
            print(f"{what}: {len(sizes)} ({', '.join(f'{name}: {cells}' for name, cells in sizes.items())})")
    print(f"next: {summary.next_step(adata, store)}")


def _read_slim(table: Group) -> AnnData:
    """Read what describes a table, without its matrices."""
    from anndata import AnnData
    from anndata.io import read_elem

    return AnnData(**{slot: read_elem(table[slot]) for slot in ("obs", "var", "uns")})


def _describe_model(path: Path) -> None:
    import nextmarker as nm

    model = nm.nn.load_model(path)
    known = model.config
    size = "" if known.pixel_size is None else f" of {known.pixel_size:g} um"
    print(f"{shown(path)}: model {model.digest()}")
    print(f"patches: {known.patch_size} x {known.patch_size} pixels{size}")
    print(f"markers: {', '.join(known.markers)}")
    print(f"next: nextmarker embed IMAGES --model {typed(path)} --nuclear-channels NAME -o OUT.zarr")
