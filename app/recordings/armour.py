"""A link's text through chats and mails: what they put in, encode or add, taken out again.

The alphabet of a link is known, so nothing else in its text is of the link. Knows no recordings.
"""

import re
from urllib.parse import unquote

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
