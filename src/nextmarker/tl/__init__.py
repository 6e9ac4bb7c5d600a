"""Training, embedding, clusters and their attribution to markers, and cell types."""

from nextmarker.tl._annotate import annotate
from nextmarker.tl._attribution import marker_attribution
from nextmarker.tl._cluster import cluster
from nextmarker.tl._embed import embed
from nextmarker.tl._rename import rename_clusters
from nextmarker.tl._train import train
from nextmarker.tl._transfer import transfer

__all__ = ["annotate", "cluster", "embed", "marker_attribution", "rename_clusters", "train", "transfer"]
