"""Training, embedding, clusters and their markers, cell types, neighbours and niches, and groups of patients."""

from nextmarker.tl._annotate import annotate
from nextmarker.tl._attribution import marker_attribution
from nextmarker.tl._cluster import cluster
from nextmarker.tl._co_occurrence import co_occurrence
from nextmarker.tl._compare import compare_groups
from nextmarker.tl._embed import embed
from nextmarker.tl._neighborhood import neighborhood
from nextmarker.tl._niches import niches
from nextmarker.tl._rename import rename_clusters
from nextmarker.tl._train import train
from nextmarker.tl._transfer import transfer

__all__ = [
    "annotate",
    "cluster",
    "co_occurrence",
    "compare_groups",
    "embed",
    "marker_attribution",
    "neighborhood",
    "niches",
    "rename_clusters",
    "train",
    "transfer",
]
