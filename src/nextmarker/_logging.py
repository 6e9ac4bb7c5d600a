"""The logger "nextmarker", for messages of running steps; prints to stdout unless the user has configured it.

>>> import logging
>>> logging.getLogger("nextmarker").setLevel(logging.WARNING)  # no more messages
>>> logging.getLogger("nextmarker").setLevel(logging.INFO)
"""

from __future__ import annotations

import logging

logger = logging.getLogger("nextmarker")


class _Printer(logging.Handler):
    """Prints messages to the current stdout, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record))


def _set_up() -> None:
    """Print each message once, not again through the root logger; keep the user's configuration."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Printer())
        logger.propagate = False


_set_up()
