"""What a visitor asked, as messages of the board; failures become words in one place."""

import json
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from races import ar_trace, recorded

import app.page.tell
from app.conversation import Conversation, Exchange
from app.lanes.lane import Host, Lane, Question
from app.lanes.runners import rival_pair
from app.lanes.server import Server
from app.page.components import STATIC, RaceBoard
from app.page.form import form
from app.page.messages import pack_messages
from app.page.tell import SETTINGS, read_settings, retell, tell
from app.prompts import UNCHECKED, Known
from app.recordings.recording import Recording
from d2f.catalogue.pairs import PAIRS
from d2f.config import config_to_dict
from d2f.run_options import RunOptions
from d2f.tasks import draw

DEFAULTS = [getattr(PAIRS["mini"].config, name) for name in SETTINGS]


def told(prompt: str = "Count.", pair: str = "mini", settings: Any = DEFAULTS) -> list[dict]:
    batches = [told.messages for told in tell(prompt, pair, settings, None, Host())]
    return [message for batch in batches for message in batch]


def test_a_run_starts_steps_and_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app.page.tell, "pair_lanes", recorded)
    messages = [message for message in told() if message["kind"] != "status"]
    assert [message["kind"] for message in messages] == ["start", *["step"] * 9, "end"]
    # Each step of the AR lane takes as long as one of the D2F lane: they alternate to the end.
    assert [message["lane"] for message in messages[1:-1]] == [0, 1, 0, 1, 0, 1, 1, 1, 1]
    assert messages[0]["speed"] == 0.1
    assert [lane["name"] for lane in messages[0]["lanes"]] == ["D2F", "AR"]
    assert messages[-1]["lanes"][1] == {
        "metrics": ar_trace().metrics,
        "text": "one two three four!",
    }
    assert messages[-1]["summary"] == (
        f"D2F was 2.00 times as fast: 8 against 4 tokens per second. {UNCHECKED}"
    )


def test_the_end_tells_how_a_problem_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app.page.tell, "pair_lanes", recorded)
    problem = next(each for each in draw("gsm-mini", "test", 7) if len(each.turns) == 2)
    for turn, follow_up in ((0, problem.turns[1].prompt), (1, None)):
        *_, last = tell("Count.", "mini", DEFAULTS, Known(problem, turn), Host())
        assert last.messages[-1].get("follow_up") == follow_up


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"pair": "none"}, "model pair must be one of"),
        ({"settings": [0, *DEFAULTS[1:]]}, "max_new_tokens must be an integer >= 1, got 0"),
        ({"settings": [*DEFAULTS[:1], 1.5, *DEFAULTS[2:]]}, "block_size must be an integer"),
        (
            {"settings": [*DEFAULTS[:7], None, *DEFAULTS[8:]]},
            "seed must be an integer >= 0, got None",
        ),
    ],
)
def test_bad_input_is_one_message(request_: dict[str, Any], message: str):
    (error,) = told(**request_)
    assert error["kind"] == "error" and error["text"].startswith(message)


def test_a_failure_is_told_by_the_number_of_its_log_entry(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def failing(*request: object) -> list[Lane]:
        raise RuntimeError("secret path")

    monkeypatch.setattr(app.page.tell, "pair_lanes", failing)
    (error,) = [message for message in told() if message["kind"] != "status"]
    number = caplog.records[0].getMessage().removeprefix("Failure ")
    assert len(caplog.records) == 1 and "secret path" in caplog.text
    assert error["text"] == (
        f"Something went wrong on the server. Its log has details under {number}."
    )


def test_a_panic_of_a_library_is_a_failure_in_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Panic(BaseException):
        """As those of a library in Rust."""

    def panicking(*request: object) -> list[Lane]:
        raise Panic("index out of range")

    monkeypatch.setattr(app.page.tell, "pair_lanes", panicking)
    *_, error = told()
    assert error["kind"] == "error" and error["text"].startswith("Something went wrong")
    assert "index out of range" in caplog.text


def test_a_run_that_is_to_end_says_no_more_what_it_waits_for(monkeypatch: pytest.MonkeyPatch):
    loading, go, stop = Event(), Event(), Event()

    def slow(*request: object) -> list[Lane]:
        loading.set()
        assert go.wait(10)
        return recorded()

    monkeypatch.setattr(app.page.tell, "pair_lanes", slow)
    run = tell("Count.", "mini", DEFAULTS, None, Host(), stop=stop)
    kinds = [[m["kind"] for m in next(run).messages]]
    assert loading.wait(10)
    stop.set()
    kinds.append([m["kind"] for m in next(run).messages])
    go.set()
    kinds += [[m["kind"] for m in told.messages] for told in run]
    assert kinds[0] == ["status"] and kinds[-1] == ["stopped"]
    assert not any(kinds[1:-1])


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("5 - 2 = 3. The answer is **3**.", "Both answers are correct."),
        ("The answer is 4.", "D2F is correct, AR is wrong."),
        (
            "I had 3 guesses.",
            "D2F is correct, AR was not checked. "
            "The page found no final answer that it can be sure of.",
        ),
    ],
)
def test_a_rival_is_judged_by_what_it_says_not_by_our_form(
    monkeypatch: pytest.MonkeyPatch, answer: str, sentence: str
):
    def lanes(question: Question, host: Host) -> list[Lane]:
        texts = ("So 3 are left.\n#### 3", answer)
        return [
            replace(lane, decode=lambda ids, text=text: text)
            for lane, text in zip(recorded(), texts, strict=True)
        ]

    monkeypatch.setattr(app.page.tell, "pair_lanes", lanes)
    rival = rival_pair(PAIRS["mini"], {"ar": Server("http://h/v1", "llama")})
    problem = next(each for each in draw("gsm-mini", "test", 7) if each.expected[0] == "3")
    host = Host(pairs={"rival": rival})
    *_, last = tell(problem.prompt, "rival", DEFAULTS, Known(problem), host)
    (end,) = last.messages
    assert end["summary"].endswith(f"per second. {sentence}")
    assert last.recording.verdict == sentence
    assert Recording.from_json(last.recording.to_json()).verdict == sentence


def test_a_follow_up_is_recorded_and_told_again_with_what_was_said_before(
    monkeypatch: pytest.MonkeyPatch,
):
    def lanes(question: Question, host: Host) -> list[Lane]:
        said = question.conversation.latest(1)  # the first turn was dropped for room
        chats = [said.messages(index, question.prompt) for index in range(2)]
        return [replace(lane, chat=chat) for lane, chat in zip(recorded(), chats, strict=True)]

    monkeypatch.setattr(app.page.tell, "pair_lanes", lanes)
    past = Conversation("mini").with_turn("One?", ["1", "i"]).with_turn("Two?", ["2\x07", "ii"])
    *_, last = tell("Three?", "mini", DEFAULTS, None, Host(), past)
    assert last.recording.past == (Exchange("Two?", ("2\ufffd", "ii")),)
    start, *_, end = retell(last.recording)
    assert [lane["chat"] for lane in start["lanes"]] == [
        ["Two?", "2\ufffd", "Three?"],
        ["Two?", "ii", "Three?"],
    ]
    assert start["turn"] == 2 and end["note"].startswith("Turn 2 of a conversation. As recorded")
    start, *_, end = retell(replace(last.recording, past=()))
    assert [lane["chat"] for lane in start["lanes"]] == [["Three?"]] * 2
    assert start["turn"] == 1 and end["note"].startswith("As recorded")


def test_a_compiled_host_takes_no_other_blocks():
    host = Host(RunOptions(compile=True))
    other = [*DEFAULTS[:1], DEFAULTS[1] * 2, *DEFAULTS[2:]]
    (told_,) = tell("Hi", "mini", other, None, host)
    (error,) = told_.messages
    assert error["kind"] == "error" and "block_size is fixed here at 8" in error["text"]


@pytest.mark.parametrize(
    ("options", "compiled", "fused"),
    [
        ({}, False, False),
        ({"compile": True}, True, True),
        ({"compile": True, "device": "cuda:1"}, True, False),
        ({"fuse": True, "device": "cuda"}, True, True),
    ],
)
def test_a_gpu_captures_unless_it_is_to_compile(
    options: dict[str, Any], compiled: bool, fused: bool
):
    run = RunOptions(**options)
    assert (run.compile, run.fused) == (compiled, fused)


def test_settings_of_a_form_become_a_config():
    values = [128.0, 8.0, 0.2, 1.0, 0.0, None, 0.7, 3.0, "klass", 1.0, 2.0, 0.5, 4.0]
    config = read_settings(PAIRS["mini"], values)
    assert config == replace(
        PAIRS["mini"].config,
        max_new_tokens=128,
        block_size=8,
        tau_add=0.2,
        tau_act=1,
        tau_conf=0,
        max_active_blocks=None,
        temperature=0.7,
        seed=3,
        rule="klass",
        max_entropy=1,
        entropy_bound=2,
        max_kl=0.5,
        stable_steps=4,
    )
    assert set(SETTINGS) < set(config_to_dict(config))


def test_packed_messages_hold_no_tag_whatever_a_model_wrote():
    text = "<script>alert(1)</script>"
    packed = pack_messages("run", 3, [{"kind": "step", "text": text}])
    assert "<" not in packed
    assert json.loads(packed)["messages"][0]["text"] == text


def test_no_model_text_can_reach_a_template():
    board = RaceBoard(form("mini", Host(), {}, []))
    assert board.css_template == ""
    for syntax in ("${", "{{", "`", "@children"):
        assert syntax not in board.html_template
    for script in STATIC.glob("*.js"):
        code = script.read_text(encoding="utf-8")
        for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert danger not in code, f"{script.name} uses {danger}"
