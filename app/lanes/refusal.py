"""A server's own words for why it refuses, and the field that it names. Sends nothing."""

import json
import re
from collections.abc import Container, Iterator
from typing import Any

import httpx

from ..characters import whole

MAX_REFUSAL = 65_536  # bytes
MAX_QUOTE = 120  # characters of a server's own words
DEPTH = 5  # of an error in an error
PLACES = ("error", "message", "detail", "details", "errors", "msg", "error_message", "text")
ADAPTABLE = (400, 422)  # statuses of a request that may be asked otherwise
# How a server says that it does not know a field, rather than that a value is wrong.
UNKNOWN = re.compile(
    "unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed"
    "|cannot find|deprecated",
    re.IGNORECASE,
)


async def read_refusal(response: httpx.Response) -> Any:
    """The JSON of an answer that is no stream; None where it is none, or far too long.

    What a strict server says of a request's fields may be plain text.
    """
    body = b""
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_REFUSAL:
            return None
    text = body.decode("utf-8-sig", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        plain = response.headers.get("content-type", "").startswith("text/plain")
        return text if plain and response.status_code in ADAPTABLE else None


def told(status: int, refusal: Any, model: str) -> str:
    """A refusal in words, by its HTTP status."""
    said = words(refusal)
    if status in (401, 403):
        return f"refused the API key ({status}){said}."
    if status == 404:
        asked = f"the model {quote(model)} or " if model else ""
        return f"does not know {asked}the address asked for (404){said}."
    if status == 407:
        return f"was not asked: the proxy wants a name and a password (407){said}."
    if status in (429, 503):
        return f"is busy ({status}){said}."
    return f"answered with HTTP status {status}{said}."


def words(refusal: Any) -> str:
    """What a server says of its error, where it says it in one of the usual places."""
    said = text_of(refusal)
    return f": {quote(said)}" if said else ""


def text_of(refusal: Any, depth: int = DEPTH) -> str:
    """The words of an error, of any of the usual shapes, in full."""
    if isinstance(refusal, str):
        return refusal.strip()
    if not depth:
        return ""
    if isinstance(refusal, list):
        return "; ".join(filter(None, (text_of(each, depth - 1) for each in refusal)))
    if not isinstance(refusal, dict):
        return ""
    said = next(filter(None, (text_of(refusal.get(n), depth - 1) for n in PLACES)), "")
    where = ".".join(str(part) for part in _location(refusal))
    return f"{where}: {said}" if where and said else said


def named_fields(refusal: Any, fields: Container[str], optional: Container[str]) -> list[str]:
    """The request's fields that a refusal is about: those it points at, else what it mentions.

    Only ``optional`` ones count as mentioned, since others, such as ``model``, are plain words.
    """
    pointed = [name for name in _pointed(refusal) if name in fields]
    return pointed or [word for word in re.findall(r"\w+", text_of(refusal)) if word in optional]


def _pointed(refusal: Any, depth: int = DEPTH) -> Iterator[str]:
    if not depth:
        return
    if isinstance(refusal, list):
        for each in refusal:
            yield from _pointed(each, depth - 1)
    elif isinstance(refusal, dict):
        names = (refusal.get("param"), *_location(refusal))
        yield from (name for name in names if isinstance(name, str))
        for place in PLACES:
            yield from _pointed(refusal.get(place), depth - 1)


def _location(refusal: dict[str, Any]) -> list[Any]:
    """Where in the request, as pydantic says it."""
    where = refusal.get("loc")
    return [part for part in where if part != "body"] if isinstance(where, list) else []


def quote(text: Any) -> str:
    """A stranger's words: one short line of printable characters."""
    clean = whole(str(text))
    line = " ".join("".join(c if c.isprintable() else " " for c in clean).split())
    line = line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1] + "…"
    return f"“{line.removesuffix('.')}”"
