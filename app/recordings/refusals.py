"""Recordings that are refused, and the one sentence that says why.

A recording may come from anybody: whatever keeps it from being read becomes a RecordingError.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pydantic import ValidationError

from d2f.errors import InvalidInput, one_line

# Control characters but newline and tab, and surrogates, which no UTF-8 text can hold.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# What people call a value; others are named by their place in the file.
NAMES = {
    "format": "its format",
    "prompt": "the prompt",
    "verdict": "the verdict",
    "name": "the name of a lane",
    "text": "an answer",
    "texts": "the text of a token",
    "placed": "the text of a token",
    "model": "the model",
    "device": "the device",
    "dtype": "the dtype",
    "host": "the host",
    "clock": "its clock",
    "versions": "a version",
    "prompt_ids": "a token id",
    "stop_ids": "a token id",
    "token_id": "a token id",
    "seconds": "the time",
    "times": "the time",
    "tick": "the unit of time",
    "confidence": "a confidence",
    "confidences": "a confidence",
    "answers": "an earlier answer",
    "past.prompt": "an earlier prompt",
    "counted": "whether its tokens were counted",
}
# Types that pydantic asks for, in words.
TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}


class RecordingError(InvalidInput):
    """A recording is refused; the message tells a visitor why."""


def require(ok: bool, reason: str) -> None:
    """Refuses with ``reason`` what is not ``ok``."""
    if not ok:
        raise RecordingError(reason)


@contextmanager
def refusals(what: str = "") -> Iterator[None]:
    """Whatever is refused inside becomes a RecordingError that begins with ``what``."""
    try:
        yield
    except ValueError as error:
        reason = sentence(error) if isinstance(error, ValidationError) else str(error)
        text = f"{what}: {readable(reason, 200)}." if what else reason
        raise RecordingError(text) from error


def unreadable(text: str) -> str | None:
    """The first character that no screen shows, as U+ and its number."""
    found = _UNREADABLE.search(text)
    return f"U+{ord(found[0]):04X}" if found else None


def readable(text: str, most: int) -> str:
    """The text with U+FFFD for what no screen shows; beyond ``most`` characters an ellipsis."""
    clean = _UNREADABLE.sub("\ufffd", text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def sentence(error: ValidationError) -> str:
    """The first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    path, more = first["loc"], first.get("ctx", {})
    match first["type"]:
        case "value_error":
            return str(more["error"])
        case "missing":
            return f"{_place(path)} is missing"
        case kind if kind in TYPES:
            return f"{_name(path)} must be {TYPES[kind]}"
        case "string_too_long":
            return f"{_name(path)} is longer than {more['max_length']:,} characters"
        case "unreadable":
            return f"{_name(path)} {first['msg']}"
        case "greater_than_equal" | "less_than_equal":
            step = f" in step {path[path.index('events') + 1]}" if "events" in path else ""
            return f"{_name(path)} is out of range{step}"
    return f"{_name(path)} {first['msg'].replace('Input should be', 'must be')}"


def _name(path: Sequence[str | int]) -> str:
    parts = [part for part in path if part != "[key]"]
    names = [f"{path[0]}.{path[-1]}", *reversed(parts[-2:])]
    return next((NAMES[str(name)] for name in names if name in NAMES), _place(path))


def _place(path: Sequence[str | int]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return one_line("".join(parts).removeprefix("."), 100)
