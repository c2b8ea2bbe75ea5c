"""What the page does when a race is published and when a short link is opened."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from test_recording import PAST as EARLIER
from test_recording import race

from app.conversation import Conversation
from app.lanes import Host
from app.quota import Quota
from app.recording import Recording
from app.run import SETTINGS
from app.store import FULL, UNKNOWN, SqliteStore, Store, publish, published
from app.ui import _open, _publish, _told_once
from app.visitors import Visitor
from d2f.catalogue.pairs import PAIRS

PAST = {"pair": "mini", "turns": [{"prompt": "Hello", "answers": ["a", "b"]}]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return SqliteStore(tmp_path / "races")


def told(packed: str) -> dict[str, Any]:
    (message,) = json.loads(packed)["messages"]
    return message


def open_page(store: Store | None, query: dict[str, str], fragment: str = "") -> list[Any]:
    packed, *rest = _open(_told_once([race()]), "mini", Host(), store, fragment, PAST, query)
    return [json.loads(packed)["messages"], *rest]


def test_publishing_gives_an_id_that_the_page_replays(store: Store):
    message = told(_publish(store, Quota(1, 9, 60), Visitor("me"), race()))
    assert message == {"kind": "published", "id": message["id"], "prompt": "Count to four."}
    messages, recording, follow, *form = open_page(store, {"race": message["id"]})
    kinds = [each["kind"] for each in messages]
    assert kinds == ["start", *["step"] * 9, "end"]
    assert messages[-1]["summary"].endswith("The recording says: Both answers are correct.")
    assert recording == published(store, message["id"])
    assert [follow, *form] == [gr.skip()] * (3 + len(SETTINGS))


def test_a_published_follow_up_keeps_what_was_said_before(store: Store):
    race_id = publish(store, replace(race(), past=EARLIER))
    assert race_id != publish(store, race())
    messages, recording, *_ = open_page(store, {"race": race_id})
    assert recording.past == EARLIER
    assert messages[0]["lanes"][1]["chat"] == [
        "Hello.",
        "",
        "How are you?",
        "<b>Well</b>.",
        "Count to four.",
    ]


@pytest.mark.parametrize("race_id", ["", "0000000000", "../../etc/passwd"])
def test_an_unknown_short_link_is_told_and_changes_nothing(store: Store, race_id: str):
    for where in (store, None):
        messages, *rest = open_page(where, {"race": race_id})
        assert messages == [{"kind": "error", "text": UNKNOWN}]
        assert rest == [gr.skip()] * (4 + len(SETTINGS))


def test_a_link_that_holds_a_race_goes_before_one_that_names_it(store: Store):
    messages, *_ = open_page(store, {"race": "0000000000"}, "race=AAAA")
    assert messages[0]["text"].startswith("This link cannot be opened")


def test_a_race_of_one_lane_is_refused_by_the_board(store: Store):
    race_id = publish(store, replace(race(), lanes=race().lanes[:1]))
    messages, recording, *_ = open_page(store, {"race": race_id})
    assert messages == [{"kind": "error", "text": "a race on the board has two lanes"}]
    assert recording == gr.skip()


def test_what_keeps_a_race_from_being_published_is_told(tmp_path: Path):
    store, quota = SqliteStore(tmp_path / "races", max_races=1), Quota(2, 9, 60)

    def attempt(session: str, recording: Recording | None) -> dict[str, Any]:
        return told(_publish(store, quota, Visitor(session), recording))

    none = {"kind": "error", "text": "There is no finished race to publish yet."}
    assert [attempt("a", None) for _ in range(3)] == [none] * 3
    assert attempt("a", race())["kind"] == "published"
    assert attempt("a", replace(race(), prompt="Another."))["text"] == FULL
    assert attempt("a", race())["text"].startswith("Too many races were published")
    assert attempt("b", race())["kind"] == "published"


def test_a_reload_brings_no_new_quota_where_the_address_is_known(store: Store):
    quota = Quota(1, 9, 60)

    def kind(session: str, address: str | None) -> str:
        return told(_publish(store, quota, Visitor(session, address), race()))["kind"]

    assert kind("a", "8.8.8.8") == "published"
    assert kind("reloaded", "8.8.8.8") == "error"
    assert kind("a", "9.9.9.9") == "published"
    assert [kind(session, None) for session in "aab"] == ["published", "error", "published"]


def test_a_conversation_comes_back_with_its_pair_unless_the_address_asks_for_something():
    other = replace(PAIRS["mini"], name="other", config=replace(PAIRS["mini"].config, seed=7))
    host = Host(pairs=PAIRS | {"other": other})
    saved = Conversation("other").with_turn("Hi", ["a", "b"]).to_dict()

    def opened(**query: str) -> list[Any]:
        packed, _, follow, *form = _open(_told_once([race()]), "mini", host, None, "", saved, query)
        return [json.loads(packed)["messages"][0]["kind"], follow, *form]

    kind, follow, prompt, pair, *settings = opened()
    assert (kind, follow, pair, settings[-1]) == ("recall", True, "other", 7)
    kind, follow, prompt, pair, *_ = opened(prompt="Hello")
    assert kind == "start" and follow == gr.skip() and (prompt, pair) == ("Hello", "mini")
    host = Host()  # started again, without that pair
    assert opened()[0] == "start"
