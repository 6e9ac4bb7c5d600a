"""Computes something for each image, here or on workers, keeps the results, and shows the progress."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextmarker._checkpoint import Checkpoint, digest
from nextmarker._progress import ignore, progress_bar
from nextmarker._tiles import fingerprint
from nextmarker._workers import active_client, compute_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import xarray as xr

    from nextmarker._progress import Advance

_FINGERPRINT = "fingerprint"


class Job(NamedTuple):
    """What is to be computed from an image, or from a part of it."""

    image: str
    """Name of the image."""
    pixels: xr.DataArray
    """The image, lazy, with the channels that are used, (c, y, x)."""
    inputs: Callable[[], tuple[Any, ...]]
    """Makes the arguments of the function, shortly before it is called."""
    size: int
    """Amount of work, in the unit of the progress bar."""
    depends_on: Callable[[], Mapping[str, object]]
    """Lists all but the image that the result depends on: arrays, numbers and texts."""

    def key(self) -> str:
        """Digest of all that the result depends on, except the counts of the image."""
        names = self.pixels["c"].to_numpy().tolist()
        form = {"channels": names, "shape": self.pixels.shape, "dtype": str(self.pixels.dtype)}
        return digest(version=version("nextmarker"), image=self.image, **form, **self.depends_on())


def map_images(
    function: Callable[..., Mapping[str, np.ndarray]],
    jobs: Sequence[Job],
    *,
    step: str,
    title: str,
    unit: str,
    progress: bool,
    checkpoint: str | Path | None = None,
) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Call a function for each job, on the workers of dask.distributed if there is a client, otherwise here.

    A kept result is used if all that it depends on is unchanged, and so are the pixels in nine windows of the image.

    Parameters
    ----------
    function
        Called with the inputs of a job, and with a function that is told the work done since its last call. The result
        depends on nothing else. Function, inputs and result can be pickled.
    jobs
        What to compute.
    step
        Name of the subfolder of the checkpoint.
    title, unit
        Of the progress bar.
    checkpoint
        The folder in which each result is kept at once; None for none.

    Yields
    ------
    The number of a job and its result, as they are finished.
    """
    kept = None if checkpoint is None else Checkpoint(checkpoint, step)
    keys = [] if kept is None else _plan(kept, jobs)
    with progress_bar(sum(job.size for job in jobs), title, unit, shown=progress) as bar:
        new = []
        for number, job in enumerate(jobs):
            result = None if kept is None else _find(kept, keys[number], job)
            if result is None:
                new.append(number)
            else:
                bar.update(job.size)
                yield number, result
        for at, result in _results(function, [jobs[number] for number in new], bar, fingerprinted=kept is not None):
            if kept is not None:
                kept.keep(keys[new[at]], result)
            yield new[at], result


def _results(
    function: Callable[..., Mapping[str, np.ndarray]], jobs: Sequence[Job], bar: Any, *, fingerprinted: bool
) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
    """Compute jobs here or on workers, and yield the number and the result of each, as they are finished."""
    client = active_client()
    if client is None:
        for number, job in enumerate(jobs):
            done = bar.n
            result = _task(function, job, fingerprinted)(bar.update)
            bar.update(done + job.size - bar.n)
            yield number, result
    else:
        tasks = [(f"image {job.image!r}", partial(_task, function, job, fingerprinted)) for job in jobs]
        for number, result in compute_on(client, tasks):
            bar.update(jobs[number].size)
            yield number, result


def _task(function: Callable[..., Mapping[str, np.ndarray]], job: Job, fingerprinted: bool) -> partial[Any]:
    """Make a task of a job."""
    return partial(_compute, function, job.inputs(), (job.image, job.pixels) if fingerprinted else None)


def _plan(kept: Checkpoint, jobs: Sequence[Job]) -> list[str]:
    """Write the plan of a checkpoint, and return the key of each job."""
    keys = [job.key() for job in jobs]
    files: dict[str, list[str]] = {}
    for job, key in zip(jobs, keys, strict=True):
        files.setdefault(job.image, []).append(key)
    kept.plan("image", len(files), files)
    return keys


def _find(kept: Checkpoint, key: str, job: Job) -> Mapping[str, np.ndarray] | None:
    """Find a kept result that belongs to the present pixels."""
    result = kept.find(key)
    if result is None or not np.array_equal(result.get(_FINGERPRINT, ()), fingerprint(job.image, job.pixels)):
        return None
    return result


def _compute(
    function: Callable[..., Mapping[str, np.ndarray]],
    inputs: tuple[Any, ...],
    image: tuple[str, xr.DataArray] | None,
    advance: Advance = ignore,
) -> Mapping[str, np.ndarray]:
    result = function(*inputs, advance)
    return result if image is None else {**result, _FINGERPRINT: fingerprint(*image)}
