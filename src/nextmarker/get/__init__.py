"""Results as tables, and images of single cells: their views, and what sets them apart."""

from nextmarker.get._batches import batches, unusual_images
from nextmarker.get._cell_attribution import cell_attribution
from nextmarker.get._composition import composition
from nextmarker.get._example_cells import example_cells
from nextmarker.get._top_markers import top_markers
from nextmarker.get._views import views

__all__ = ["batches", "cell_attribution", "composition", "example_cells", "top_markers", "unusual_images", "views"]
