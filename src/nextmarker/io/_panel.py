"""Chooses and renames the channels of images by a panel."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nextmarker.io._image import Image, Skipped
from nextmarker.io.imc.no_antibody import with_note

if TYPE_CHECKING:
    from collections.abc import Sequence

# column names of steinbock, and of the IMC segmentation pipeline and imcdatasets
COLUMNS = {"channel": ("channel", "metal tag"), "name": ("name", "target"), "keep": ("keep", "full")}
YES = {"1", "1.0", "true", "yes"}
NO = {"0", "0.0", "false", "no", ""}


@dataclass(frozen=True)
class Row:
    """One channel of a panel."""

    channel: str
    """Metal, or name in the file."""
    name: str
    """New name, "" to keep the old one."""
    keep: bool


def read_panel(panel: str | Path | pd.DataFrame) -> list[Row]:
    """Read a panel and check it.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    TypeError
        If the panel is neither a path nor a DataFrame.
    ValueError
        If the file is not a CSV in UTF-8, lacks a column, keeps nothing, or has a channel or a name twice.
    """
    if not isinstance(panel, (str, Path, pd.DataFrame)):
        msg = f"A panel is a path or a DataFrame, not {type(panel).__name__}."
        raise TypeError(msg)
    source = "The panel" if isinstance(panel, pd.DataFrame) else f"The panel {panel}"
    table = panel.astype(object) if isinstance(panel, pd.DataFrame) else _read_csv(Path(panel))
    table = table.where(table.notna(), "")
    columns = _columns(table, source)
    texts = {column: [str(value).strip() for value in table[found]] for column, found in columns.items()}
    keep = [_yes(value, source) for value in texts["keep"]] if "keep" in texts else [True] * len(table)
    rows = [Row(*row) for row in zip(texts["channel"], texts["name"], keep, strict=True)]
    _check_rows(rows, source)
    return rows


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        msg = f"No panel {path}: the file does not exist."
        raise FileNotFoundError(msg)
    try:
        # as text: "NA" and "1e3" may be names
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        msg = (
            f"The panel {path} is not UTF-8: byte {error.object[error.start]:#x} at position {error.start}. State the "
            "encoding: panel=pandas.read_csv(path, encoding='cp1252')."
        )
        raise ValueError(msg) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        msg = f"The panel {path} is not a CSV table: {error}"
        raise ValueError(msg) from error


def _columns(table: pd.DataFrame, source: str) -> dict[str, str]:
    columns = [str(column).strip().lower() for column in table.columns]
    repeated = sorted({name for names in COLUMNS.values() for name in names if columns.count(name) > 1})
    if repeated:
        msg = f"{source} has repeated columns: {repeated}. Rename or drop all but one."
        raise ValueError(msg)
    known = dict(zip(columns, table.columns, strict=True))
    found = {
        column: next(known[name] for name in names if name in known)
        for column, names in COLUMNS.items()
        if known.keys() & set(names)
    }
    missing = [" or ".join(map(repr, COLUMNS[column])) for column in ("channel", "name") if column not in found]
    if missing:
        msg = (
            f"{source} lacks the column {' and '.join(missing)}; its columns, separated by commas, are "
            f"{list(map(str, table.columns))}."
        )
        raise ValueError(msg)
    return found


def _yes(value: str, source: str) -> bool:
    if value.lower() not in YES | NO:
        msg = f"{source} has {value!r} in the column 'keep'. Write 1 or 0."
        raise ValueError(msg)
    return value.lower() in YES


def _check_rows(rows: Sequence[Row], source: str) -> None:
    kept = [row for row in rows if row.keep]
    if not kept:
        msg = f"{source} keeps no channel."
        raise ValueError(msg)
    if not all(row.channel for row in kept):
        msg = f"{source} has a channel without a name in the file: {[row.name for row in kept if not row.channel]}."
        raise ValueError(msg)
    for what, values in {
        "channels": [normal_metal(row.channel) for row in kept],
        "names": [row.name for row in kept if row.name],
    }.items():
        repeated = sorted(value for value, count in Counter(values).items() if count > 1)
        if repeated:
            msg = f"{source} has {what} more than once: {repeated}. Change them, or set keep to 0."
            raise ValueError(msg)


def choose_channels(
    images: Sequence[Image], skipped: Sequence[Skipped], panel: str | Path | pd.DataFrame | None
) -> tuple[list[Image], list[Skipped]]:
    """Apply a panel; without one, note the channels without an antibody."""
    if panel is None:
        return [with_note(image) for image in images], list(skipped)
    chosen, lacking = apply_panel(images, read_panel(panel))
    return chosen, [*skipped, *lacking]


def apply_panel(images: Sequence[Image], panel: Sequence[Row]) -> tuple[list[Image], list[Skipped]]:
    """Choose, order and rename the channels of images.

    Returns
    -------
    The images with the channels of the panel; and as skipped, images that have none of them.

    Raises
    ------
    ValueError
        If the panel keeps a channel that no image has, or two rows match the same channel of an image.
    """
    kept = [row for row in panel if row.keep]
    places = [_places(image, kept) for image in images]
    unknown = [row.channel for row in kept if all(row not in found for found in places)]
    if images and unknown:
        msg = (
            f"The panel keeps channels that no image has: {unknown}. {images[0].name!r}, for example, has "
            f"{list(images[0].originals or images[0].channels)}"
            f"{f' on {list(images[0].metals)}' if images[0].metals else ''}. Correct the panel, or set keep to 0."
        )
        raise ValueError(msg)
    chosen, skipped = [], []
    for image, found in zip(images, places, strict=True):
        present = [row for row in kept if row in found]
        if present:
            chosen.append(_select(image, present, [found[row] for row in present], len(kept)))
        else:
            skipped.append(Skipped(image.source or image.name, f"it has none of the panel: {list(image.channels)}"))
    return chosen, skipped


def _places(image: Image, rows: Sequence[Row]) -> dict[Row, int]:
    """Positions of the channels of a panel in an image: by metal, by name in the file, or by name."""
    names: dict[str, int] = {}
    for known in (image.channels, image.originals or (), image.metals or ()):  # the last takes precedence
        names.update({normal_metal(name): place for place, name in enumerate(known) if name})
    found: dict[Row, int] = {}
    for row in rows:
        place = names.get(normal_metal(row.channel), names.get(row.name))
        if place is not None and place in found.values():
            msg = f"The panel has several rows for channel {image.channels[place]!r} of image {image.name!r}."
            raise ValueError(msg)
        if place is not None:
            found[row] = place
    return found


def _select(image: Image, rows: Sequence[Row], places: Sequence[int], wanted: int) -> Image:
    originals = image.originals or image.channels
    note = f"it lacks {wanted - len(rows)} of the {wanted} channels of the panel"
    return replace(
        image,
        pixels=image.pixels[list(places)],
        channels=tuple(row.name or image.channels[place] for row, place in zip(rows, places, strict=True)),
        originals=tuple(originals[place] for place in places),
        metals=tuple(image.metals[place] for place in places) if image.metals else None,
        notes=image.notes if len(rows) == wanted else (*image.notes, note),
    )


def normal_metal(name: str) -> str:
    """Write a metal tag as symbol and mass: 141Pr and Pr141Di become Pr141. Other names do not change."""
    return metal_or_nothing(name) or name.strip()


def metal_or_nothing(name: str) -> str:
    """Symbol and mass if a name is a metal tag, otherwise an empty string."""
    symbol = r"ArAr|[A-Z][a-z]?"
    tag = re.fullmatch(rf"(?:(\d{{2,3}})({symbol})|({symbol})(\d{{2,3}}))(?:Di)?", name.strip())
    if tag is None:
        return ""
    mass_first, symbol_after, symbol_first, mass_after = tag.groups()
    return f"{symbol_after or symbol_first}{mass_first or mass_after}"


def clean_names(labels: Sequence[str], metals: Sequence[str]) -> tuple[str, ...]:
    """Reduce the labels of an instrument to marker names: ``Cytoker_651((3356))Pr141`` on Pr141 becomes ``Cytoker``.

    The metal of the channel is removed from the start or end, and from the end a number in double brackets with the
    number before it. If nothing is left, the name is the metal. If two labels give the same name, the metal is appended
    to both.
    """
    names = [_clean(label, metal) or metal for label, metal in zip(labels, metals, strict=True)]
    count = Counter(names)
    return tuple(
        name if count[name] == 1 or not metal else f"{name}_{metal}" for name, metal in zip(names, metals, strict=True)
    )


def _clean(label: str, metal: str) -> str:
    symbol, mass = metal.rstrip("0123456789"), metal.lstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    tag = rf"(?:{symbol}{mass}|{mass}{symbol})(?:Di)?"
    apart = rf"^{tag}(?![A-Za-z0-9])|(?<![A-Za-z0-9]){tag}$|[(\[]{tag}[)\]]$"
    without_metal = re.sub(apart, "", label.strip()) if metal else label.strip()
    return re.sub(r"(?:_\d+)?\(\([^()]*\)\)$", "", without_metal.strip(" _-")).strip(" _-")
