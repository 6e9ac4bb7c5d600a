"""One line for each benchmark: what it did, both figures, their ratio, and the machine."""

from __future__ import annotations

import math
import os
import platform
import resource
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def report(task: str, figures: Mapping[str, str], ratio: float | None, note: str = "") -> None:
    """Print a line such as "import | nextmarker 0.20 s | limit 0.30 s | ratio 1.5 | 2 threads of ..., load 0.4"."""
    parts = [task, *(f"{name} {figure}" for name, figure in figures.items())]
    parts += [f"ratio {ratio:.2f}"] if ratio is not None else []
    print(" | ".join([*parts, *([note] if note else []), machine()]), flush=True)


def machine() -> str:
    """Processor, threads in use, and the load by everything that runs."""
    names = [line.partition(": ")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{torch.get_num_threads()} threads of {processor}, load {os.getloadavg()[0]:.1f}"


def best_of(rounds: int, functions: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Least seconds of several rounds, in which the functions take turns."""
    seconds = dict.fromkeys(functions, math.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            seconds[name] = min(seconds[name], seconds_of(function))
    return seconds


def seconds_of(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def time_both(function: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and its processor time, also of the processes it starts, which others hardly change."""
    before = sum(os.times()[:4])
    seconds = seconds_of(function)
    return seconds, sum(os.times()[:4]) - before


def peak_memory() -> float:
    """Most memory that this process has had, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
