"""Single-cell analysis of multiplex images from cell centres alone, explained marker by marker.

The submodules are loaded when they are first used, so that ``import nextmarker`` is quick:

- :mod:`nextmarker.io`: image files to SpatialData
- :mod:`nextmarker.datasets`: synthetic cells and tissue with known truth
- :mod:`nextmarker.pp`: cell centres
- :mod:`nextmarker.tl`: training, embedding, clusters and their markers
- :mod:`nextmarker.metrics`: numbers about embeddings
- :mod:`nextmarker.pl`: figures
- :mod:`nextmarker.nn`: the network, on tensors only
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextmarker import datasets, io, metrics, nn, pl, pp, tl

__version__ = "0.1.0"

__all__ = ["__version__", "datasets", "io", "metrics", "nn", "pl", "pp", "tl"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule when it is first asked for (PEP 562)."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """List what can be reached from the package, loaded or not."""
    return __all__
