"""Scores, each a small table: separation of groups, accuracy for cell types, mixing of batches, agreement of labels."""

from nextmarker.metrics._agreement import agreement
from nextmarker.metrics._batch_mixing import batch_mixing
from nextmarker.metrics._confusion import confusion
from nextmarker.metrics._probe import probe
from nextmarker.metrics._separation import separation

__all__ = ["agreement", "batch_mixing", "confusion", "probe", "separation"]
