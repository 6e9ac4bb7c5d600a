"""Progress bars."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

Advance = Callable[[float], object]
"""Is told the amount of work done since its last call."""


def progress_bar(total: float, title: str, unit: str, *, shown: bool = True) -> Any:
    """Make a progress bar with rate and time left; in a log file, it is one line, written at the end."""
    live = sys.stderr.isatty() or "ipykernel" in sys.modules
    once: dict[str, Any] = {} if live else {"mininterval": math.inf, "delay": 1e-9}  # no line at the start either
    return tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "px", disable=not shown, **once)


def ignore(amount: float) -> None:
    """Show no progress."""
