"""The API endpoints, called as clients call them, on the smallest real models."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
import pytest
from folders import save_models, save_pair
from test_visitors import request

import app.page.api
from app.lanes.lane import Host, warm_model
from app.page.api import ENDED, add_endpoints
from app.page.visitors import Visitor, Visitors
from app.race import DEVICE, WAITING
from d2f import D2FConfig
from d2f.catalogue.pairs import PAIRS, Pair
from d2f.errors import D2FError

ME = Visitor("me", "8.8.8.8")


def _race(prompt: str, pair: str, changes: dict, host: Host) -> Iterator[dict[str, Any]]:
    return app.page.api._race(prompt, pair, changes, host, Visitors(), ME)


def _generate(prompt: str, name: str, changes: dict, host: Host) -> Iterator[dict[str, Any]]:
    return app.page.api._generate(prompt, name, changes, host, Visitors(), ME)


@pytest.fixture
def pair(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2)
    tiny = save_pair(tmp_path, tokenizer_folder, config)
    monkeypatch.setitem(PAIRS, tiny.name, tiny)
    yield tiny
    warm_model.cache_clear()


def test_a_race_streams_its_messages(pair: Pair):
    messages = list(_race("Hello", "tiny", {"tau_conf": 0.5}, Host()))
    kinds = [message["kind"] for message in messages if message["kind"] != "status"]
    assert kinds[0] == "start" and kinds[-1] == "end" and set(kinds[1:-1]) == {"step"}
    start = next(message for message in messages if message["kind"] == "start")
    assert [lane["decoder"] for lane in start["lanes"]] == ["d2f", "ar"]


def test_generating_streams_text_and_figures(pair: Pair):
    told = list(_generate("Hello", pair.ar, {"max_new_tokens": 8}, Host()))
    tokens = [each["tokens"] for each in told if "phase" not in each]  # while it waits
    assert tokens == sorted(tokens) and 1 <= tokens[-1] <= 8
    assert told[-1]["finish_reason"] in ("stop", "length")


def test_models_of_a_folder_answer_in_place_of_the_embedded_ones(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("d2f.catalogue.pairs.EMBEDDED", tmp_path / "empty")
    models = save_models(tmp_path, tokenizer_folder)
    settings = {"max_new_tokens": 8, "block_size": 4}
    messages = list(_race("Hello", "mini", settings, Host(models_dir=models)))
    (start,) = [message for message in messages if message["kind"] == "start"]
    assert [lane["model"] for lane in start["lanes"]] == ["mini-d2f", "mini-ar"]
    assert messages[-1]["kind"] == "end"
    *_, told = _generate("Hello", "mini-ar", {"max_new_tokens": 8}, Host(models_dir=models))
    assert 1 <= told["tokens"] <= 8
    warm_model.cache_clear()
    with pytest.raises(D2FError, match="no model 'mini-ar'"):
        list(_generate("Hello", "mini-ar", {}, Host()))


@pytest.fixture
def busy() -> Iterator[None]:
    """Runs wait in line as long as the test goes on."""
    over = Event()
    DEVICE.submit(over.wait, 60)
    yield
    over.set()


@pytest.mark.usefixtures("busy")
def test_a_callers_new_run_ends_the_one_before(pair: Pair):
    visitors, host = Visitors(), Host()
    race = app.page.api._race("Hello", "tiny", {}, host, visitors, ME)
    assert next(race)["kind"] == "status"
    text = app.page.api._generate("Hello", pair.ar, {}, host, visitors, ME)
    assert next(text)["phase"] == WAITING
    assert [message["kind"] for message in race] == ["stopped"]
    with visitors.run(ME) as stop, pytest.raises(D2FError, match=ENDED):
        list(text)
    assert not stop.is_set()


def test_an_address_with_too_many_runs_is_refused(pair: Pair):
    visitors = Visitors(at_once=1)
    with visitors.run(Visitor("you", ME.address)):
        for call, name in ((app.page.api._race, "tiny"), (app.page.api._generate, pair.ar)):
            with pytest.raises(D2FError, match="1 runs from your address"):
                list(call("Hello", name, {}, Host(), visitors, ME))


async def page(visitors: Visitors) -> gr.Blocks:
    """Made inside a loop: without a running one Gradio makes a new one, and does not close it."""
    with gr.Blocks(analytics_enabled=False) as demo:
        add_endpoints(Host(), "tiny", visitors)
    return demo


def test_a_caller_is_the_session_of_the_request(pair: Pair):
    visitors = Visitors()
    demo = asyncio.run(page(visitors))
    asked = {
        name: [parameter["parameter_name"] for parameter in endpoint["parameters"]]
        for name, endpoint in demo.get_api_info()["named_endpoints"].items()
    }
    assert asked == {
        "/race": ["prompt", "pair", "settings"],
        "/generate": ["prompt", "model", "max_new_tokens", "temperature", "seed"],
    }
    for block in demo.fns.values():
        name = {"race": "tiny", "generate": pair.ar}[block.api_name]
        with visitors.run(Visitor("me")) as mine, visitors.run(Visitor("you")) as yours:
            list(block.fn("Hello", request("me"), name))
            assert mine.is_set() and not yours.is_set()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _race("Hello", "none", {}, Host()), "pair must be one of"),
        (lambda: _race("Hello", "mini", {"tau": 1}, Host()), "unknown settings"),
        (lambda: _race(" ", "mini", {}, Host()), "prompt is empty"),
        (lambda: _race("Hello", "mini", {"tau_conf": 7}, Host()), "tau_conf must be in"),
        (lambda: _generate("Hello", "gpt", {}, Host()), "one of the catalogue"),
        (lambda: _generate("\x07", "mini-ar", {}, Host()), "control character"),
        (
            lambda: _generate("Hello", "mini-ar", {"seed": -1}, Host()),
            "seed must be an integer",
        ),
    ],
)
def test_bad_requests_are_told_what_is_wrong(call, message: str):
    with pytest.raises(D2FError, match=message):
        list(call())
