"""Figures. Each function returns the matplotlib Axes, and changes nothing in the table.

`report` writes a file of them, and `napari` opens an image in that viewer.

Use scanpy to draw embeddings: ``sc.tl.umap(adata, neighbors_key="nextmarker_neighbors")``, then ``sc.pl.umap(adata)``.
"""

from nextmarker.pl._agreement import agreement
from nextmarker.pl._annotation import annotation
from nextmarker.pl._attribution import marker_attribution
from nextmarker.pl._cell_attribution import cell_attribution
from nextmarker.pl._cells import cells
from nextmarker.pl._composition import composition
from nextmarker.pl._groups import groups
from nextmarker.pl._matches import matches
from nextmarker.pl._napari import napari
from nextmarker.pl._neighborhood import neighborhood
from nextmarker.pl._normalization import normalization
from nextmarker.pl._patches import patches
from nextmarker.pl._report import report
from nextmarker.pl._thresholds import thresholds
from nextmarker.pl._training import training
from nextmarker.pl._unusual_images import unusual_images
from nextmarker.pl._views import views

__all__ = [
    "agreement",
    "annotation",
    "cell_attribution",
    "cells",
    "composition",
    "groups",
    "marker_attribution",
    "matches",
    "napari",
    "neighborhood",
    "normalization",
    "patches",
    "report",
    "thresholds",
    "training",
    "unusual_images",
    "views",
]
