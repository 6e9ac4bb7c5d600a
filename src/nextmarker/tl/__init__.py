"""Training, embedding, clusters and their markers."""

from nextmarker.tl.attribution import marker_attribution, top_markers
from nextmarker.tl.cluster import cluster

__all__ = ["cluster", "marker_attribution", "top_markers"]
