"""Pixel sizes in files: parses numbers and units as programs and people write them."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from nextmarker._coordinates import LARGEST_PIXEL, SMALLEST_PIXEL

SAME = 0.01  # relative difference below which two sizes are equal

# in lower case, with the Greek letter mu
_UNITS = {
    "pm": 1e-6,
    **dict.fromkeys(["å", "angstrom", "angstroms", "ångström"], 1e-4),
    **dict.fromkeys(["nm", "nanometer", "nanometers", "nanometre", "nanometres"], 1e-3),
    **dict.fromkeys(["μm", "um", "μ", "micron", "microns", "mikron", "mikrometer"], 1.0),
    **dict.fromkeys(["micrometer", "micrometers", "micrometre", "micrometres"], 1.0),
    **dict.fromkeys(["mm", "millimeter", "millimeters", "millimetre", "millimetres"], 1e3),
    **dict.fromkeys(["cm", "centimeter", "centimeters", "centimetre", "centimetres"], 1e4),
    **dict.fromkeys(["in", "inch", "inches"], 2.54e4),
    "dm": 1e5,
    **dict.fromkeys(["m", "meter", "meters", "metre", "metres"], 1e6),
}
DEFAULT = "µm"
_MEGAMETRE = "Mm"  # in OME; typed by hand it means millimetre


@dataclass(frozen=True)
class Stated:
    """Pixel size stated in a file."""

    size: tuple[float, float] | None = None
    """Micrometres per pixel, (x, y)."""
    note: str = ""
    """Assumptions, or why the stated size is not used."""


def micrometres(unit: str) -> float | None:
    """Micrometres in a unit of length, in any spelling; None if it is no length."""
    if unit.strip() == _MEGAMETRE:
        return None
    # ImageJ escapes the letter; in the wrong encoding it is preceded by "Â"
    text = re.sub(r"\\u00b5|â?μ", "μ", unicodedata.normalize("NFKC", unit).casefold())
    return _UNITS.get(re.sub(r"\s*(/|per)\s*(px|pixels?)$", "", text.strip()).strip(" ."))


def length(text: str) -> float | None:
    """A positive number, with a decimal point or comma; None for other text."""
    if "." not in text and text.count(",") == 1:
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def stated_size(sizes: tuple[str | None, str | None], units: tuple[str | None, str | None]) -> Stated:
    """Interpret the sizes stated for x and y. A size or unit that only one axis has applies to both.

    Parameters
    ----------
    sizes, units
        Texts, or None. Without a unit, sizes are in micrometres, as in OME.
    """
    given = [axis for axis in (0, 1) if sizes[axis] is not None]
    if not given:
        return Stated()
    own = [(unit or "").strip() for unit in units]
    named = own[0] or own[1] or DEFAULT
    # a missing unit is the default one if that makes pixels square
    for missing in [DEFAULT, named] if len(given) == 2 else [named]:
        found = [_in_micrometres(str(sizes[axis]), own[axis] or missing) for axis in given]
        if None in found:
            stated = [f"{sizes[axis]} {own[axis]}".strip() for axis in given]
            return Stated(
                note=f"the pixel size in its header, {' by '.join(map(repr, stated))}, is not used: not a length"
            )
        size = (found[0] or 0.0, found[-1] or 0.0)
        if same(*size):
            break
    assumed = "size" if len(given) == 1 else "unit" if not all(own) and missing != DEFAULT else ""
    return Stated(size, f"its header has the pixel {assumed} of one axis only: taken for both" if assumed else "")


def _in_micrometres(size: str, unit: str) -> float | None:
    number, factor = length(size), micrometres(unit)
    return number * factor if number and factor else None


def same(x: float, y: float) -> bool:
    """Whether two sizes are equal within rounding."""
    return abs(x - y) <= SAME * max(x, y)


def check_square(size: tuple[float, float], source: object) -> float:
    """Size of a square pixel.

    Raises
    ------
    ValueError
        If x and y differ, or the size is so small or large that its unit must be wrong.
    """
    x, y = size
    if not same(x, y):
        msg = f"{source} has pixels of {x:g} by {y:g} micrometres, not square. If wrong: pixel_size=..."
        raise ValueError(msg)
    if not SMALLEST_PIXEL <= x <= LARGEST_PIXEL:
        msg = (
            f"{source} states a pixel size of {x:g} micrometres, not {SMALLEST_PIXEL:g} to {LARGEST_PIXEL:g}. Is its "
            "unit wrong? Give micrometres: pixel_size=..."
        )
        raise ValueError(msg)
    return x
