"""A log within bounds: what repeats is left out and counted, what is long is cut."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..failures import log_number
from ..page.quota import Quota

REPEATS, TOGETHER, SECONDS = 3, 100, 60.0
MAX_MESSAGE, MAX_TRACEBACK = 1_000, 10_000  # characters


class Brief(logging.Filter):
    """Lets a few records of one kind through within a time, and so many of all kinds.

    Those of one kind come from one place, with an exception that came through the same places. The
    next record that is let through says how many were left out.
    """

    def __init__(
        self, repeats: int = REPEATS, together: int = TOGETHER, seconds: float = SECONDS
    ) -> None:
        super().__init__()
        self._quota, self._left_out = Quota(repeats, together, seconds), 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written, by whichever handler asks."""
        seen = vars(record)
        if "written" not in seen:
            seen["written"] = self._quota.take(_kind(record))
            if seen["written"]:
                self._shorten(record)
            else:
                self._left_out += 1
        return bool(seen["written"])

    def _shorten(self, record: logging.LogRecord) -> None:
        message = cut(record.getMessage(), MAX_MESSAGE)
        if self._left_out:
            message += f" ({self._left_out} similar messages were left out before this one.)"
            self._left_out = 0
        record.msg, record.args = message, ()
        if record.exc_info:
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = cut(text, MAX_TRACEBACK)


def _kind(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    number = log_number(error) if error else ""
    place = f"{record.name}:{record.lineno}"[-48:]
    return f"{number}:{place}"


def cut(text: str, most: int) -> str:
    """A text without its middle, if it is too long."""
    left_out = len(text) - most
    if left_out <= 0:
        return text
    half = most // 2
    return f"{text[:half]} … {left_out:,} characters left out … {text[-half:]}"


@contextmanager
def brief_log() -> Iterator[None]:
    """Every handler that there is now keeps to these bounds, as long as the context lasts."""
    brief = Brief()
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    if logging.lastResort is not None:
        handlers.add(logging.lastResort)
    for handler in handlers:
        handler.addFilter(brief)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(brief)
