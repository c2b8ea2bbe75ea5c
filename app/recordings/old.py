"""Recordings of older formats, turned into today's.

Format 1, of files and links, told in the device's words what fields tell since. Links of formats
1 and 2 packed integers into characters, the lowest digit first; a digit told whether another
followed.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, islice
from typing import Annotated, Any

from pydantic import Field

from d2f.config import MAX_TOKENS
from d2f.events import CLIENT, TraceHeader
from d2f.model_files import Fields

from .limits import MAX_LANES, few
from .refusals import require

_CLIENT_TIMED = re.compile("client-timed, (.+?)(, tokens by its own count)?")
DIGITS = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"\\')
BASE = len(DIGITS) // 2
VALUES = {character: digit for digit, character in enumerate(DIGITS)}
MAX_DIGITS = 8
SEPARATOR = "\x7f"  # between texts
HEAD = 9  # parts of a lane's head up to the answer
LEVELS = (*range(100, 90, -1), *range(90, -1, -5))  # hundredths, by their number
SHARED = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
# The settings of a lane, in the order in which an old link has them.
SETTINGS = {
    "d2f": (
        *(*SHARED, "block_size", "tau_add", "tau_act", "tau_conf"),
        *("max_active_blocks", "early_stop"),
    ),
    "ar": SHARED,
    "vanilla": (*SHARED, "tokens_per_step", "block_size"),
}
SETTINGS_PLACE = 2  # in a lane's head
COLUMNS = "its columns are not those of a race"

Packed = Annotated[str, Field(pattern=r"^[!#-\[\]-~]*$", max_length=MAX_TOKENS * MAX_DIGITS)]


class OldLane(Fields):
    """A lane of an old link: its head, and columns."""

    head: Annotated[list[Any], few(HEAD + 3, COLUMNS, least=HEAD)]
    texts: str
    steps: Annotated[tuple[Packed, Packed, Packed], Field(strict=False)]
    levels: Packed
    times: Annotated[tuple[int, Packed], Field(strict=False)]


def modern_header(header: TraceHeader) -> TraceHeader:
    """The header of a recording of format 1, as it would be written today."""
    client = _CLIENT_TIMED.fullmatch(header.device)
    if client:
        host, counted = client[1], bool(client[2])
        return replace(header, device="unknown", clock=CLIENT, host=host, counted=counted)
    device, at, host = header.device.rpartition(", at ")
    return replace(header, device=device, host=host) if at else header


def modern_link(data: list[Any]) -> list[Any]:
    """The parts of a link of any format, in the order of today's."""
    if type(data[0]) is not int or data[0] > 2:
        return data
    head, columns, past = data[:4], data[4:9], data[9:]
    listed = len(columns) == 5 and all(isinstance(column, list) for column in columns)
    require(listed and len({len(column) for column in columns}) == 1, COLUMNS)
    require(len(columns[0]) <= MAX_LANES, "a race has one or two lanes")
    lanes = [
        OldLane.model_validate(dict(zip(OldLane.model_fields, lane, strict=True)))
        for lane in zip(*columns, strict=True)
    ]
    return [*head, [_modern_lane(lane) for lane in lanes], *past]


def _modern_lane(lane: OldLane) -> list[Any]:
    counts, gaps, stops = map(unpack, lane.steps)
    levels, (tick, packed) = unpack(lane.levels), lane.times
    require(sum(counts) == len(gaps), "a column is too long")
    require(max(levels, default=0) < len(LEVELS), "a confidence is out of range")
    left = iter(gaps)
    steps = [list(islice(left, count)) for count in counts]
    # Counted first: a text of separators alone would split into a million.
    told = lane.texts.count(SEPARATOR) == max(len(gaps) - 1, 0)
    require(told and bool(gaps or not lane.texts), "a lane must have a text for every token")
    texts = lane.texts.split(SEPARATOR) if gaps else []
    columns = [texts, steps, indexes_of(stops), [LEVELS[level] for level in levels]]
    head = [*lane.head[:HEAD]]
    head[SETTINGS_PLACE] = _settings(*head[1:3])
    return [*head, *columns, tick, _times(unpack(packed)), *lane.head[HEAD:]]


def _settings(decoder: Any, values: Any) -> dict[str, Any]:
    """An old lane's settings by name."""
    require(isinstance(decoder, str) and decoder in SETTINGS, "its decoder is unknown")
    order = SETTINGS[decoder]
    listed = isinstance(values, list) and len(values) == len(order)
    require(listed, "its settings are not those of its decoder")
    return dict(zip(order, values, strict=True))


def _times(numbers: Sequence[int]) -> list[int]:
    """Steps in ticks: the first number is the median, each other tells how far one is from it."""
    require(bool(numbers), "a lane must have a time for every step")
    middle, *apart = numbers
    return [middle + (far // 2 if far % 2 == 0 else -(far + 1) // 2) for far in apart]


def unpack(text: str) -> list[int]:
    """The integers that were packed into a text."""
    numbers, number, weight = [], 0, 1
    for character in text:
        digit = VALUES[character]
        number += digit % BASE * weight
        weight *= BASE
        require(weight <= BASE**MAX_DIGITS, "a number is too large")
        if digit < BASE:
            numbers.append(number)
            number, weight = 0, 1
    require(weight == 1 and len(numbers) <= MAX_TOKENS + 1, "a column is too long")
    return numbers


def indexes_of(gaps: Sequence[int]) -> list[int]:
    """Ascending indexes, from what lies between them."""
    return [total - 1 for total in accumulate(gap + 1 for gap in gaps)]
