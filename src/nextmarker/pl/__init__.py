"""Figures. Each function draws, and returns the Axes it drew on.

Embeddings are drawn by scanpy: ``sc.tl.umap(adata, neighbors_key="nextmarker_neighbors")``, then ``sc.pl.umap(adata)``.
"""

from nextmarker.pl.attribution import marker_attribution
from nextmarker.pl.cells import cells
from nextmarker.pl.normalization import normalization
from nextmarker.pl.patches import patches
from nextmarker.pl.training import training

__all__ = ["cells", "marker_attribution", "normalization", "patches", "training"]
