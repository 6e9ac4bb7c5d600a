"""Training, embedding, clusters and their attribution to markers."""

from nextmarker.tl._attribution import marker_attribution
from nextmarker.tl._cluster import cluster
from nextmarker.tl._embed import embed
from nextmarker.tl._train import train
from nextmarker.tl._views import draw_views

__all__ = ["cluster", "draw_views", "embed", "marker_attribution", "train"]
