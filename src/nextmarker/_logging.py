"""Messages of steps while they run: the logger "nextmarker", on stdout unless the user has set it up before.

>>> import logging
>>> logging.getLogger("nextmarker").setLevel(logging.WARNING)  # no more messages
>>> logging.getLogger("nextmarker").setLevel(logging.INFO)
"""

from __future__ import annotations

import logging

logger = logging.getLogger("nextmarker")


class _Printer(logging.Handler):
    """Prints messages to the stdout of the moment, which notebooks and tests replace."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record))


def _set_up() -> None:
    """Print messages once, not again through the root logger, and leave what the user has set as it is."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not logger.handlers:
        logger.addHandler(_Printer())
        logger.propagate = False


_set_up()
