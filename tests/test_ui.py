"""What takes the board ends the visitor's run, and no other; what is refused changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import pytest
from test_link import BY_HAND
from test_recording import race
from test_visitors import request

from app.lanes import Host
from app.link import to_link
from app.prompts import random_problem
from app.recording import Recording
from app.run import SETTINGS
from app.ui import (
    NOTHING,
    _clear,
    _edit,
    _open_file,
    _open_link,
    _race,
    _show_known,
    _stopping,
    _told_once,
)
from app.visitors import Visitor, Visitors
from d2f.catalogue.pairs import PAIRS

PAST = {"pair": "mini", "turns": [{"prompt": "Hello", "answers": ["a", "b"]}]}


def kinds(packed: str) -> list[str]:
    return [message["kind"] for message in json.loads(packed)["messages"]]


@pytest.mark.parametrize(
    ("handle", "values"),
    [
        (_clear, ()),
        (_edit, (PAST,)),
        (lambda stop, index: _show_known(_told_once([race()]), stop, index), (0,)),
        (lambda stop: stop(), ()),
    ],
)
def test_a_handler_ends_the_run_of_its_own_visitor(handle: Any, values: tuple[Any, ...]):
    visitors = Visitors()
    with visitors.run(Visitor("me")) as mine, visitors.run(Visitor("you")) as yours:
        _stopping(visitors, handle)(request("me"), *values)
        assert mine.is_set() and not yours.is_set()


def test_a_race_that_opens_takes_the_board(tmp_path: Path):
    path = tmp_path / "race.json"
    path.write_text(race().to_json())
    linked = (_open_link, "race=" + to_link(BY_HAND), BY_HAND)
    for handle, value, recording in ((_open_file, str(path), race()), linked):
        stop = Event()
        packed, shown = handle(stop.set, value)
        assert kinds(packed)[0] == "start" and kinds(packed)[-1] == "end"
        assert isinstance(shown, Recording) and shown == recording
        assert stop.is_set()


def test_the_pages_own_races_are_told_once_and_shown_anew_each_time():
    known = _told_once([race(), replace(race(), prompt="Another.")])
    (first, recording), (second, _) = (_show_known(known, Event().set, 1) for _ in "ab")
    assert recording.prompt == "Another."
    first, second = json.loads(first), json.loads(second)
    assert first["messages"] == second["messages"] and first["run"] != second["run"]
    assert first["messages"][-1]["summary"].endswith("Both answers are correct.")
    assert "The recording says" not in first["messages"][-1]["summary"]


def test_a_race_that_does_not_open_changes_nothing(tmp_path: Path):
    stop, path = Event(), tmp_path / "race.json"
    path.write_text("{}")
    for handle, value in ((_open_file, str(path)), (_open_link, "race=AAAA")):
        packed, shown = handle(stop.set, value)
        assert kinds(packed) == ["error"] and shown == gr.skip()
    for handle, value in ((_open_file, None), (_open_link, ""), (_open_link, "charts")):
        assert handle(stop.set, value) == (NOTHING, gr.skip())
    assert not stop.is_set()


def test_a_run_too_many_is_told_and_changes_nothing():
    visitors, settings = Visitors(at_once=1), [getattr(PAIRS["mini"].config, n) for n in SETTINGS]
    asked = (random_problem(), "Hello", False, False, None, "mini", *settings)
    with visitors.run(Visitor("you", "8.8.8.8")) as yours:
        me = Visitor("me", "8.8.8.8")
        ((packed, *rest),) = _race(visitors, me, Host(), False, {}, *asked)
    assert kinds(packed) == ["error"] and "Try again when one of them has ended" in packed
    assert rest == [gr.skip(), gr.skip()] and not yours.is_set()
