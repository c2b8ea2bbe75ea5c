"""What the page does when a race is published and when a short link is opened."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
import pytest
from pages import page
from starlette.requests import Request
from test_recording import PAST as EARLIER
from test_recording import race
from test_visitors import request

from app.lanes.lane import Host
from app.page.handlers import Page, Values
from app.page.messages import SETTINGS
from app.page.quota import Quota
from app.recordings.recording import Recording
from app.recordings.store import FULL, UNKNOWN, SqliteStore, Store, publish, published
from d2f.catalogue.pairs import PAIRS
from d2f.errors import D2FError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return SqliteStore(tmp_path / "races")


def told(own: Page, values: Values) -> dict[str, Any]:
    assert values.keys() == {own.parts.board}
    (message,) = json.loads(values[own.parts.board])["messages"]
    return message


def visit(query: dict[str, str]) -> gr.Request:
    """The request of a page load."""
    raw = {"type": "http", "headers": [], "client": None, "query_string": urlencode(query).encode()}
    return gr.Request(Request(raw), session_hash="me")


def publish_on(own: Page, session: str, recording: Recording | None, **who: Any) -> dict[str, Any]:
    return told(own, own.publish({own.parts.recording: recording}, request(session, **who)))


def open_page(
    store: Store | None, query: dict[str, str], fragment: str = ""
) -> tuple[list[Any], Page, Values]:
    own = page([race()], store=store)
    values = own.open(fragment, visit(query))
    return json.loads(values[own.parts.board])["messages"], own, values


def test_publishing_gives_an_id_that_the_page_replays(store: Store) -> None:
    message = publish_on(page([], store=store), "me", race())
    assert message == {"kind": "published", "id": message["id"], "prompt": "Count to four."}
    messages, own, values = open_page(store, {"race": message["id"]})
    kinds = [each["kind"] for each in messages]
    assert kinds == ["start", *["step"] * 9, "end"]
    assert messages[-1]["summary"].endswith("The recording says: Both answers are correct.")
    assert values.keys() == {own.parts.board, own.parts.recording}
    assert values[own.parts.recording] == published(store, message["id"])


def test_a_published_follow_up_keeps_what_was_said_before(store: Store):
    race_id = publish(store, replace(race(), past=EARLIER))
    assert race_id != publish(store, race())
    messages, own, values = open_page(store, {"race": race_id})
    assert values[own.parts.recording].past == EARLIER
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
        messages, own, values = open_page(where, {"race": race_id})
        assert messages == [{"kind": "error", "text": UNKNOWN}]
        assert values.keys() == {own.parts.board}


def test_a_link_that_holds_a_race_goes_before_one_that_names_it(store: Store):
    messages, *_ = open_page(store, {"race": "0000000000"}, "race=AAAA")
    assert messages[0]["text"].startswith("This link cannot be opened")


def test_a_race_of_one_lane_is_refused_by_the_board(store: Store):
    race_id = publish(store, replace(race(), lanes=race().lanes[:1]))
    messages, own, values = open_page(store, {"race": race_id})
    assert messages == [{"kind": "error", "text": "a race on the board has two lanes"}]
    assert values.keys() == {own.parts.board}


def test_what_keeps_a_race_from_being_published_is_told(tmp_path: Path):
    own = page([], store=SqliteStore(tmp_path / "races", max_races=1))
    own.quota = Quota(2, 9, 60)

    def refused(session: str, recording: Recording | None) -> str:
        with pytest.raises(D2FError) as error:
            publish_on(own, session, recording)
        return str(error.value)

    none = "There is no finished race to publish yet."
    assert [refused("a", None) for _ in range(3)] == [none] * 3
    assert publish_on(own, "a", race())["kind"] == "published"
    assert refused("a", replace(race(), prompt="Another.")) == FULL
    assert refused("a", race()).startswith("Too many races were published")
    assert publish_on(own, "b", race())["kind"] == "published"


def test_a_reload_brings_no_new_quota_where_the_address_is_known(store: Store):
    own = page([], store=store)
    own.quota = Quota(1, 9, 60)

    def kind(session: str, address: str | None) -> str:
        try:
            return publish_on(own, session, race(), host=address)["kind"]
        except D2FError:
            return "refused"

    assert kind("a", "8.8.8.8") == "published"
    assert kind("reloaded", "8.8.8.8") == "refused"
    assert kind("a", "9.9.9.9") == "published"
    assert [kind(session, None) for session in "aab"] == ["published", "refused", "published"]


def test_an_address_fills_the_form_with_all_that_its_pair_has():
    other = replace(PAIRS["mini"], name="other", config=replace(PAIRS["mini"].config, seed=7))
    own = page([race()], Host(pairs=PAIRS | {"other": other}))
    query = {"prompt": "Hello", "pair": "other", "tau_conf": "0.5"}
    message = told(own, own.open("", visit(query)))
    assert (message["kind"], message["prompt"], message["pair"]) == ("fill", "Hello", "other")
    assert message["settings"] == {name: getattr(other.config, name) for name in SETTINGS} | {
        "tau_conf": 0.5
    }
    message = told(own, own.open("", visit({"seed": "3"})))
    assert (message["pair"], message["settings"]["seed"]) == ("mini", 3)
    assert "prompt" not in message


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"tau_conf": "abc"}, "'abc' is no number"),
        ({"tau_conf": "2"}, "tau_conf must be in [0, 1], got 2"),
        ({"max_new_tokens": "1e999"}, "max_new_tokens must be an integer >= 1, got inf"),
        ({"seed": "nan"}, "seed must be an integer >= 0, got nan"),
    ],
)
def test_an_address_that_asks_for_what_cannot_be_is_told(query: dict[str, str], why: str) -> None:
    messages, own, values = open_page(None, query)
    text = f"This link contains an invalid setting: {why}"
    assert messages == [{"kind": "error", "text": text}]
    assert values.keys() == {own.parts.board}


@pytest.mark.parametrize(
    "decorate",
    ["{}.", "{})", "{}**", "{}_", "{}%2E", " {} look", "{}\u200b", "{}\r\n", "\ufeff{}\u201d"],
)
def test_a_short_link_that_was_only_decorated_opens(store: Store, decorate: str) -> None:
    race_id = publish(store, race())
    assert published(store, decorate.format(race_id)) == published(store, race_id)


@pytest.mark.parametrize("alter", ["{}x", "x{}", "{}x.", "({})", ""])
def test_a_short_link_that_was_altered_is_unknown(store: Store, alter: str) -> None:
    race_id = publish(store, race())
    with pytest.raises(D2FError, match=re.escape(UNKNOWN)):
        published(store, alter.format(race_id))
