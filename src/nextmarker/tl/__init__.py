"""Training, embedding, clusters and their attribution to markers, and transfer of cell types."""

from nextmarker.tl._attribution import marker_attribution
from nextmarker.tl._cluster import cluster
from nextmarker.tl._embed import embed
from nextmarker.tl._train import train
from nextmarker.tl._transfer import transfer

__all__ = ["cluster", "embed", "marker_attribution", "train", "transfer"]
