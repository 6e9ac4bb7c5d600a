"""Training, embedding, clusters and their attribution to markers, cell types, and groups of patients."""

from nextmarker.tl._annotate import annotate
from nextmarker.tl._attribution import marker_attribution
from nextmarker.tl._cluster import cluster
from nextmarker.tl._compare import compare_groups
from nextmarker.tl._embed import embed
from nextmarker.tl._rename import rename_clusters
from nextmarker.tl._train import train
from nextmarker.tl._transfer import transfer

__all__ = [
    "annotate",
    "cluster",
    "compare_groups",
    "embed",
    "marker_attribution",
    "rename_clusters",
    "train",
    "transfer",
]
