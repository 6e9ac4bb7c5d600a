"""Progress bars."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

Advance = Callable[[float], object]
"""Is told the amount of work done since its last call."""


def progress_bar(total: float, title: str, unit: str, *, shown: bool = True) -> Any:
    """Make a progress bar with rate and time left; in a log file, it is one line when it is finished."""
    quiet: dict[str, Any] = {} if sys.stderr.isatty() else {"mininterval": float("inf"), "delay": 1e-9}
    return tqdm(total=total, desc=title, unit=unit, unit_scale=unit == "px", disable=not shown, **quiet)


def ignore(amount: float) -> None:
    """Show no progress."""
