"""Links and files of races after a journey: what was only decorated opens, all else is refused."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from test_link import BY_HAND
from test_recording import scratch, survives

from app.gallery import gallery
from app.recordings.armour import unmarked
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording
from app.recordings.store import LENGTH, UNKNOWN, SqliteStore, StoreError, publish, published
from d2f.errors import D2FError
from d2f.text import decoded

LINKS = [to_link(race) for race in (BY_HAND, *gallery())]
# What chats, mails and people put behind a link, and between its characters.
BEHIND = [
    *(".", ",", ")", ">", "*", "**", "_", "__", "-", "--", "'", '"', "\u201d", "\u00bb", "!", "?"),
    *("]", "](more)", "|", "~", "\\", ";", ":", "`", "=", "==", "&utm=1", "#end", "</a>", "\u3002"),
    *(" look", " look at this, it is fast", "\nlook", "\r\n-- \r\nMe", "\tand", "\u00a0so", " a"),
]
BETWEEN = [
    *(" ", "\n", "\r\n", "\r\n> ", "\n>> ", "\t", "=\n", "=\r\n", "\u00ad", "\u200b", "\u200d"),
    *("\u2060", "\ufeff", "\u00a0", "\u2028", "\u202f", "\ufe0f", "\x0b", "\x85", "\u034f"),
]
SPOILING = ["!", "%", "%%", "%0", "\x00", "\ud800", "é", "\u0661", "x", "-", "A" * 9, "\U0001f600"]


def broken(text: str, by: str, rng: random.Random) -> str:
    """With the same between its characters now and then, at least once."""
    width = rng.choice([1, 3, 20, 70, max(1, len(text) // 2)])
    return by.join(text[at : at + width] for at in range(0, len(text), width))


def encoded(text: str, rng: random.Random) -> str:
    """Percent-encoded once or twice, in part or whole, in capitals or not."""
    for _ in range(rng.choice([1, 1, 2])):
        part = rng.choice([0.05, 1.0])
        text = "".join(
            (f"%{ord(c):02X}" if rng.random() < 0.5 else f"%{ord(c):02x}")
            if c in "%-_" or (c.isascii() and rng.random() < part)
            else quote(c, safe="\r\n> =\t")
            for c in text
        )
    return text


def decorated(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        text = broken(text, rng.choice(BETWEEN), rng)
    if rng.random() < 0.7:
        text += rng.choice(BEHIND)
    if rng.random() < 0.3:
        text = text.replace("-", "+")
    if rng.random() < 0.3:
        text = encoded(text, rng)
    return text


def test_a_thousand_decorated_links_open() -> None:
    rng, races = random.Random(11), [from_link(link) for link in LINKS]
    for _ in range(1000):
        link, race = rng.choice(list(zip(LINKS, races, strict=True)))
        told = decorated(link, rng)
        assert from_link(told) == race, told[:200]


@pytest.mark.parametrize("behind", BEHIND)
def test_each_thing_behind_a_link_is_none_of_it(behind: str) -> None:
    for link in LINKS:
        assert from_link(link + behind) == from_link(link)


@pytest.mark.parametrize("between", BETWEEN)
def test_each_thing_between_is_none_of_it(between: str) -> None:
    for link in LINKS:
        for width in (1, 7, 76):
            told = between.join(link[at : at + width] for at in range(0, len(link), width))
            assert from_link(told) == from_link(link)
            assert from_link(told + between + "look") == from_link(link)


def test_thousands_of_spoilt_links_are_refused_or_valid() -> None:
    rng = random.Random(12)
    opened = 0
    for _ in range(2000):
        link = rng.choice(LINKS)
        told = decorated(scratch(link, rng), rng)
        if rng.random() < 0.7 and told:
            at = rng.randrange(len(told))
            told = told[:at] + rng.choice(SPOILING) + told[at:]
        opened += survives(from_link, told)
    assert opened < 300


@pytest.mark.parametrize("text", [*"%=> -_\n", "%25", "%2525", "%E2%80%8B", "=\n", "A ", "3D"])
def test_a_long_text_of_nothing_is_refused_soon(text: str) -> None:
    assert not survives(from_link, (text * 800_000)[:786_432])
    assert not survives(from_link, (text * 800_000)[:800_000])


@pytest.mark.parametrize(
    ("fragment", "link"),
    [
        ("race=abc", "abc"),
        ("Race=abc", "abc"),
        ("race%3Dabc", "abc"),
        ("race%3dabc", "abc"),
        ("%72ace%253Dabc", "abc"),
        ("race=", ""),
        ("race", None),
        ("races=abc", None),
        ("x&race=abc", None),
        ("", None),
    ],
)
def test_a_fragment_tells_whether_it_holds_a_race(fragment: str, link: str | None) -> None:
    assert unmarked(fragment) == link


def test_a_link_of_quoted_printable_opens() -> None:
    for link in LINKS:
        assert from_link("3D" + broken(link, "=\r\n", random.Random(1))) == from_link(link)


# ---- short links


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "races")


def test_a_decorated_short_link_opens(store: SqliteStore) -> None:
    race_id = publish(store, BY_HAND)
    race, rng = published(store, race_id), random.Random(13)
    for behind in BEHIND:
        assert published(store, race_id + behind) == race
    for between in BETWEEN:
        for at in range(1, LENGTH):
            told = race_id[:at] + between + race_id[at:]
            assert published(store, told) == published(store, f"{told}{between}look") == race
    for _ in range(300):
        assert published(store, encoded(race_id + rng.choice(BEHIND), rng)) == race
    assert published(store, f"3D{race_id}") == race


def test_a_spoilt_short_link_is_unknown(store: SqliteStore) -> None:
    race_id, rng = publish(store, BY_HAND), random.Random(14)
    race = published(store, race_id)
    for _ in range(2000):
        told = decorated(scratch(race_id, rng), rng)
        try:
            assert published(store, told) == race
        except StoreError as error:
            assert str(error) == UNKNOWN
    for spoilt in (race_id[:-1], race_id + "x", "x" + race_id, f"{race_id[:5]}!{race_id[5:]}"):
        with pytest.raises(StoreError, match="No race is published under this address"):
            published(store, spoilt)


# ---- files


def opened(data: bytes) -> Recording:
    return Recording.from_json(decoded(data))


AS_SAVED: dict[str, Callable[[str], bytes]] = {
    "UTF-8": str.encode,
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16 of the other order": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "CRLF": lambda text: json.dumps(json.loads(text), indent=1).replace("\n", "\r\n").encode(),
    "with characters as they are": lambda text: json.dumps(
        json.loads(text), ensure_ascii=False
    ).encode("utf-16"),
}


@pytest.mark.parametrize("how", AS_SAVED)
def test_a_file_opens_however_it_was_saved(how: str) -> None:
    for race in (BY_HAND, *gallery()):
        assert opened(AS_SAVED[how](race.to_json())) == race


def test_thousands_of_spoilt_files_are_refused_or_valid() -> None:
    rng, accepted = random.Random(15), 0
    for _ in range(1000):
        data = bytearray(rng.choice(list(AS_SAVED.values()))(BY_HAND.to_json()))
        for _ in range(rng.choice([0, 1, 1, 2, 9])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        started = time.process_time()
        try:
            race = opened(bytes(data))
            accepted += 1
            assert Recording.from_json(race.to_json()) == race
        except D2FError as refused:
            assert len(str(refused)) < 250
        assert time.process_time() - started < 1
    assert 100 < accepted < 700
