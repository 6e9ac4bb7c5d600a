"""Functions compiled for a CPU, and called in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numba
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile at the first call, and keep the result for other processes where there is a folder for it."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no folder that can be written to
        return numba.njit(function, **options)


def in_threads(count: int, work: Callable[[int, int], None]) -> None:
    """Call `work(first, last)` for equal parts of `range(count)`, each in a thread."""
    threads = max(min(torch.get_num_threads(), count), 1)
    edges = [count * number // threads for number in range(threads + 1)]
    if threads == 1:  # starting a thread takes as long as the work of a small batch
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))


@contextmanager
def tasks_in_threads(device: torch.device) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` whose tasks run next to each other on a CPU, each in one thread, and one by one on another device.

    With small tensors, that is several times as fast as tasks that follow each other, each in all threads.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield map
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            try:
                yield pool.map
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        torch.set_num_threads(threads)
