"""What takes the board ends the visitor's run, and no other; what is refused changes nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import known, page, question, sent
from test_link import BY_HAND
from test_recording import race
from test_visitors import request

from app.conversation import Conversation
from app.lanes.lane import Host
from app.page.asking import read_asking
from app.page.form import form, presets
from app.page.handlers import NOTHING, Page, Values
from app.page.messages import SETTINGS
from app.page.visitors import TooManyRuns, Visitor, Visitors
from app.recordings.link import to_link
from d2f.bench.report import read_results
from d2f.catalogue.pairs import PAIRS
from d2f.config import config_to_dict
from d2f.errors import D2FError, InvalidInput
from d2f.tasks import TASKS, Problem, draw


def draw_one(task: str) -> Problem:
    return next(draw(task, "test", 1))


def kinds(packed: str) -> list[str]:
    return [message["kind"] for message in json.loads(packed)["messages"]]


def test_a_handler_ends_the_run_of_its_own_visitor() -> None:
    own = page([race()])
    me = request("me")
    for handle, values in ((own.show_recorded, (0,)), (own.stop, ())):
        with own.visitors.run(Visitor("me")) as mine, own.visitors.run(Visitor("you")) as yours:
            handle(*values, me)
            assert mine.is_set() and not yours.is_set()


def told(own: Page, values: Values) -> list[str]:
    return kinds(values[own.parts.board])


def test_a_race_that_opens_takes_the_board(tmp_path: Path) -> None:
    own, path = page([]), tmp_path / "race.json"
    path.write_text(race().to_json())
    linked = (own.open_link, sent({"link": "race=" + to_link(BY_HAND)}), BY_HAND)
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
        for handle, value in (
            (own.open_file, str(path)),
            (own.open_link, sent({"link": "race=AAAA"})),
        ):
            with pytest.raises(D2FError, match="cannot be opened"):
                handle(value, request("me"))
        for handle, value in (
            (own.open_file, None),
            (own.open_link, sent({"link": ""})),
            (own.open_link, sent({"link": "charts"})),
            (own.open_link, sent({"link": None})),
        ):
            assert handle(value, request("me")) == {own.parts.board: NOTHING}
        assert not mine.is_set()


def test_a_run_too_many_is_told_and_changes_nothing() -> None:
    own = page([])
    own.visitors = Visitors(at_once=1)
    with own.visitors.run(Visitor("you", "8.8.8.8")) as yours:
        with pytest.raises(TooManyRuns, match="Try again when one of them has ended"):
            list(own.run(known(own), sent(question("Hello")), request("me", host="8.8.8.8")))
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
    text = "it holds the run of one decoder, as d2f generate --trace writes it"
    with pytest.raises(D2FError, match=text):
        own.open_file(str(path), request("me"))


def test_a_question_is_read_as_it_was_asked() -> None:
    past = {"pair": "mini", "turns": [{"prompt": "Hello", "answers": ["a", "b"]}]}
    asking = read_asking(question("And now?", past=past))
    assert (asking.run, asking.prompt, asking.pair) == ("abc", "And now?", "mini")
    config = PAIRS["mini"].config
    assert asking.settings == [getattr(config, name) for name in SETTINGS]
    assert asking.past == Conversation("mini").with_turn("Hello", ["a", "b"])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "The page sent None without 'run'"),
        ([], "The page sent [] without 'run'"),
        ({"run": "abc"}, "without 'prompt'"),
        (question(""), ""),
        (question("Hi", run="a b"), "name must be 1 to 16 letters and digits"),
        (question("Hi", run=7), "name must be 1 to 16 letters and digits"),
        (question("Hi", pair=["mini"]), "must be texts"),
        (question(None), "must be texts"),
        (question("Hi", settings=[]), "The settings must be max_new_tokens,"),
        (question("Hi", settings={"tau_conf": 1}), "The settings must be max_new_tokens,"),
        (question("Hi", past=7), "This conversation cannot be read"),
        (question("Hi", past={"pair": "mini", "turns": [7]}), "This conversation cannot be read"),
    ],
)
def test_what_is_no_question_is_refused_in_words(data: Any, why: str) -> None:
    if not why:
        assert read_asking(data).prompt == ""  # refused where it would be run
        return
    with pytest.raises(InvalidInput, match=re.escape(why)):
        read_asking(data)


def test_the_form_tells_of_every_pair_and_setting() -> None:
    known = {"gsm-mini": [draw_one("gsm-mini")], "sudoku-mini": [draw_one("sudoku-mini")]}
    made = form("mini", Host(refused={"Big": "no room"}), known, read_results())
    assert [each["name"] for each in made["pairs"]] == list(PAIRS)
    assert [each["name"] for each in made["settings"]] == list(SETTINGS)
    assert made["refused"] == ["Big: no room"]
    assert [each["task"] for each in made["examples"]] == [
        TASKS[name].title for name in ("gsm-mini", "sudoku-mini")
    ]


def point(tau: float, accuracy: float, speed: float, **more: Any) -> dict[str, Any]:
    config = config_to_dict(replace(PAIRS["mini"].config, tau_conf=tau))
    row = {"decoder": "d2f", "task": "all", "config": config}
    return row | {"accuracy": accuracy, "tokens_per_second": speed} | more


def test_presets_are_measured_points_of_the_widest_sweep() -> None:
    sweep = [point(0.98, 0.95, 500), point(0.7, 0.9, 700), point(0.9, 0.95, 600)]
    sweep += [point(0.995, 0.95, 400), point(0.5, 0.99, 900, decoder="ar")]
    found = presets([{"results": [point(0.1, 1.0, 9999)]}, {"results": sweep}])
    told = [(each["name"], each["settings"]["tau_conf"], each["told"]) for each in found]
    assert told == [
        ("Faster", 0.7, "700 tokens/s, 90.0% solved"),
        ("Balanced", 0.9, "600 tokens/s, 95.0% solved"),
        ("More careful", 0.995, "400 tokens/s, 95.0% solved"),
    ]
    assert presets([]) == presets([{"results": sweep[:2]}]) == []
