"""Cell centres: find them in nuclear channels, or take them from elsewhere. No segmentation is needed."""

from nextmarker.pp._add import add_cells
from nextmarker.pp._detect import detect_cells

__all__ = ["add_cells", "detect_cells"]
