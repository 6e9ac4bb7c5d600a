"""What sections of a report consist of: words, pictures and tables; and figures as pictures in the file."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd
    from matplotlib.figure import Figure

RESOLUTION = 144
"""Pixels per inch of figures."""
LARGEST = 16_000
"""Largest height of a picture in pixels: that of the format WebP is 16,383."""
CSS_PIXELS = 96
"""Pixels per inch of a browser."""
MARGIN = 0.05
NAMED = 8
"""Names that a sentence lists."""
FOLDED = 12
"""Tables with more rows are folded."""
WEBP: dict[str, Any] = {"format": "webp", "pil_kwargs": {"quality": 80}}
"""Smaller than PNG for pixels of images, not for lines."""


@dataclass(frozen=True)
class Words:
    """A paragraph, with code between backticks."""

    form: ClassVar[str] = "words"
    text: str
    kind: Literal["", "good", "check"] = ""
    """`"good"` and `"check"` are also shown at the top of the report."""


@dataclass(frozen=True)
class Picture:
    """A picture in the file."""

    form: ClassVar[str] = "picture"
    source: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, with a legend of their colours."""

    form: ClassVar[str] = "gallery"
    pictures: Sequence[Picture]
    legend_title: str
    legend: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table, whose first column names the rows; long ones are folded."""

    form: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool
    marked: Sequence[int] = ()
    """Rows to look at."""


Block = Words | Picture | Gallery | Table


@dataclass(frozen=True)
class Section:
    """A part of the report under a heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """Where links to the section lead."""
        return self.title.lower().replace(" ", "-")

    @property
    def remarks(self) -> list[Words]:
        """What is also shown at the top of the report."""
        return [block for block in self.blocks if isinstance(block, Words) and block.kind]


def table(caption: str, content: pd.DataFrame, *, folded: bool | None = None, marked: Sequence[int] = ()) -> Table:
    """List a table, all values as text; by default folded if it is long."""
    rows = [[as_text(value) for value in row] for row in content.itertuples(index=False)]
    return Table(caption, list(content.columns), rows, len(rows) > FOLDED if folded is None else folded, marked)


def first_few(names: Iterable[object], most: int = NAMED) -> str:
    """List the first few names."""
    known = [str(name) for name in names]
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def as_text(value: Any) -> str:
    """Write a value of a table or record the same way before and after saving."""
    if isinstance(value, np.ndarray | list | tuple):
        return ", ".join(as_text(item) for item in np.asarray(value).tolist())
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.4g}"
    return str(value)


def drawn(axes: Any, alt: str, caption: str, **style: Any) -> Picture:
    """Save the figure of some axes as a picture, and close it."""
    figure = np.asarray(axes, dtype=object).flat[0].figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # or saving repeats the layout
    box = figure.get_tightbbox().padded(MARGIN)
    picture = save(figure, box, alt, caption, **style)
    plt.close(figure)
    return picture


def save(figure: Figure, box: Bbox, alt: str, caption: str, **style: Any) -> Picture:
    """Save a part of a figure, in inches, as a picture."""
    file = BytesIO()
    style = {"format": "png", **style}
    resolution = min(RESOLUTION, LARGEST / box.height)
    figure.savefig(file, dpi=resolution, bbox_inches=box, **style)
    source = f"data:image/{style['format']};base64,{base64.b64encode(file.getvalue()).decode()}"
    return Picture(source, round(box.width * CSS_PIXELS), round(box.height * CSS_PIXELS), alt, caption)
