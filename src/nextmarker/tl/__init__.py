"""Training, embedding, clusters and their markers."""

from nextmarker.tl.attribution import marker_attribution, top_markers
from nextmarker.tl.cluster import cluster
from nextmarker.tl.embed import embed
from nextmarker.tl.train import train

__all__ = ["cluster", "embed", "marker_attribution", "top_markers", "train"]
