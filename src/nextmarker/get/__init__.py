"""Results as tables, and views of a cell."""

from nextmarker.get._composition import composition
from nextmarker.get._example_cells import example_cells
from nextmarker.get._top_markers import top_markers
from nextmarker.get._views import views

__all__ = ["composition", "example_cells", "top_markers", "views"]
