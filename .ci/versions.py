"""Print the versions of Python and of the packages that results depend on."""

import platform
from importlib.metadata import version

PACKAGES = ["torch", "anndata", "spatialdata", "scanpy", "squidpy", "pandas", "numpy", "zarr", "dask", "xarray"]

print(f"tested with Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES), sep=", ")
