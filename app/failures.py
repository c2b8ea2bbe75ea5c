"""Failures in words: one for the user is told as it is, any other is logged and told by a number.

The number follows from the places in the code that a failure came through. So the log has it,
even where it leaves out the tracebacks that it has already. Knows nothing of gradio.
"""

import logging
import traceback
from hashlib import sha256

from d2f.errors import D2FError

DIGITS = 6


def words(error: BaseException) -> str:
    """What the user is told; a failure that is not for the user is logged with its traceback."""
    if isinstance(error, D2FError):
        return str(error)
    number = log_number(error)
    logging.getLogger(__name__).error("Failure %s", number, exc_info=error)
    return f"Something went wrong on the server. Its log has details under {number}."


def log_number(error: BaseException) -> str:
    """The same digits for every failure of one kind and place, those of other processes too."""
    # A process that computes sends its traceback as the text of a cause.
    lines = "".join(traceback.format_exception(error)).splitlines()
    places = [line.strip() for line in lines if line.lstrip().startswith("File ")]
    return sha256("\n".join([type(error).__name__, *places]).encode()).hexdigest()[:DIGITS]
