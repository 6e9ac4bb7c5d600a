"""``nextmarker status``: what a store, a model or images hold, how far a command has come, and what comes next."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nextmarker import _keys
from nextmarker._errors import counted, listed, no_path
from nextmarker._replace import is_being_written, is_store, recover, resolved
from nextmarker.cli import options_file
from nextmarker.cli.options import as_names
from nextmarker.cli.places import MODEL, STORE, places_of, shown, typed
from nextmarker.cli.progress import OPTIONS, folder_of, how_to_go_on, is_progress

if TYPE_CHECKING:
    from anndata import AnnData
    from zarr import Group

ORDER = ("detect_cells", "add_cells", "train", _keys.EMBED_STEP, _keys.CLUSTER_STEP, _keys.ATTRIBUTION)
"""Steps in the order of an analysis; all others follow."""
MODEL_ENDING = Path(MODEL).suffix


@click.command()
@click.argument("path", metavar="PATH")
def status(path: str) -> None:
    """Tell what PATH holds, and what comes next.

    PATH is a store, the file of a model, images whose channels are listed, or the output of a command that is running
    or was interrupted.
    """
    place = resolved(path) if Path(path).exists() else places_of(path, STORE)[STORE]
    recover(place)
    progress = place if is_progress(place) else folder_of(place)
    if is_progress(progress):
        _describe_progress(progress)
    if place.suffix == MODEL_ENDING and place.is_file():
        _describe_model(place)
    elif _is_spatialdata(place):
        _describe_store(place)
    elif place.exists() and not is_progress(place):
        _describe_images(place)
    elif not is_progress(progress):
        raise no_path(Path(path).expanduser(), "store, model or images")


def _is_spatialdata(place: Path) -> bool:
    """Whether this is a store of images and tables, and not an image that is stored as Zarr."""
    return is_store(place) and any((place / name).is_dir() for name in ("images", "tables"))


def _describe_images(path: Path) -> None:
    """Print what the channels of images are called, and their pixel size."""
    import nextmarker as nm
    from nextmarker._regions import read_panels

    sdata = nm.io.read(path)
    print(f"{shown(path)}: {counted(len(sdata.images), 'image')}, {listed(sdata.images)}")
    panels: dict[tuple[str, ...], list[str]] = {}
    for image, panel in read_panels(sdata, list(sdata.images)).items():
        panels.setdefault(tuple(panel), []).append(image)
    for names, images in panels.items():
        print(f"channels{f' of {listed(images)}' if len(panels) > 1 else ''}: {', '.join(names)}")
    sizes = sorted({f"{size:g} um" for size in sdata.attrs.get(_keys.PIXEL_SIZE, {}).values()})
    print(f"pixel size: {', '.join(sizes) or 'unknown, state it by --pixel-size'}")
    print(f"next: nextmarker run {typed(path)} --nuclear-channels NAME -o OUT.zarr")


def _describe_progress(folder: Path) -> None:
    """Print how far a command has come."""
    from nextmarker._checkpoint import progress

    options = tomllib.loads((folder / OPTIONS).read_text(encoding="utf-8"))
    main = MODEL if options_file.command_of(folder / OPTIONS) == "train" else STORE
    running = is_being_written(places_of(options["output"], main)[main])
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
            number = len(sizes) if what == "clusters" else summary.count_types(sizes)
            print(f"{what}: {number} ({', '.join(f'{as_names([name])}: {cells}' for name, cells in sizes.items())})")
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
