"""Results as tables."""

from nextmarker.get._top_markers import top_markers

__all__ = ["top_markers"]
