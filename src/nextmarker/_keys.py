"""All keys that nextmarker writes into a SpatialData object or its table."""

from typing import Final

# elements of the SpatialData object
CELLS: Final = "cells"
TABLE: Final = "table"
MICROMETRE: Final = "micrometre"  # coordinate system of all images with a known pixel size
PIXEL_SIZE: Final = "nextmarker_pixel_size"  # sdata.attrs: image -> micrometres per pixel, as stated
REPORT: Final = "nextmarker_report"  # sdata.attrs: source -> read or skipped, and why
CHANNELS: Final = "nextmarker_channels"  # sdata.attrs: image -> names, original names and metals of its channels
ACQUISITIONS: Final = "nextmarker_acquisitions"  # sdata.attrs: image -> information on the acquisition in its file
PANELS: Final = "nextmarker_panels"  # sdata.attrs: image -> marker -> present, renamed or filled in
MASKS: Final = "masks"  # sdata.labels: masks_<image>
INTENSITY: Final = "intensity"  # the table of segmented objects

# columns of the table that link a cell to its circle and its image
REGION: Final = "region"
INSTANCE: Final = "instance_id"
IMAGE: Final = "image"
SPATIAL: Final = "spatial"
SOURCE: Final = "source_id"  # name of the cell in its source

# segmented objects, and which of them a cell was matched to
AREA: Final = "area"
ARCSINH: Final = "arcsinh"
SQRT: Final = "sqrt"
MATCHED: Final = "matched"
DISTANCE: Final = "distance"

# columns of the table with the origin of a marker or a cell, if known to nm.io
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
ACTIVATION_WEIGHTS: Final = "nextmarker_activation"
CLUSTERS: Final = "nextmarker"
CONNECTIVITIES: Final = "connectivities"
DISTANCES: Final = "distances"
NEIGHBORS: Final = "neighbors"
ATTRIBUTION: Final = "marker_attribution"
EMBEDDED: Final = "nextmarker_embedding"  # obs: digests of the model and of the embedding of the cell
RECORD: Final = "nextmarker"
EMBED_STEP: Final = "embed"  # in uns[RECORD]: the record of a step
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
OR: Final = " or "  # between the names of two types that fit equally well
UNSURE: Final = "unsure"  # the type of cells that may be of several types
NO_TYPE: Final = (UNKNOWN, UNSURE)
