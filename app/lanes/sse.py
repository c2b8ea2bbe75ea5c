"""Server-sent events from bytes as they come.

Not httpx-sse: it gives out an event whose lines end in CR only with the bytes that follow, drops
one without a blank line behind it, bounds no line, and replaces characters that are cut.
"""

import re
from collections.abc import Iterator

from ..characters import read
from .server import RemoteError

MAX_LINE = MAX_EVENT = 1_048_576  # bytes; characters
LINE_END = re.compile(b"\r\n|\r|\n")
BYTE_ORDER_MARK = "\ufeff"
# What follows no whole object in JSON: the next event, of a server that leaves out the blank line.
NEXT = ("{", "[DONE]")

Event = tuple[str, str]  # kind and data


class EventParser:
    """Takes bytes cut anywhere; a line may end in LF, CR or both."""

    def __init__(self) -> None:
        self._line, self._after_cr, self._first = b"", False, True
        self._kind = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Event]:
        """The events that are whole with these bytes."""
        if self._after_cr:
            part = part.removeprefix(b"\n")
        self._after_cr = part.endswith(b"\r")
        first, *more = LINE_END.split(part)
        *lines, self._line = self._line + first, *more
        if len(self._line) > MAX_LINE:
            raise RemoteError(f"sent a line longer than {MAX_LINE:,} bytes.")
        for line in lines:
            yield from self._take(read(line))

    def end(self) -> Iterator[Event]:
        """The bytes are over: an event that no blank line has ended."""
        yield from self.feed(b"\n\n")

    def _take(self, line: str) -> Iterator[Event]:
        if self._first:
            line, self._first = line.removeprefix(BYTE_ORDER_MARK), False
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            if self._data and self._data[-1].endswith("}") and value.startswith(NEXT):
                yield from self._told()
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise RemoteError(f"sent an event longer than {MAX_EVENT:,} characters.")
        elif not line:
            yield from self._told()

    def _told(self) -> Iterator[Event]:
        if self._data:
            yield self._kind, "\n".join(self._data)
        self._kind, self._data, self._size = "", [], 0
