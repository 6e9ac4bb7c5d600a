"""Reads image files lazily into SpatialData, and writes SpatialData and GeoJSON.

All readers follow the same rules. An image has dims (c, y, x), the data type of its file and its channel names. Each
image has its own coordinate system with its name, in micrometres if the pixel size is known (which is also stored in
``sdata.attrs["nextmarker_pixel_size"]``), otherwise in pixels.
"""

from nextmarker.io._geojson import write_geojson
from nextmarker.io._read import read
from nextmarker.io._report import report
from nextmarker.io.imc.mcd import read_mcd
from nextmarker.io.imc.steinbock import read_steinbock
from nextmarker.io.imc.txt import read_imc_txt
from nextmarker.io.store.write import write
from nextmarker.io.tiff.file import read_tiff
from nextmarker.io.tiff.folder import read_folder
from nextmarker.io.tiff.mcmicro import read_mcmicro

__all__ = [
    "read",
    "read_folder",
    "read_imc_txt",
    "read_mcd",
    "read_mcmicro",
    "read_steinbock",
    "read_tiff",
    "report",
    "write",
    "write_geojson",
]
