"""Results as tables, and views of a cell."""

from nextmarker.get._top_markers import top_markers
from nextmarker.get._views import views

__all__ = ["top_markers", "views"]
