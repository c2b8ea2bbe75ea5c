"""JSON as its standard has it: numbers are finite, in what is written and in what is read.

Python's own module writes ``NaN``, which no browser reads, and reads ``1e999`` as infinity. A
number of thousands of digits it reads in quadratic time, or refuses with advice for programmers.
"""

import json
import math
from typing import Any, NoReturn

from d2f.errors import InvalidInput

MAX_DIGITS = 1000


class NoJson(InvalidInput):
    """A text that is not JSON, or only the beginning of one."""


def to_json(value: Any, *, indent: int | None = None, ascii: bool = True) -> str:
    """Compact JSON text, or indented lines; ``ascii`` escapes all other characters.

    Raises:
        ValueError: a number is not finite.
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(
        value, allow_nan=False, indent=indent, separators=separators, ensure_ascii=ascii
    )


def from_json(text: str | bytes) -> Any:
    """The value that a JSON text says.

    Raises:
        NoJson: it is none.
        InvalidInput: a number in it is not finite or too long, or it is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except InvalidInput:
        raise
    except RecursionError as error:
        raise InvalidInput("the JSON is nested too deeply") from error
    except ValueError as error:
        raise NoJson(f"it is no JSON: {error}") from error


def _whole(digits: str) -> int:
    return int(_short(digits))


def _finite(digits: str) -> float:
    return value if math.isfinite(value := float(_short(digits))) else _refuse(digits)


def _short(digits: str) -> str:
    if len(digits) > MAX_DIGITS:
        raise InvalidInput(f"a number in the JSON has more than {MAX_DIGITS:,} digits")
    return digits


def _refuse(number: str) -> NoReturn:
    shown = number if len(number) <= 20 else f"{number[:20]}…"
    raise InvalidInput(f"JSON holds finite numbers only, got {shown}")
