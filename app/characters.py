"""Text that was cut at any place, made whole: what UTF-8 cannot hold goes no further.

A stream is cut where its server likes. A part of a character then comes as a surrogate, from an
escape of JSON, or as bytes that are no UTF-8, which :func:`read` keeps as ``surrogateescape`` does.
"""

import re

# Bytes as ``surrogateescape`` keeps them: those of a surrogate that was written as a character,
SURROGATE = re.compile("\udced[\udca0-\udcbf][\udc80-\udcbf]")
# any in a row,
BYTES = re.compile("[\udc80-\udcff]+")
# and the beginning of a character at the end of a text, in either form.
BEGUN = re.compile(
    "([\ud800-\udbff]|[\udcc2-\udcdf]|[\udce0-\udcef][\udc80-\udcbf]?"
    "|[\udcf0-\udcf4][\udc80-\udcbf]{0,2})\\Z"
)


def read(data: bytes) -> str:
    """UTF-8, with what is none of it kept for :func:`divide`."""
    return data.decode("utf-8", "surrogateescape")


def divide(text: str) -> tuple[str, str]:
    """What is whole by now, and an end that may be the beginning of a character.

    Put the end before the next piece. What no piece can complete is U+FFFD already.
    """
    text = _joined(SURROGATE.sub(_surrogate, text))
    begun = BEGUN.search(text)
    rest = begun[0] if begun else ""
    return _replaced(text[: len(text) - len(rest)]), rest


def whole(text: str) -> str:
    """The text that nothing follows: a part of a character that stands alone is U+FFFD."""
    ready, rest = divide(text)
    return ready + _replaced(rest)


def _surrogate(found: re.Match[str]) -> str:
    return found[0].encode("utf-8", "surrogateescape").decode("utf-8", "surrogatepass")


def _joined(text: str) -> str:
    """Each two halves that meet as one character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _replaced(text: str) -> str:
    read_again = BYTES.sub(lambda found: _bytes(found).decode("utf-8", "replace"), text)
    return read_again.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _bytes(found: re.Match[str]) -> bytes:
    return found[0].encode("utf-8", "surrogateescape")
