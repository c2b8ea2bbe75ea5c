"""The outer form of a link: deflated, in letters, digits, ``-`` and ``_``, and safe from its way.

Chats and mails put something in, encode or add. The alphabet of a link is known, so nothing else in
its text is of the link. Knows no recordings.
"""

import base64
import re
import zlib
from itertools import accumulate
from urllib.parse import unquote

from .refusals import RecordingError, require

MAX_LINK = 65_536  # bytes, deflated
MAX_INFLATED = 1_048_576  # bytes

# What is put between characters: breaks of lines and soft ones of mail, spaces, what is invisible.
_INVISIBLE = (
    r"\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufe00-\ufe0f"
    r"\ufeff"
)
_BETWEEN = re.compile(rf"=\r?\n>?|[\s{_INVISIBLE}>]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
_MARK = re.compile(r"race=", re.IGNORECASE)
QUOTED = "3D"  # what quoted-printable mail puts behind the sign of "race="
MOST_CODED = 3  # how often a link may have been percent-encoded on its way


def unmarked(fragment: str) -> str | None:
    """What an address's fragment has behind ``race=``; None: it holds no race."""
    fragment = _decoded(fragment)
    found = _MARK.match(fragment)
    return fragment[found.end() :] if found else None


def pieces(text: str) -> list[str]:
    """The parts of a text of the link's alphabet, the link first: it ends where one of them ends.

    A link that nothing was done to is one piece.
    """
    found = []
    for part in _BETWEEN.split(_decoded(text)):
        part = part.translate({ord("+"): "-", ord("/"): "_"})
        foreign = _FOREIGN.search(part)
        found.append(part[: foreign.start()] if foreign else part)
        if foreign:
            break
    return [part for part in found if part]


def short_id(text: str, length: int) -> str:
    """The letters and digits that a decorated short link begins with; "" if they are not so many.

    They may be in pieces, of which the last ends with them.
    """
    told = ""
    for piece in pieces(text):
        told += piece
        if len(told) >= length:
            break
    told = told.rstrip("-_")  # a mark at its end may be one of the link's alphabet too
    return told.removeprefix(QUOTED) if len(told) == length + len(QUOTED) else told


def _decoded(text: str) -> str:
    for _ in range(MOST_CODED):
        coded, text = text, unquote(text)
        if text == coded:
            break
    return text


def deflated(text: str) -> str:
    """A link's text for its content."""
    content = text.encode()
    # With little memory it begins new codes more often: texts and numbers each have one that fits.
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 4)
    data = deflate.compress(content) + deflate.flush()
    require(len(content) <= MAX_INFLATED and len(data) <= MAX_LINK, "it is too long")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def inflated(text: str) -> str:
    """Inverse of :func:`deflated`, of a text that nothing is known of.

    Raises:
        ValueError: it is no link, or beyond a limit.
    """
    require(isinstance(text, str), "it is not text")
    # On its way every character may have become three, or nine.
    require(len(text) <= MAX_LINK * 12, f"it is longer than {MAX_LINK:,} bytes")
    found = pieces(text)
    ends = list(accumulate(map(len, found)))
    letters = "".join(found)
    whole = letters[: len(letters) - (len(letters) % 4 == 1)]
    data = base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))
    short = len(data) <= MAX_LINK or len(found) > 1
    require(short, f"it is longer than {MAX_LINK:,} bytes")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflate.decompress(data, MAX_INFLATED + 1)
    except zlib.error as error:
        raise RecordingError("it is damaged") from error
    require(len(content) <= MAX_INFLATED, f"it unfolds to more than {MAX_INFLATED:,} bytes")
    require(inflate.eof, "its end is missing")
    # What stands behind the end must be set apart from it: words of the text around the link.
    end = -((len(inflate.unused_data) - len(data)) * 8 // 6)
    behind = letters[end : next(each for each in ends if each >= end)]
    require(not behind.strip("-_"), "something follows its end")
    return content.decode()
