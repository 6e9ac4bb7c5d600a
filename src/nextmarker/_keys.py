"""Every name that nextmarker writes into a SpatialData object or its table."""

from typing import Final

# elements of the SpatialData object
CELLS: Final = "cells"
TABLE: Final = "table"
PIXEL_SIZE: Final = "nextmarker_pixel_size"  # sdata.attrs: image name -> micrometres per pixel

# columns of the table that link a cell to its circle and its image
REGION: Final = "region"
INSTANCE: Final = "instance_id"
IMAGE: Final = "image"
SPATIAL: Final = "spatial"
SOURCE: Final = "source_id"  # the name a cell had where its centre came from

# results
EMBEDDING: Final = "X_nextmarker"
INTERPRETABILITY: Final = "interpretability"
INTERPRETABILITY_FEATURES: Final = "X_interpretability"
CROSSTALK: Final = "nextmarker_crosstalk"
CLUSTERS: Final = "nextmarker"
CONNECTIVITIES: Final = "connectivities"
DISTANCES: Final = "distances"
NEIGHBORS: Final = "neighbors"
ATTRIBUTION: Final = "marker_attribution"
RECORD: Final = "nextmarker"
