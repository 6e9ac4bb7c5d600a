"""Every name that nextmarker writes into a SpatialData object or its table."""

from typing import Final

# elements of the SpatialData object
CELLS: Final = "cells"
TABLE: Final = "table"
MICROMETRE: Final = "micrometre"  # coordinate system of all images whose pixel size is known
PIXEL_SIZE: Final = "nextmarker_pixel_size"  # sdata.attrs: image name -> micrometres per pixel, as it was stated
REPORT: Final = "nextmarker_report"  # sdata.attrs: source -> what became of it
CHANNELS: Final = "nextmarker_channels"  # sdata.attrs: image name -> names, original names and metals of its channels
ACQUISITIONS: Final = "nextmarker_acquisitions"  # sdata.attrs: image name -> what the file tells of the acquisition
PANELS: Final = "nextmarker_panels"  # sdata.attrs: image name -> marker -> how the image came to have it
MASKS: Final = "masks"  # sdata.labels: masks_<image>
INTENSITY: Final = "intensity"  # the table of segmented objects

# columns of the table that link a cell to its circle and its image
REGION: Final = "region"
INSTANCE: Final = "instance_id"
IMAGE: Final = "image"
SPATIAL: Final = "spatial"
SOURCE: Final = "source_id"  # the name a cell had where its centre came from

# segmented objects, and which of them a cell was matched to
AREA: Final = "area"
ARCSINH: Final = "arcsinh"
SQRT: Final = "sqrt"
MATCHED: Final = "matched"
DISTANCE: Final = "distance"

# columns of the table that say where a marker and a cell come from, where nm.io knows it
ORIGINAL_NAME: Final = "original_name"
METAL: Final = "metal"
SAMPLE: Final = "sample"
ACQUISITION: Final = "acquisition"

# columns that a sample sheet adds to the table
PATIENT: Final = "patient"
GROUP: Final = "group"

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
EMBEDDED: Final = "nextmarker_embedding"  # obs: the model and the run of nm.tl.embed that embedded the cell
RECORD: Final = "nextmarker"
EMBED_STEP: Final = "embed"  # uns[RECORD]: the record of a step
CLUSTER_STEP: Final = "cluster"
RENAME_STEP: Final = "rename_clusters"
CELL_TYPE: Final = "cell_type"
ANNOTATE_STEP: Final = "annotate"
MATCH_STEP: Final = "match_cells"
INTEGRATE_STEP: Final = "integrate"
TRANSFER_STEP: Final = "transfer"
NEIGHBORHOOD: Final = "neighborhood"
CO_OCCURRENCE: Final = "co_occurrence"
NICHE: Final = "niche"
NICHES_STEP: Final = "niches"
COMPOSITION: Final = "composition"
SAMPLES_STEP: Final = "add_samples"
COMPARE_STEP: Final = "compare_groups"
COMPARISON: Final = "group_comparison"
VALUES: Final = "values"  # uns: <comparison>_values, what was compared
UNKNOWN: Final = "unknown"  # the type of cells that no type fits
UNSURE: Final = "unsure"  # the type of cells that may be of several types
