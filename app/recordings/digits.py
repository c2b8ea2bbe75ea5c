"""Columns of a link: integers as printable characters, small ones as one.

A number's lowest digit comes first, and a digit tells whether another follows. Knows no recordings.
"""

from collections.abc import Sequence
from itertools import accumulate

from d2f.errors import InvalidInput

from .recording import require

DIGITS = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"\\')
BASE = len(DIGITS) // 2
VALUES = {character: digit for digit, character in enumerate(DIGITS)}
MAX_DIGITS = 8


def pack(numbers: Sequence[int]) -> str:
    """Integers >= 0 as printable characters, lowest digit first; one below ``BASE`` takes one."""
    return "".join(_digits(number) for number in numbers)


def _digits(number: int) -> str:
    if number < 0:
        raise InvalidInput(f"cannot pack {number}")
    if number < BASE:
        return DIGITS[number]
    return DIGITS[BASE + number % BASE] + _digits(number // BASE)


def unpack(text: str, most: int) -> list[int]:
    """Inverse of :func:`pack`; more than ``most`` numbers are refused."""
    require(isinstance(text, str), "a column must be text")
    require(len(text) <= most * MAX_DIGITS, "a column is too long")
    numbers, number, weight = [], 0, 1
    for character in text:
        digit = VALUES[character]
        number += digit % BASE * weight
        weight *= BASE
        require(weight <= BASE**MAX_DIGITS, "a number is too large")
        if digit < BASE:
            numbers.append(number)
            number, weight = 0, 1
    require(weight == 1 and len(numbers) <= most, "a column is too long")
    return numbers


def gaps_of(indexes: Sequence[int]) -> list[int]:
    """What lies between ascending indexes: small numbers."""
    return [index - before - 1 for before, index in zip([-1, *indexes], indexes, strict=False)]


def indexes_of(gaps: Sequence[int]) -> list[int]:
    return [total - 1 for total in accumulate(gap + 1 for gap in gaps)]
