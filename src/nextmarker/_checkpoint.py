"""Results kept in a folder, so that a killed computation goes on. Nothing in the folder is ever executed.

Each step has a subfolder with a plan, what it is to compute, and one file of arrays for each image, or for the
training. Files are named by a digest of all that their content depends on, so those of other parameters are never
found. Every file appears when it is complete.
"""

from __future__ import annotations

import json
import zipfile
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nextmarker._files import not_writable, replaced_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DETECTION = "detect_cells"
STEPS = ("estimate_diameter", DETECTION, "mean_intensity", "train", "embed")
"""The steps whose results can be kept, in the order of an analysis."""
LOSS = "loss"
"""The array of a training with a value for each step done."""
CENTRES = "centres"
"""The array of a detection with a row for each cell."""

_PLAN = "plan.json"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, RuntimeError, TypeError, zipfile.BadZipFile)


class Checkpoint:
    """The results of one step, kept in a folder.

    Parameters
    ----------
    folder
        The folder of an analysis, which is made if it does not exist.
    step
        One of `STEPS`.

    Raises
    ------
    FileNotFoundError
        If the parent of the folder does not exist.
    NotADirectoryError
        If `folder` is a file.
    PermissionError
        If the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, step: str) -> None:
        self._folder = Path(folder) / step
        _make(Path(folder))
        _make(self._folder)

    def plan(self, unit: str, total: int, files: Mapping[str, Sequence[str]]) -> None:
        """Write what the step is to compute, for `progress`.

        Parameters
        ----------
        unit
            `"image"`, or `"step"` for a training.
        total
            Number of images or steps.
        files
            Keys of the results of each image, or of the training.
        """
        content = json.dumps({"unit": unit, "total": total, "files": files})
        with replaced_files(self._folder) as drafts:
            (drafts / _PLAN).write_text(content)

    def find(self, key: str) -> dict[str, np.ndarray] | None:
        """Read a result; None if there is none, or its file is damaged."""
        return _read(self._folder / f"{key}.npz")

    def keep(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write a result, which replaces an earlier one."""
        with replaced_files(self._folder) as drafts:
            np.savez(drafts / f"{key}.npz", **arrays)  # type: ignore[arg-type]


def found_no_cells(folder: str | Path) -> bool:
    """Whether cells were looked for in all images, and none was found, so that there is nothing to go on with."""
    step = Path(folder) / DETECTION
    if not (step / _PLAN).is_file():
        return False
    found = _progress(step)
    kept = [_read(path, only=CENTRES) for path in step.glob("*.npz")]
    return found["done"] == found["total"] and not any(part and len(part[CENTRES]) for part in kept)


def progress(folder: str | Path) -> dict[str, dict[str, int | str]]:
    """Tell what a checkpoint holds.

    Parameters
    ----------
    folder
        The folder given as `checkpoint=...`.

    Returns
    -------
    For each step that was begun, in the order of an analysis: how many are `done` of a `total`, and the `unit`,
    `"image"` or `"step"`. An image that was replaced after its result was kept still counts as done.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = Checkpoint(folder, "embed")
    ...     kept.plan("image", 2, {"a": ["key of a"], "b": ["key of b"]})
    ...     kept.keep("key of a", {"values": np.ones(3)})
    ...     progress(folder)
    {'embed': {'done': 1, 'total': 2, 'unit': 'image'}}
    """
    folder = Path(folder)
    if not folder.is_dir():
        msg = f"No folder at {str(folder)!r}. Give the one of checkpoint=..."
        raise FileNotFoundError(msg)
    return {step: _progress(folder / step) for step in STEPS if (folder / step / _PLAN).is_file()}


def _progress(folder: Path) -> dict[str, int | str]:
    plan = json.loads((folder / _PLAN).read_text())
    paths = [[folder / f"{key}.npz" for key in keys] for keys in plan["files"].values()]
    if plan["unit"] == "step":
        found = [_read(path, only=LOSS) for part in paths for path in part]
        done = sum(len(kept[LOSS]) for kept in found if kept)
    else:
        done = sum(all(path.is_file() for path in part) for part in paths)
    return {"done": done, "total": plan["total"], "unit": plan["unit"]}


def digest(**parts: object) -> str:
    """Hash arrays, and anything else by how it is written in Python, 32 hexadecimal digits.

    Examples
    --------
    >>> import numpy as np
    >>> digest(image="a", centres=np.zeros((2, 2))) == digest(image="a", centres=np.zeros((4, 1)))
    False
    """
    content = blake2b(digest_size=16)
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            content.update(f"{name}: {part.dtype.str} {part.shape} ".encode())
            content.update(part.tobytes())
        else:
            content.update(f"{name}: {part!r};".encode())
    return content.hexdigest()


def _make(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        msg = f"checkpoint={str(folder)!r} is a file. Give the path of a folder."
        raise NotADirectoryError(msg)
    if not folder.parent.is_dir():
        msg = f"The folder {str(folder.parent)!r} does not exist. Create it, or choose another: checkpoint=..."
        raise FileNotFoundError(msg)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise not_writable(folder.parent, error) from error


def _read(path: Path, only: str | None = None) -> dict[str, np.ndarray] | None:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if only in (None, name)}
    except _DAMAGED:
        return None
