"""Synthetic tissue and cells with known cell types, for examples, tests and the demo."""

from nextmarker.datasets._dense import DENSE_TYPES, dense_tissue
from nextmarker.datasets._single_cells import synthetic_cells
from nextmarker.datasets._tissue import TISSUE_TYPES, synthetic_tissue

__all__ = ["DENSE_TYPES", "TISSUE_TYPES", "dense_tissue", "synthetic_cells", "synthetic_tissue"]
