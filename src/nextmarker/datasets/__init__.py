"""Synthetic tissue and synthetic cells, whose truth is known: for examples, tests and the demo."""

from nextmarker.datasets._single_cells import synthetic_cells
from nextmarker.datasets._tissue import TISSUE_TYPES, synthetic_tissue

__all__ = ["TISSUE_TYPES", "synthetic_cells", "synthetic_tissue"]
