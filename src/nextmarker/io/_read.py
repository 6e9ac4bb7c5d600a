"""Recognises the format of each path, reads it, and combines all images in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nextmarker._errors import no_path
from nextmarker._replace import recover
from nextmarker.io._image import Image, Skipped, to_spatialdata
from nextmarker.io._panel import choose_channels
from nextmarker.io.imc import mcd, steinbock, txt
from nextmarker.io.store.ome_zarr import is_zarr, zarr_images
from nextmarker.io.tiff.file import check_arguments, file_images, listed, tiff_files
from nextmarker.io.tiff.folder import folder_images

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

Found: TypeAlias = tuple[list[Image], list[Skipped]]


def read(
    paths: str | Path | Sequence[str | Path],
    *,
    channel_names: Sequence[str] | None = None,
    panel: str | Path | pd.DataFrame | None = None,
    pixel_size: float | None = None,
) -> SpatialData:
    """Read multiplex images lazily into one SpatialData object.

    Parameters
    ----------
    paths
        A path or a list of paths. Each is one of

        - an OME-TIFF, QPTIFF, MIBItiff or TIFF stack, see :func:`nextmarker.io.read_tiff`;
        - an OME-Zarr image. It is read at full resolution, named like the store, with channels named by their `omero`
          labels. For a plate or a collection of several images, pass the paths of single images;
        - a folder with one TIFF per channel, or with one such folder per cycle, called `Cycle01` or similar, see
          :func:`nextmarker.io.read_folder`;
        - the output folder of MCMICRO, see :func:`nextmarker.io.read_mcmicro`;
        - an .mcd file or a .txt export (imaging mass cytometry), see :func:`nextmarker.io.read_mcd` and
          :func:`nextmarker.io.read_imc_txt`; an acquisition in both is read only once;
        - a steinbock directory, see :func:`nextmarker.io.read_steinbock`;
        - a folder with files of imaging mass cytometry, or with TIFF stacks, OME-Zarr images and folders with one TIFF
          per channel. Images in deeper folders are read only if you pass these folders.
    channel_names
        Names of the channels of every TIFF stack and OME-Zarr image, in the order of the file. Required if the header
        has none, or if a TIFF stores its channels as colours, time points or z-planes, see
        :func:`nextmarker.io.read_tiff`. In a folder with one TIFF per channel, the names come from the files or their
        headers; in imaging mass cytometry, from the labels.
    panel
        Channels to keep, with their order and new names: a CSV file in UTF-8, or a DataFrame, with the columns

        - `channel` (or `Metal Tag`): the metal, or the name in the file;
        - `name` (or `Target`): the new name; if empty, the channel keeps its name;
        - `keep` (or `full`), optional: 1, or 0 or empty for channels to drop.

        Other columns are ignored, and channels that are not in the panel are dropped. The panel applies to all images;
        if an image lacks some of the channels, it is read without them, with a note in the report.
    pixel_size
        Micrometres per pixel of all images, 0.01 to 100; it overrides the files. By default the pixel size in each
        file; if a file has none, 1 for imaging mass cytometry, otherwise unknown. If a file states a pixel size in a
        unit that is not a length, it is ignored, with a note in the report.

    Returns
    -------
    SpatialData with

    ``sdata.images[name]``
        Raw counts, (c, y, x), in the data type of the file, with the channel names in ``c``; a dask array, in blocks of
        about 1024 x 1024 pixels and one channel, or all channels if the file stores them together. The name is that of
        the file, folder or acquisition. Characters that spatialdata cannot write become ``_``, and repeated names get a
        number.
    ``sdata.labels["masks_" + name]``
        Segmentation masks, int (y, x), if they come with the image.
    coordinate systems
        One for each image, with its name, in micrometres if the pixel size is known, otherwise in pixels. All images
        with a known pixel size are also in the system ``"micrometre"``, from which every step takes the pixel size.
    ``sdata.attrs["nextmarker_pixel_size"]``
        Micrometres per pixel, by image, if known.
    ``sdata.attrs["nextmarker_channels"]``
        ``name``, ``original_name`` and ``metal`` of the channels, by image, if known.
    ``sdata.attrs["nextmarker_acquisitions"]``
        Information on the acquisition, by image, if known: ``sample``, ``acquisition`` (its number), ``description``,
        ``start_time``, ``end_time``, ``slide_x`` and ``slide_y`` (micrometres on the slide).
    ``sdata.attrs["nextmarker_report"]``
        What was read or skipped, and why, see :func:`nextmarker.io.report`.

    Raises
    ------
    FileNotFoundError
        If a path does not exist.
    TypeError
        If `paths` contains anything but paths, `channel_names` are not strings, `pixel_size` is not a number, or
        `panel` is neither a path nor a DataFrame.
    ValueError
        If an image is given twice, by its path or with its folder; if no image can be read (the message gives the
        reason for each file); or if the panel is not valid, or keeps a channel that no image has.

    Warns
    -----
    UserWarning
        If something was skipped or changed: files or acquisitions that cannot be read; files with a single unnamed
        plane, such as masks, in a folder of stacks; stacks in a subfolder; repeated channel names.
        Also if channels have no antibody: gases (argon, krypton, xenon), background, iodine, barium or lead without a
        label, and in MIBI elements such as carbon, calcium, iron, sodium or gold.

    Notes
    -----
    Labels of imaging mass cytometry are reduced to marker names: ``Cytoker_651((3356))Pr141`` becomes ``Cytoker``. The
    metal of the channel is removed from the start or end of its label, and a number in double brackets, with the number
    before it, from the end. If nothing is left, the name is the metal, ``Ag107``; if two labels would get the same
    name, the metal is appended to both. Channels without an antibody, such as argon and xenon, are also read; a warning
    names them, and `panel` can drop them.

    Images keep their panels, which may differ; :func:`nextmarker.pp.match_panels` gives them the same channels.

    Examples
    --------
    >>> import tempfile, numpy as np, tifffile, nextmarker as nm
    >>> folder = tempfile.TemporaryDirectory()
    >>> header = {"axes": "CYX", "Channel": {"Name": ["DNA1", "CD3"]}, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    >>> for core in ["core 1", "core 2"]:
    ...     tifffile.imwrite(f"{folder.name}/{core}.ome.tif", np.ones((2, 30, 40), np.uint16), metadata=header)
    >>> sdata = nm.io.read(folder.name)
    >>> list(sdata.images), sdata["core_1"]["c"].values.tolist()
    (['core_1', 'core_2'], ['DNA1', 'CD3'])
    >>> sdata.attrs["nextmarker_pixel_size"]
    {'core_1': 0.5, 'core_2': 0.5}
    >>> folder.cleanup()
    """
    check_arguments(channel_names, pixel_size)
    given = _as_paths(paths)
    images, skipped = _read_all(given, channel_names, pixel_size)
    return to_spatialdata(*choose_channels(images, skipped, panel))


def _as_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    several = [paths] if isinstance(paths, str) or not isinstance(paths, Iterable) else list(paths)
    if not all(isinstance(path, (str, Path)) for path in several):
        msg = f"paths={paths!r} must be a path or a list of paths."
        raise TypeError(msg)
    if not several:
        msg = "paths is empty. Pass at least one file or folder."
        raise ValueError(msg)
    return [Path(path).expanduser() for path in several]


def _read_all(paths: Sequence[Path], channel_names: Sequence[str] | None, pixel_size: float | None) -> Found:
    """Read everything that can be read, and each acquisition once, from its .mcd file or its export."""
    exports = {export.resolve() for path in paths if mcd.is_mcd(path) for export in txt.exports_of(path)}
    images: list[Image] = []
    skipped: list[Skipped] = []
    known: set[Path] = set()
    for path in paths:
        if path.resolve() in exports:
            continue
        try:
            found, left_out = _read_path(path, channel_names, pixel_size)
        except ValueError as error:
            if len(paths) == 1:
                raise
            found, left_out = [], [Skipped(str(path), str(error))]
        _check_new(found, known)
        known |= {Path(image.source).resolve() for image in found}
        images += found
        skipped += left_out
    return images, skipped


def _check_new(images: Sequence[Image], known: set[Path]) -> None:
    """Raise an error for images that were already read from another path: their cells would count twice."""
    repeated = sorted({image.source for image in images if Path(image.source).resolve() in known})
    if repeated:
        msg = f"Given twice: {repeated}. Name each once."
        raise ValueError(msg)


def _read_path(path: Path, channel_names: Sequence[str] | None, pixel_size: float | None) -> Found:
    recover(path)
    if not path.exists():
        raise no_path(path, "file or folder")
    read_it = next(reader for recognises, reader in FORMATS if recognises(path))
    return read_it(path, channel_names, pixel_size)


def _imc_files(folder: Path) -> list[Path]:
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    return [entry for entry in entries if mcd.is_mcd(entry) or txt.is_export(entry)]


def _holds_imc(path: Path) -> bool:
    return path.is_dir() and bool(_imc_files(path))


def _read_imc_folder(folder: Path, channel_names: Sequence[str] | None, pixel_size: float | None) -> Found:
    images, skipped = _read_all(_imc_files(folder), channel_names, pixel_size)
    tiffs = [file.name for file in tiff_files(folder)]
    if tiffs:
        skipped.append(Skipped(str(folder), f"TIFF files next to .mcd or .txt files were left out: {tiffs}"))
    return images, skipped


def _read_folder(path: Path, channel_names: Sequence[str] | None, pixel_size: float | None) -> Found:
    images, skipped = folder_images(path, channel_names, pixel_size)
    if not images and not skipped:
        msg = (
            f"No images in {path}: no TIFF files or folders of them, OME-Zarr, or .mcd and .txt files of imaging mass "
            f"cytometry. It contains {listed(path)}."
        )
        raise ValueError(msg)
    return images, skipped


# Recognised in this order.
FORMATS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Sequence[str] | None, float | None], Found]], ...] = (
    (mcd.is_mcd, lambda path, _, pixel_size: mcd.read_all(path, pixel_size)),
    (txt.is_export, lambda path, _, pixel_size: txt.read_alone(path, pixel_size)),
    (is_zarr, zarr_images),
    (steinbock.is_steinbock, lambda path, _, pixel_size: steinbock.read_all(path, pixel_size)),
    (_holds_imc, _read_imc_folder),
    (Path.is_dir, _read_folder),
    (lambda path: True, file_images),
)
