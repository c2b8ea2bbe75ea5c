"""Whatever fails on the page or in the API, people read why; the log has the rest."""

import json
import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from sites import Site, running_site, told

import app.page.api
import app.page.handlers
from app.failures import log_number, words
from app.lanes.lane import Host
from app.page.messages import Message
from app.page.visitors import Visitor, Visitors
from d2f.errors import ComputeError, D2FError, InvalidInput, LoadError

pytestmark = pytest.mark.filterwarnings("ignore:.*(no_silent_downcasting|copy keyword).* is depre")
APOLOGY = re.compile(r"Something went wrong on the server\. Its log has details under (\w{6})\.")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), tokenizer_folder) as site:
        yield site


def failing(*_: Any, **__: Any) -> Any:
    raise RuntimeError("secret path")


def logged(caplog: pytest.LogCaptureFixture, text: str) -> str:
    """The number of an apology, for which the log has one record with the traceback."""
    match = APOLOGY.fullmatch(text)
    assert match, text
    (record,) = caplog.records
    assert record.getMessage() == f"Failure {match[1]}" and record.levelno == logging.ERROR
    assert "secret path" in caplog.text and "Traceback" in caplog.text
    return match[1]


@pytest.mark.parametrize("error", [D2FError, InvalidInput, LoadError, ComputeError])
def test_an_error_for_the_user_is_told_as_it_is(
    error: type[D2FError], caplog: pytest.LogCaptureFixture
) -> None:
    assert words(error("Do this instead.")) == "Do this instead."
    assert not caplog.records


def test_a_failure_has_the_number_of_its_kind_and_place(caplog: pytest.LogCaptureFixture) -> None:
    def number(kind: type[Exception], text: str) -> str:
        try:
            raise kind(text)
        except kind as error:
            return log_number(error)

    assert number(KeyError, "a") == number(KeyError, "b") != number(IndexError, "a")
    try:
        failing()
    except RuntimeError as error:
        assert log_number(error) != number(RuntimeError, "a")
        assert logged(caplog, words(error)) == log_number(error)


def test_a_failure_of_a_handler_without_the_board_is_an_error_in_words(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.page.handlers, "visitor", failing)
    response = site.call("stop", [])
    assert response.status_code == 500
    logged(caplog, response.json()["error"])


def test_a_failure_of_a_handler_that_draws_is_told_on_the_board(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.page.handlers, "random_problem", failing)
    response = site.call("draw", [])
    assert response.status_code == 200
    (packed,) = [value for value in response.json()["data"] if isinstance(value, str)]
    (message,) = told(packed)
    assert (message["kind"], message["over"]) == ("error", False)
    logged(caplog, message["text"])


@pytest.mark.parametrize("first", [[], [{"kind": "status", "text": "Loading the models."}]])
def test_a_failure_in_the_middle_of_a_run_ends_it_on_the_board(
    site: Site,
    first: list[Message],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def tell(*_: Any) -> Iterator[Any]:
        yield from [app.page.tell.Told([message]) for message in first]
        failing()

    monkeypatch.setattr(app.page.handlers, "tell", tell)
    messages = site.queued("run", site.form("run"))
    last = messages[-2]
    assert messages[-1]["msg"] == "close_stream" and last["msg"] == "process_completed"
    assert last["success"]
    (packed,) = [each for each in last["output"]["data"] if isinstance(each, str)]
    (message,) = told(packed)
    assert (message["kind"], message["over"]) == ("error", True)
    logged(caplog, message["text"])


def test_a_number_that_no_browser_reads_is_a_failure_in_words(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def tell(*_: Any, **__: Any) -> Iterator[Any]:
        yield app.page.tell.Told([{"kind": "clock", "lane": 0, "time": math.nan, "over": False}])

    monkeypatch.setattr(app.page.handlers, "tell", tell)
    last = site.queued("run", site.form("run"))[-2]
    (packed,) = [each for each in last["output"]["data"] if isinstance(each, str)]
    (message,) = told(packed)
    assert (message["kind"], message["over"]) == ("error", True)
    assert APOLOGY.fullmatch(message["text"])
    assert "Out of range float values" in caplog.text
    monkeypatch.setattr(app.page.api, "tell", tell)
    event = next(
        app.page.api._told(app.page.api._race("Hi", "mini", {}, Host(), Visitors(), Visitor("me")))
    )
    assert event["kind"] == "error" and APOLOGY.fullmatch(event["text"])
    assert "finite numbers only, got nan" in caplog.text


BAD = [
    ("generate", ["Hello", "gpt", 8, 0, 0], "model must be one of the catalogue's, got 'gpt'"),
    ("generate", ["Hello", ["mini-ar"], 8, 0, 0], "model must be text, got ['mini-ar']"),
    ("generate", ["Hello", None, 8, 0, 0], "model must be text, got None"),
    ("generate", [7, "mini-ar", 8, 0, 0], "prompt must be text, got 7"),
    ("generate", [{"a": 1}, "mini-ar", 8, 0, 0], "prompt must be text, got {'a': 1}"),
    (
        "generate",
        ["Hello", "mini-ar", "8", 0, 0],
        "max_new_tokens must be an integer >= 1, got '8'",
    ),
    ("generate", ["Hello", "mini-ar", 0, 0, 0], "max_new_tokens must be an integer >= 1, got 0"),
    (
        "generate",
        ["Hello", "mini-ar", None, 0, 0],
        "max_new_tokens must be an integer >= 1, got None",
    ),
    ("generate", ["Hello", "mini-ar", 5000, 0, 0], "max_new_tokens must be at most 4,096"),
    ("generate", ["Hello", "mini-ar", 8, -1, 0], "temperature must be in [0, 10], got -1"),
    ("generate", ["Hello", "mini-ar", 8, True, 0], "temperature must be in [0, 10], got True"),
    ("generate", ["Hello", "mini-ar", 8, 0, 1.5], "seed must be an integer >= 0, got 1.5"),
    ("generate", ["Hello", "mini-ar", 8, 0], None),
    ("generate", [], None),
    ("race", ["Hello", "none", {}], "model pair must be one of"),
    ("race", ["Hello", {}, {}], "pair must be text, got {}"),
    ("race", ["Hello", "tiny", 7], "settings must be an object, got 7"),
    ("race", ["Hello", "tiny", []], "settings must be an object, got []"),
    ("race", ["Hello", "tiny", {"tau": 1}], "unknown settings ['tau']; known: ['max_new_tokens',"),
    ("race", ["Hello", "tiny", {"tau_conf": 7}], "tau_conf must be in [0, 1], got 7"),
    ("race", ["Hello", "tiny", {"tau_conf": "x"}], "tau_conf must be in [0, 1], got 'x'"),
    ("race", ["Hello", "tiny", {"seed": 1e300}], "seed must be at most"),
    ("race", [" ", "tiny", {}], "The prompt is empty."),
    ("race", ["Hello"], None),
]
NEEDED = {
    "generate": "5 values are needed, not {}: prompt, model, max_new_tokens, temperature, seed",
    "race": "3 values are needed, not {}: prompt, pair, settings",
}


@pytest.mark.parametrize(("name", "data", "text"), BAD)
def test_the_api_says_why_it_refuses(
    site: Site, name: str, data: list[Any], text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    *before, (kind, last) = site.curl(name, data)
    assert kind == "error" and last["error"].startswith(text or NEEDED[name].format(len(data)))
    # What Gradio itself refuses is no event of the stream.
    told = [] if text is None else [("generating", [{"kind": "error", "text": last["error"]}])]
    assert [event for event in before if event[0] != "heartbeat"] == told
    assert not caplog.records


def test_a_file_that_nobody_uploaded_is_told_in_words(site: Site) -> None:
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    ((kind, last),) = site.curl("generate", [file, "mini-ar", 8, 0, 0])
    assert kind == "error"
    assert last["error"].startswith("A value that was sent cannot be read: Cannot move /etc/passwd")


def test_the_api_apologises_for_a_failure_and_logs_it_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app.page.api, "catalogue_decoder", failing)
    (_, [event]), (kind, last) = site.curl("generate", ["Hello", "mini-ar", 8, 0, 0])
    assert kind == "error" and event == {"kind": "error", "text": last["error"]}
    logged(caplog, last["error"])


def test_a_loop_over_the_events_sees_the_error_and_so_does_who_asks_for_the_result(
    site: Site,
) -> None:
    client = Client(str(site.client.base_url), verbose=False)
    for name, values in (("/generate", ("Hello", "gpt")), ("/race", ("Hello", "gpt"))):
        job = client.submit(*values, api_name=name)
        *_, event = job
        assert event["kind"] == "error" and "must be one of" in event["text"]
        with pytest.raises(Exception, match=re.escape(event["text"])):
            job.result()
    client.close()


JUNK = [
    None,
    True,
    -1,
    10**9,
    "x",
    "",
    [],
    ["x"],
    {},
    {"a": 1},
    {"value": 3},
    {"path": "/etc/passwd"},
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
def test_no_value_of_a_request_makes_the_page_apologise(
    site: Site, junk: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Every function but the runs, whose own values :func:`test_the_api_says_why` tries."""
    for function in list(site.demo.fns.values()):
        for place in range(len(function.inputs)):
            data = site.form(function.api_name)
            data[place] = junk
            if function.queue:
                continue
            response = site.call(function.api_name, data)
            said = json.dumps(response.json())
            assert response.status_code in (200, 500), said
            assert response.status_code == 200 or response.json()["error"], said
            assert "Something went wrong" not in said, (function.api_name, place, said)
    assert not caplog.records


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tau_conf=abc", "'abc' is no number"),
        ("tau_conf=nan", "tau_conf must be in [0, 1], got nan"),
        ("tau_conf=inf", "tau_conf must be in [0, 1], got inf"),
        ("max_new_tokens=1e999", "max_new_tokens must be an integer >= 1, got inf"),
        ("max_new_tokens=1e99", "max_new_tokens must be at most 4,096"),
        ("max_new_tokens=-1e999", "max_new_tokens must be an integer >= 1, got -inf"),
        ("seed=1.5", "seed must be an integer >= 0, got 1.5"),
        ("seed=", "seed must be an integer >= 0, got None"),
        ("block_size=0x10", "'0x10' is no number"),
        ("pair=..", "model pair must be one of"),
        ("pair=", "model pair must be one of"),
        ("pair=%00", "model pair must be one of"),
        ("tau_conf=0.5&tau_conf=abc", "'abc' is no number"),
        ("tau_conf=abc&tau_act=2", "'abc' is no number"),
    ],
)
def test_a_link_with_a_bad_setting_is_told_in_words(
    site: Site, query: str, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = site.call("open", [""], f"?{query}")
    assert response.status_code == 200
    (message,) = told(response.json()["data"][0])
    assert message["kind"] == "error"
    start = "This link contains an invalid setting: "
    assert message["text"].startswith(start + text)
    assert not caplog.records


@pytest.mark.parametrize("query", ["tau_conf=abc&tau_conf=0.5", "max_new_tokens=1e1", "other=x"])
def test_of_a_repeated_parameter_the_last_one_counts(site: Site, query: str) -> None:
    response = site.call("open", [""], f"?{query}")
    kinds = [message["kind"] for message in told(response.json()["data"][0])]
    assert kinds == ([] if query == "other=x" else ["fill"])


def test_what_a_handler_refuses_is_told_on_the_board(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for name, data, text in (
        ("download", None, "There is no finished race to download yet."),
        ("open_link", {"link": "race=AAAA"}, "This link cannot be opened: its end is missing."),
    ):
        body = site.body(name, [None] if data is None else []) | {"event_data": data}
        answers = site.post(f"run/{name}", body).json()["data"]
        first, *rest = (each for each in answers if each is not None)
        (packed,) = [each for each in (first, *rest) if isinstance(each, str)]
        assert told(packed) == [{"kind": "error", "text": text, "over": False}]
    assert not caplog.records
