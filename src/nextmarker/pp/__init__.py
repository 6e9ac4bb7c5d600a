"""Pixel sizes, panels and cell centres, detected or imported, masks, and sample sheets; no segmentation is needed."""

from nextmarker.pp._add import add_cells
from nextmarker.pp._detect import detect_cells
from nextmarker.pp._integrate import integrate
from nextmarker.pp._masks import add_masks
from nextmarker.pp._match import match_cells
from nextmarker.pp._outside import remove_outside_cells
from nextmarker.pp._panels import match_panels
from nextmarker.pp._pixel_size import set_pixel_size
from nextmarker.pp._samples import add_samples

__all__ = [
    "add_cells",
    "add_masks",
    "add_samples",
    "detect_cells",
    "integrate",
    "match_cells",
    "match_panels",
    "remove_outside_cells",
    "set_pixel_size",
]
