"""Hands work to the workers of dask.distributed, if the user has a client; none is ever started here."""

from __future__ import annotations

import sys
from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import dask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client, Future

TASKS_PER_THREAD = 2
"""Tasks that run or wait for each thread of the workers; the inputs of others take no memory yet."""


def active_client() -> Client | None:
    """Find the client in use; None if there is none, or within a task of a worker."""
    distributed = sys.modules.get("distributed")  # without a client, it may not even be imported
    if distributed is None or _in_task():
        return None
    try:
        return distributed.Client.current()
    except ValueError:
        return None


def reading_scheduler() -> str:
    """How dask loads pixels: in this process, not by workers; in a task, or if the user asked for it, by one thread."""
    return "synchronous" if _in_task() or dask.config.get("scheduler", None) == "synchronous" else "threads"


def compute_on(
    client: Client, tasks: Sequence[tuple[str, Callable[[], Callable[[], Any]]]]
) -> Iterator[tuple[int, Any]]:
    """Compute tasks on the workers of a client, and yield the number and the result of each, as they are finished.

    Tasks of a worker that dies are computed by others.

    Parameters
    ----------
    tasks
        The name of each, and a function that makes it shortly before it is sent. A task is called without arguments.

    Raises
    ------
    RuntimeError
        If the workers have not the same version of nextmarker, or several have died while they computed the same task.
    """
    from distributed import KilledWorker, as_completed

    _check_versions(client)
    waiting = deque(enumerate(tasks))
    sent: dict[Future, int] = {}
    finished = as_completed()

    def send() -> None:
        most = max(TASKS_PER_THREAD * sum(client.nthreads().values()), 1)
        while waiting and len(sent) < most:
            number, (_, make) = waiting.popleft()
            future = client.submit(make(), pure=False)
            sent[future] = number
            finished.add(future)

    try:
        send()
        for future in finished:
            number = sent.pop(future)
            try:
                result = future.result()
            except KilledWorker as error:
                msg = f"Workers died again and again in {tasks[number][0]}, perhaps for lack of memory. Give them more."
                raise RuntimeError(msg) from error
            future.release()
            yield number, result
            send()
    finally:
        client.cancel(list(sent))


def _check_versions(client: Client) -> None:
    """Raise an error for workers with another version or none, which would wait forever or give other results."""
    ours = version("nextmarker")
    found = client.run(version, "nextmarker", on_error="return")
    others = [theirs for theirs in found.values() if theirs != ours]
    if others:
        there = others[0] if isinstance(others[0], str) else "missing"
        msg = f"nextmarker is {there} on {len(others)} of {len(found)} workers, and {ours} here. Install the same: pip."
        raise RuntimeError(msg)


def _in_task() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True
