"""A link's text through chats and mails: what they put in, encode or add, taken out again.

The alphabet of a link is known, so nothing else in its text is of the link. Knows no recordings.
"""

import re
from urllib.parse import unquote

# What is put between characters: breaks of lines and soft ones of mail, spaces, what is invisible.
_BETWEEN = re.compile(r"=\r?\n>?|[\s\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u2064\ufeff>]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9_-]")
MOST_CODED = 3  # how often a link may have been percent-encoded on its way


def pieces(text: str) -> list[str]:
    """The parts of a text of the link's alphabet, the link first: it ends where one of them ends.

    A link that nothing was done to is one piece.
    """
    for _ in range(MOST_CODED):
        if "%" not in text:
            break
        text = unquote(text)
    found = []
    for part in _BETWEEN.split(text):
        part = part.translate({ord("+"): "-", ord("/"): "_"})
        foreign = _FOREIGN.search(part)
        found.append(part[: foreign.start()] if foreign else part)
        if foreign:
            break
    return [part for part in found if part]


def short_id(text: str) -> str:
    """The letters and digits that a decorated short link begins with."""
    found = pieces(text)
    # A mark at its end may be one of the link's alphabet too.
    return found[0].rstrip("-_") if found else ""
