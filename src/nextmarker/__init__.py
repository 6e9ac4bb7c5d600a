"""Single-cell analysis of multiplex images from cell centres alone, explained marker by marker.

Submodules are loaded on first use, so ``import nextmarker`` is fast:

- :mod:`nextmarker.io`: image files to SpatialData and back
- :mod:`nextmarker.datasets`: synthetic cells and tissue with known cell types
- :mod:`nextmarker.pp`: pixel sizes, panels and cell centres
- :mod:`nextmarker.tl`: training, embedding, clusters and their attribution to markers
- :mod:`nextmarker.get`: results as tables, and views of a cell
- :mod:`nextmarker.metrics`: scores of embeddings
- :mod:`nextmarker.pl`: figures
- :mod:`nextmarker.nn`: the network, which uses tensors only
"""

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextmarker import datasets, get, io, metrics, nn, pl, pp, tl

# Threads that wait for others sleep. By default they spin and take the time of another process, which then takes many
# times as long. OpenMP reads this when torch is imported; a value set by the user is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

__all__ = ["__version__", "datasets", "get", "io", "metrics", "nn", "pl", "pp", "tl"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule on first use (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """List all public names, loaded or not."""
    return __all__
