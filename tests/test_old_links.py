"""Links of formats 1 and 2, whose columns were packed into characters: they open as they did."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from test_link import BY_HAND, linked
from test_recording import mutate, scratch, survives

from app.recordings.link import from_link, to_link
from app.recordings.old import unpack
from app.recordings.recording import Recording
from app.recordings.refusals import RecordingError

OLD = Path(__file__).parent / "old"
PRINTABLE = "".join(map(chr, range(33, 127))).replace('"', "").replace("\\", "")


def column(*numbers: int) -> str:
    """Numbers in base 46, lowest digit first; the 46 upper characters say that more follows."""
    text = ""
    for number in numbers:
        while number >= 46:
            text, number = text + PRINTABLE[46 + number % 46], number // 46
        text += PRINTABLE[number]
    return text


PACKED = [
    2,
    "d2f-race",
    "Count to four.",
    "D2F is correct.",
    [
        [
            "D2F",
            "d2f",
            [8, 0.0, 1.0, 0, 0, 4, 0.5, 0.75, 0.9, None, True],
            "mini-d2f",
            "cpu (x86_64)",
            "float32",
            {"torch": "2.13.0"},
            3,
            None,
        ],
        ["AR", "ar", [8, 0.0, 1.0, 0, 0], "mini-ar", "cpu (x86_64)", "float32", {}, 3, "One."],
    ],
    ["one\x7f two\x7f three\x7f four\x7f!\x7f two\x7f<end>", "one\x7f<end>"],
    [
        # Commits a step; candidates passed over before each; the fourth commit is a stop.
        [column(2, 2, 2, 1), column(0, 1, 0, 3, 0, 0, 0), column(3)],
        [column(1, 1), column(0, 0), column(1)],
    ],
    [column(5, 3, 0, 8, 20, 9, 7), column(18, 0)],
    # In ticks of 500 and 200 microseconds: the middle step, then 60 50 50 48 and 150 60 against it.
    [[500, column(50, 20, 0, 0, 3)], [200, column(60, 180, 0)]],
]


def test_numbers_are_unpacked_lowest_digit_first() -> None:
    assert column(0, 45, 46, 2115, 2116) == "!OP#~OPP#"
    assert unpack("!OP#~OPP#") == [0, 45, 46, 2115, 2116]


@pytest.mark.parametrize("format", [1, 2])
def test_a_packed_link_made_by_hand_opens(format: int) -> None:
    assert from_link(linked([format, *PACKED[1:]])) == BY_HAND


@pytest.mark.parametrize("name", ["sudoku", "followed", "remote", "dice"])
def test_a_link_that_was_made_before_opens_as_it_did(name: str) -> None:
    """Each file was written from its link by the code of that time."""
    recording = from_link((OLD / f"linked-{name}.link").read_text(encoding="utf-8"))
    assert recording == Recording.from_json(
        (OLD / f"linked-{name}.json").read_text(encoding="utf-8")
    )
    assert from_link(to_link(recording)) == recording


LIMITS: list[tuple[tuple[int, ...], Any, str]] = [
    ((0,), 0, "its format must be 1 or 2 or 3"),
    ((4,), [], "its columns are not those of a race"),
    ((4,), [0, 0, 0], "its columns are not those of a race"),
    ((4,), "ab", "its columns are not those of a race"),
    ((8,), 0, "its columns are not those of a race"),
    ((4, 0), [], "its columns are not those of a race"),
    ((4, 0, 1), "eagle", "its decoder is unknown"),
    ((4, 0, 2), [8], "its settings are not those of its decoder"),
    ((5, 0), "one", "a lane must have a text for every token"),
    ((5, 0), "\x7f" * 150_000, "a lane must have a text for every token"),
    ((5, 0), "x" * 201 + "\x7f" * 6, "the text of a token is longer than 200 characters"),
    ((5, 0), ["one"], "the text of a token must be text"),
    ((6, 0), [], "steps"),
    ((6, 0, 0), column(*[1] * 4098), "a column is too long"),
    ((6, 0, 0), "!" * 40_000, "is longer than 32,768 characters"),
    ((6, 0, 0), column(2, 2, 2), "a column is too long"),
    ((6, 0, 0), column(2, 2, 2, 1, 1), "a column is too long"),
    ((6, 0, 0), column(2, 0, 4, 1), "the commits are out of range in step 1"),
    ((6, 0, 0), column(46**8), "a number is too large"),
    ((6, 0, 0), column(46)[:1], "a column is too long"),
    ((6, 0, 0), '"', "steps[0]"),
    ((6, 0, 0), "é", "steps[0]"),
    ((6, 0, 1), column(0, 3, 0, 3, 0, 0, 0), "the commits are out of range in step 0"),
    ((6, 0, 2), column(7), "a column is too long"),
    ((7, 0), column(5, 3, 0, 8, 20, 9), "a lane must have a confidence for every token"),
    ((7, 0), column(5, 3, 0, 8, 20, 9, 29), "a confidence is out of range"),
    ((8, 0), [], "times"),
    ((8, 0, 0), 500.0, "must be a whole number"),
    ((8, 0, 0), 10**18, "the unit of time is out of range"),
    ((8, 0, 1), "", "a lane must have a time for every step"),
    ((8, 0, 1), column(50, 20, 0, 0), "a lane must have a time for every step"),
    ((8, 0, 1), column(50, 20, 0, 0, 101), "the time is out of range"),
]


@pytest.mark.parametrize(("path", "value", "reason"), LIMITS, ids=range(len(LIMITS)))
def test_each_limit_is_kept_and_named(path: tuple[int, ...], value: Any, reason: str) -> None:
    payload = json.loads(json.dumps(PACKED))
    place = payload
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RecordingError) as refused:
        from_link(linked(payload))
    assert str(refused.value).startswith("This link cannot be opened: ")
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 250


def test_thousands_of_damaged_old_links_are_refused_or_valid() -> None:
    rng, text = random.Random(3), json.dumps(PACKED)
    changed = [linked(mutate(json.loads(text), rng)) for _ in range(700)]
    torn = []
    for _ in range(700):
        try:
            torn.append(linked(json.loads(scratch(text, rng))))
        except (ValueError, RecursionError):
            continue
    accepted = [survives(from_link, each) for each in changed + torn]
    assert 50 < sum(accepted) < 700
