"""What takes the board ends the visitor's run, and no other; what is refused changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pages import asked, page
from test_link import BY_HAND
from test_recording import race
from test_visitors import request

from app.page.handlers import NOTHING, Page, Values
from app.page.visitors import TooManyRuns, Visitor, Visitors
from app.recordings.link import to_link
from d2f.errors import D2FError

PAST = {"pair": "mini", "turns": [{"prompt": "Hello", "answers": ["a", "b"]}]}


def kinds(packed: str) -> list[str]:
    return [message["kind"] for message in json.loads(packed)["messages"]]


def test_a_handler_ends_the_run_of_its_own_visitor() -> None:
    own = page([race()])
    me, saved = request("me"), {own.parts.conversation: PAST}
    for handle, values in (
        (own.clear, ()),
        (own.edit, (saved,)),
        (own.show_recorded, (0,)),
        (own.stop, ()),
    ):
        with own.visitors.run(Visitor("me")) as mine, own.visitors.run(Visitor("you")) as yours:
            handle(*values, me)
            assert mine.is_set() and not yours.is_set()


def told(own: Page, values: Values) -> list[str]:
    return kinds(values[own.parts.board])


def test_a_race_that_opens_takes_the_board(tmp_path: Path) -> None:
    own, path = page([]), tmp_path / "race.json"
    path.write_text(race().to_json())
    linked = (own.open_link, "race=" + to_link(BY_HAND), BY_HAND)
    for handle, value, recording in ((own.open_file, str(path), race()), linked):
        with own.visitors.run(Visitor("me")) as mine:
            values = handle(value, request("me"))
            assert told(own, values)[0] == "start" and told(own, values)[-1] == "end"
            assert values[own.parts.recording] == recording
            assert mine.is_set()


def test_the_pages_own_races_are_told_once_and_shown_anew_each_time() -> None:
    own = page([race(), replace(race(), prompt="Another.")])
    one, two = (own.show_recorded(1, request("me")) for _ in "ab")
    assert one[own.parts.recording].prompt == "Another."
    first, second = json.loads(one[own.parts.board]), json.loads(two[own.parts.board])
    assert first["messages"] == second["messages"] and first["run"] != second["run"]
    assert first["messages"][-1]["summary"].endswith("Both answers are correct.")
    assert "The recording says" not in first["messages"][-1]["summary"]


def test_a_race_that_does_not_open_changes_nothing(tmp_path: Path) -> None:
    own, path = page([]), tmp_path / "race.json"
    path.write_text("{}")
    with own.visitors.run(Visitor("me")) as mine:
        for handle, value in ((own.open_file, str(path)), (own.open_link, "race=AAAA")):
            with pytest.raises(D2FError, match="cannot be opened"):
                handle(value, request("me"))
        for handle, value in (
            (own.open_file, None),
            (own.open_link, ""),
            (own.open_link, "charts"),
        ):
            assert handle(value, request("me")) == {own.parts.board: NOTHING}
        assert not mine.is_set()


def test_a_run_too_many_is_told_and_changes_nothing() -> None:
    own = page([])
    own.visitors = Visitors(at_once=1)
    with own.visitors.run(Visitor("you", "8.8.8.8")) as yours:
        with pytest.raises(TooManyRuns, match="Try again when one of them has ended"):
            list(own.run(asked(own, "Hello"), request("me", host="8.8.8.8")))
        assert not yours.is_set()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_file_opens_however_an_editor_saved_it(tmp_path: Path, encoding: str) -> None:
    own, path = page([]), tmp_path / "race.json.txt"
    path.write_bytes(race().to_json().replace(",", ",\r\n").encode(encoding))
    values = own.open_file(str(path), request("me"))
    assert values[own.parts.recording] == race()


def test_the_run_of_one_decoder_says_where_it_belongs(tmp_path: Path) -> None:
    own, path = page([]), tmp_path / "run.json"
    path.write_text(race().lanes[0].trace.to_json())
    text = "it is the run of one decoder, as d2f generate --trace writes it"
    with pytest.raises(D2FError, match=text):
        own.open_file(str(path), request("me"))
