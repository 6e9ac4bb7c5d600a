"""Values taken out of results, for reading and for figures."""

from nextmarker.get._top_markers import top_markers

__all__ = ["top_markers"]
