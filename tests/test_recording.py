"""Recordings: an exact file, every limit by name, and nothing but refusals for hostile files."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from races import ar_trace, d2f_trace, decode, header, token_text, with_value

from app.conversation import Exchange
from app.lanes.lane import Lane, recorded_lane
from app.page.reducer import LaneBoard
from app.recordings.recording import RecordedLane, Recording, record, replay_lane
from app.recordings.refusals import RecordingError
from d2f import ARConfig, BlockView, Commit, D2FConfig, StepEvent, Trace, TraceHeader, VanillaConfig
from d2f.config import GRIDS, DecodeConfig
from d2f.events import FULLY_ACTIVATED
from d2f.policy import BlockPipeline, Policy, policy_of

ROOT = Path(__file__).parents[1]
STOPS = (0, 7)
TEXTS = (
    "<end>",
    " a",
    "",
    " ",
    "\n\t",
    '"\\',
    "\ufffd",
    "<stop>",
    " caf\u00e9",
    "\U0001f600",
    " a",
)
PROMPT_ID = 5
PAST = (Exchange("Hello.", ("Hi!", "")), Exchange("How are you?", ("Fine.", "<b>Well</b>.")))


def race() -> Recording:
    """The golden race of ``races``, recorded."""
    lanes = [recorded_lane("D2F", d2f_trace(), token_text), recorded_lane("AR", ar_trace(), str)]
    for lane in lanes:
        while lane.advance() is not None:
            pass
    return record("Count to four.", lanes, "Both answers are correct.")


# --- Runs as the decoders make them: their loops, with dice for a model. ---


Dice = Callable[[random.Random], int]


def token(rng: random.Random) -> int:
    return rng.choice(STOPS) if rng.random() < 0.02 else rng.choice((1, 2, 3, 4, 5, 6, 8, 9, 10))


def run(
    config: DecodeConfig, prompt: int, rng: random.Random, rate: float = 0.3, token: Dice = token
) -> list[StepEvent]:
    """A run of the config's own policy, under dice."""
    policy, events = policy_of(prompt, config), []
    while policy.finish_reason is None:
        plan = policy.plan()
        commits = sorted(
            DICE[type(config)](config, policy, plan.wanted, rng, rate, token),
            key=lambda commit: commit.position,
        )
        stops = [c.position for c in commits if c.token_id in STOPS]
        views = policy.record([c.position for c in commits], stops)
        step, seconds, reason = len(events), rng.expovariate(50), policy.finish_reason
        events.append(
            StepEvent(step, seconds, plan.window, tuple(commits), views, policy.cached, reason)
        )
    return events


def roll_d2f(
    config: D2FConfig,
    policy: BlockPipeline,
    wanted: list[int],
    rng: random.Random,
    rate: float,
    token: Dice,
) -> Iterator[Commit]:
    for block in policy.uncached:
        sure = [p for nth, p in enumerate(block.masked) if rng.random() < rate * 0.8**nth]
        sure = sure if config.tau_conf < 1 else []
        yield from (Commit(p, token(rng), above(config.tau_conf, rng)) for p in sure)
        if block.masked and block.state == FULLY_ACTIVATED and not sure:
            low = rng.uniform(0, config.tau_conf)
            yield Commit(rng.choice(block.masked), token(rng), low, True)


def roll_any(
    config: DecodeConfig, policy: Policy, wanted: list[int], rng: random.Random, *dice: Any
) -> Iterator[Commit]:
    number = min(getattr(config, "tokens_per_step", 1), len(wanted))
    yield from (Commit(p, dice[-1](rng), rng.random()) for p in rng.sample(wanted, number))


def above(tau: float, rng: random.Random) -> float:
    return tau + (1 - tau) * (1 - rng.random())


DICE: dict[type, Callable[..., Iterator[Commit]]] = {
    D2FConfig: roll_d2f,
    ARConfig: roll_any,
    VanillaConfig: roll_any,
}


def lane_of(config: DecodeConfig, events: list[StepEvent], prompt: int) -> RecordedLane:
    versions = {"python": "3.11.7", "torch": "2.13.0"}
    head = TraceHeader(config, "tiny", "cpu", "float32", (PROMPT_ID,) * prompt, STOPS, versions)
    trace = Trace(head, tuple(events))
    text = "".join(TEXTS[i] for i in trace.token_ids if i not in STOPS)
    return RecordedLane("lane", trace.with_text(text), {i: TEXTS[i] for i in trace.canvas.values()})


RATIOS = st.sampled_from([0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.95, 1.0])
CONFIGS = st.one_of(
    st.builds(
        D2FConfig,
        max_new_tokens=st.integers(1, 70),
        block_size=st.integers(1, 20),
        tau_add=RATIOS,
        tau_act=RATIOS,
        tau_conf=st.sampled_from([0.0, 0.1, 0.29, 0.5, 0.7, 0.895, 0.9, 0.999, 1.0]),
        max_active_blocks=st.none() | st.integers(1, 4),
        early_stop=st.booleans(),
        grid=st.sampled_from(GRIDS),
    ),
    st.builds(ARConfig, max_new_tokens=st.integers(1, 40), temperature=st.sampled_from([0, 0.7])),
    st.builds(
        VanillaConfig,
        max_new_tokens=st.integers(1, 40),
        tokens_per_step=st.integers(1, 5),
        block_size=st.none() | st.integers(1, 12),
    ),
)


@st.composite
def lanes(draw: st.DrawFn) -> RecordedLane:
    """A run of any decoder, whole or cancelled after any step."""
    config, prompt = draw(CONFIGS), draw(st.integers(1, 30))
    rng = random.Random(draw(st.integers(0, 10**6)))
    events = run(config, prompt, rng, draw(st.floats(0.05, 0.9)))
    kept = draw(st.just(len(events)) | st.integers(0, len(events)))
    return lane_of(config, events[:kept], prompt)


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    """One or two lanes, after none to three earlier turns."""
    answering = draw(st.lists(lanes(), min_size=1, max_size=2).map(tuple))
    turns = st.builds(Exchange, TEXT, st.tuples(*[TEXT] * len(answering)))
    past = draw(st.lists(turns, max_size=3).map(tuple))
    verdict = draw(st.sampled_from(["", "Both answers are wrong."]))
    return Recording(draw(TEXT), answering, verdict, past)


RECORDINGS = recordings()


# --- A race becomes a recording, and plays again. ---


def test_a_race_is_recorded_with_the_text_of_every_token() -> None:
    lane = recorded_lane("D2F", d2f_trace(), token_text)
    while lane.advance() is not None:
        pass
    assert record("Count.", [lane], "Right.") == Recording(
        "Count.",
        (
            RecordedLane(
                "D2F",
                d2f_trace(),
                {0: "<end>", 1: "one", 2: " two", 3: " three", 4: " four", 5: "!"},
            ),
        ),
        "Right.",
    )


def test_a_cancelled_lane_is_recorded_as_far_as_it_came() -> None:
    lanes = [Lane("AR", header(ARConfig(), "ar"), iter(ar_trace().events), token_text, decode)]
    assert record("Count.", lanes).lanes[0].trace == Trace(header(ARConfig(), "ar"), ())
    lanes[0].advance()
    lanes[0].advance()
    (recorded,) = record("Count.", lanes).lanes
    assert recorded.trace.events == ar_trace().events[:2]
    assert recorded.trace.text == "one two"
    assert recorded.trace.finish_reason is None
    assert recorded.texts == {1: "one", 2: " two"}


def test_what_no_screen_shows_is_replaced_and_what_is_too_long_is_cut() -> None:
    def odd(token_id: int) -> str:
        return {1: "\r\n\t\x00", 2: "x" * 201, 3: "\ud800"}.get(token_id, "y" * 200)

    lane = Lane(
        "AR",
        header(ARConfig(), "ar"),
        iter(ar_trace().events),
        odd,
        lambda ids: "\x1b" * len(ids) + "z" * 200_000,
    )
    for _ in range(4):
        lane.advance()
    (recorded,) = record("Count.", [lane]).lanes
    assert recorded.texts == {
        1: "\ufffd\n\t\ufffd",
        2: "x" * 199 + "\u2026",
        3: "\ufffd",
        4: "y" * 200,
    }
    assert recorded.trace.text == "\ufffd" * 4 + "z" * 199_995 + "\u2026"


def test_what_was_said_before_is_recorded_as_a_screen_shows_it() -> None:
    lanes = [recorded_lane(name, ar_trace(), token_text) for name in ("one", "two")]
    recorded = record("Count.", lanes, past=[Exchange("Hello.", ("\x07Hi", "a\nb"))])
    assert recorded.past == (Exchange("Hello.", ("\ufffdHi", "a\nb")),)
    assert (recorded.turn, race().turn) == (2, 1)


def deltas(lane: Lane) -> Iterator[dict[str, Any]]:
    board = LaneBoard(0, lane.name, lane.header, lane.texts())
    yield board.start
    while (event := lane.advance()) is not None:
        yield board.step(event)


def test_a_saved_lane_draws_the_board_that_the_live_one_drew() -> None:
    live = recorded_lane("D2F", d2f_trace(), token_text)
    drawn = list(deltas(live))
    again = Recording.from_json(record("Count.", [live]).to_json())
    lane = replay_lane(again.lanes[0])
    assert list(deltas(lane)) == drawn
    assert drawn[1]["commits"] == [(0, "one", 0.95, 0), (2, " three", 0.95, 0)]
    assert lane.trace == d2f_trace()


def test_reading_and_writing_loads_no_torch() -> None:
    code = (
        "import sys, app.recordings.link, app.recordings.recording; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


# --- The file. ---


def test_the_json_of_a_race_is_this() -> None:
    data = json.loads(race().to_json())
    assert list(data) == ["format", "kind", "prompt", "verdict", "lanes"]
    assert (data["format"], data["kind"]) == (2, "d2f-race")
    assert (data["prompt"], data["verdict"]) == ("Count to four.", "Both answers are correct.")
    assert data["lanes"][0] == {
        "name": "D2F",
        "trace": json.loads(d2f_trace().to_json()),
        "texts": [
            [0, "<end>"],
            [1, "one"],
            [2, " two"],
            [3, " three"],
            [4, " four"],
            [5, "!"],
        ],
    }
    assert data["lanes"][1]["texts"][5] == [5, "5"]


def test_a_file_of_a_follow_up_has_its_earlier_turns_last() -> None:
    alone, after = race().to_json(), replace(race(), past=PAST).to_json()
    turns = '[["Hello.","Hi!",""],["How are you?","Fine.","<b>Well</b>."]]'
    assert after == f'{alone[:-1]},"past":{turns}}}'
    assert Recording.from_json(after).past == PAST
    assert Recording.from_json(alone).past == ()


@settings(max_examples=60)
@given(RECORDINGS)
def test_a_file_holds_a_recording_exactly(recorded: Recording) -> None:
    text = recorded.to_json()
    again = Recording.from_json(text)
    assert again == recorded
    assert again.to_json() == text


def test_what_no_reader_would_take_is_not_written() -> None:
    config = ARConfig(max_new_tokens=4096)
    events = tuple(StepEvent(i, 0.0, (0, 1), (Commit(3 + i, i, 1.0),)) for i in range(4096))
    for width, fits in ((50, True), (100, False)):
        texts = {i: "\u00e9" * width for i in range(4096)}  # six characters each in JSON
        recorded = Recording("", (RecordedLane("AR", Trace(header(config, ""), events), texts),))
        if fits:
            assert 1_500_000 < len(recorded.to_json()) < 2_500_000
        else:
            with pytest.raises(RecordingError, match="the run is too long to be saved"):
                recorded.to_json()


# --- Limits. ---

MANY = 4097
EVENT = json.loads(d2f_trace().to_json())["events"][0]
TRACE = ("lanes", 0, "trace")
HEADER = (*TRACE, "header")
STEP = (*TRACE, "events", 1)
COMMIT = (*STEP, "commits", 0)


def changed(path: tuple[Any, ...], value: Any) -> str:
    """The race's JSON with one value replaced; ``...`` removes it."""
    return with_value(race().to_json(), path, value)


LIMITS: list[tuple[tuple[Any, ...], Any, str]] = [
    (("kind",), "d2f-run", "it is not a race"),
    (("kind",), ..., "it is not a race"),
    (("format",), 3, "its format must be 1 or 2"),
    (("format",), True, "its format must be 1 or 2"),
    (("prompt",), 7, "the prompt must be text"),
    (("prompt",), "x" * 32_769, "the prompt is longer than 32,768 characters"),
    (("prompt",), "a\rb", "the prompt contains the character U+000D"),
    (("prompt",), "a\x9fb", "the prompt contains the character U+009F"),
    (("prompt",), "\ud800", "the prompt contains the character U+D800"),
    (("verdict",), None, "the verdict must be text"),
    (("verdict",), "x" * 501, "the verdict is longer than 500 characters"),
    (("lanes",), [], "a race has one or two lanes"),
    (("lanes",), [0, 0, 0], "a race has one or two lanes"),
    (("lanes",), {"0": 0}, "lanes must be a list"),
    (("lanes", 0), None, "lanes[0] must be an object"),
    (("lanes", 0, "name"), "x" * 201, "the name of a lane is longer than 200 characters"),
    (("lanes", 0, "name"), 1, "the name of a lane must be text"),
    (("lanes", 0, "texts"), [[1, "one"]], "the texts must be those of the tokens"),
    (("lanes", 0, "texts", 0), [6, "six"], "the texts must be those of the tokens"),
    (("lanes", 0, "texts"), [[i, "x"] for i in range(7)], "the texts must be those of the tokens"),
    (("lanes", 0, "texts", 0), [1, "two"], "a token has two texts"),
    (("lanes", 0, "texts", 0), [0.0, "zero"], "lanes[0].texts[0][0] must be a whole number"),
    (("lanes", 0, "texts", 0), [False, "zero"], "lanes[0].texts[0][0] must be a whole number"),
    (("lanes", 0, "texts", 0), [[], "zero"], "lanes[0].texts[0][0] must be a whole number"),
    (("lanes", 0, "texts", 0, 1), "x" * 201, "the text of a token is longer than 200 characters"),
    (("lanes", 0, "texts", 0, 1), "\x7f", "the text of a token contains the character U+007F"),
    (("lanes", 0, "texts", 0, 1), 0, "the text of a token must be text"),
    (("lanes", 0, "texts"), [[i, ""] for i in range(MANY)], "too many texts"),
    ((*TRACE, "text"), "x" * 200_001, "an answer is longer than 200,000 characters"),
    ((*TRACE, "config", "max_new_tokens"), 4097, "max_new_tokens must be at most 4,096"),
    ((*TRACE, "config", "block_size"), 4097, "block_size must be at most 4,096"),
    ((*TRACE, "config", "max_active_blocks"), 4097, "max_active_blocks must be at most 4,096"),
    ((*TRACE, "config", "top_k"), 2**31, "top_k must be at most 2,147,483,647"),
    ((*TRACE, "config", "seed"), 2**63, "seed must be at most"),
    ((*TRACE, "config", "tau_conf"), 2, "tau_conf must be in [0, 1], got 2"),
    ((*TRACE, "decoder"), ["d2f"], "not a trace: TypeError"),
    ((*HEADER, "model"), "x" * 201, "the model is longer than 200 characters"),
    ((*HEADER, "device"), "a\x1b[31m", "the device contains the character U+001B"),
    ((*HEADER, "dtype"), "x" * 201, "the dtype is longer than 200 characters"),
    ((*HEADER, "prompt_ids"), [], "the prompt has too many tokens or none"),
    ((*HEADER, "prompt_ids"), [1] * 32_769, "the prompt has too many tokens"),
    ((*HEADER, "prompt_ids"), [-1], "a token id is out of range"),
    ((*HEADER, "prompt_ids"), [2**31], "a token id is out of range"),
    ((*HEADER, "prompt_ids"), 5, "expected a list of integers, got 5"),
    ((*HEADER, "stop_ids"), [1] * 1025, "a lane has too many stop tokens"),
    ((*HEADER, "versions"), {str(i): "" for i in range(17)}, "more than 16 versions"),
    ((*HEADER, "versions"), {"torch": "x" * 201}, "a version is longer than 200 characters"),
    ((*HEADER, "versions"), {"x" * 201: ""}, "a version is longer than 200 characters"),
    ((*HEADER, "held"), [[8, 1]], "a held token is out of range"),
    ((*HEADER, "held"), [[-1, 1]], "a held token is out of range"),
    ((*HEADER, "held"), [[5, 1], [4, 1]], "a held token is out of range"),
    ((*HEADER, "held"), [[5, 2**31]], "is out of range"),
    ((*HEADER, "held"), [[0, 1]], "a position is decided twice"),
    (COMMIT, [4, 2, 0.95, 0, [[1, 0.5]] * 17], "a token has too many candidates"),
    ((*STEP, "guesses"), [[2, 1, 0.5]], "a position is out of range in step 1"),
    ((*TRACE, "events"), "abc", "lanes[0].trace.events must be a list"),
    ((*TRACE, "events"), [EVENT] * MANY, "a lane has more than 4,096 steps"),
    ((*STEP, "commits"), [[3, 1, 0.5, 0]] * MANY, "a lane has more than 4,096 tokens"),
    ((*STEP, "blocks"), [[0, 3, 7, 1, "cached"]] * 50_001, "a lane has too many blocks"),
    ((*STEP, "step"), 2, "step 1 is missing"),
    ((*STEP, "seconds"), -1e-9, "seconds must be a number in [0, 1e+09], got -1e-09"),
    ((*STEP, "seconds"), 86_400.5, "the time is out of range in step 1"),
    ((*STEP, "seconds"), 1e-300, "the time is out of range in step 1"),
    ((*STEP, "seconds"), 86_400, "a lane takes more than a day"),
    ((*STEP, "window"), [3, 12], "the window is out of range in step 1"),
    ((*STEP, "window"), [-1, 5], "the window is out of range in step 1"),
    ((*STEP, "window"), [5, 5], "the window is out of range in step 1"),
    ((*STEP, "cache_length"), 12, "the cache is out of range in step 1"),
    ((*STEP, "cache_length"), -1, "the cache is out of range in step 1"),
    ((*STEP, "finish_reason"), "stop", "the run goes on after its end in step 1"),
    ((*STEP, "finish_reason"), "bored", "finish_reason must be one of"),
    ((*COMMIT, 0), 2, "a position is out of range in step 1"),
    ((*COMMIT, 0), 11, "a position is out of range in step 1"),
    ((*COMMIT, 0), 3, "a position is decided twice"),
    ((*COMMIT, 1), -1, "a token id is out of range in step 1"),
    ((*COMMIT, 1), 2**31, "a token id is out of range in step 1"),
    ((*COMMIT, 2), 1.01, "confidence must be a number in [0, 1], got 1.01"),
    ((*COMMIT, 2), -0.01, "confidence must be a number in [0, 1], got -0.01"),
    ((*COMMIT, 2), "high", "confidence must be a number in [0, 1], got 'high'"),
    ((*STEP, "blocks", 0), [4097, 3, 7, 1, "cached"], "a block is out of range in step 1"),
    ((*STEP, "blocks", 0), [0, 2, 7, 1, "cached"], "a block is out of range in step 1"),
    ((*STEP, "blocks", 0), [0, 3, 12, 1, "cached"], "a block is out of range in step 1"),
    ((*STEP, "blocks", 0), [0, 7, 7, 0, "cached"], "a block is out of range in step 1"),
    ((*STEP, "blocks", 0), [0, 3, 7, 5, "cached"], "a block is out of range in step 1"),
    ((*STEP, "blocks", 0), [0, 3, 7, 1, "asleep"], "block state must be one of"),
]


@pytest.mark.parametrize(("path", "value", "reason"), LIMITS, ids=range(len(LIMITS)))
def test_each_limit_is_kept_and_named(path: tuple[Any, ...], value: Any, reason: str) -> None:
    with pytest.raises(RecordingError) as refused:
        Recording.from_json(changed(path, value))
    assert str(refused.value).startswith("This file cannot be opened: ")
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 250


LONG_TURN = ["", "x" * 60_000, "y" * 40_000]
BAD_PASTS: list[tuple[Any, str]] = [
    (None, "past must be a list"),
    ("abc", "past must be a list"),
    ({"0": 0}, "past must be a list"),
    ([["p", "a", "b"]] * 33, "there are more than 32 earlier turns"),
    (["pab"], r"past\[0\] must be a list"),
    ([[]], "an earlier turn must be a prompt and its answers"),
    ([["p"]], "an earlier turn must be a prompt and its answers"),
    ([["p", "a", "b", "c"]], "an earlier turn must be a prompt and its answers"),
    ([["p", "a"]], "an earlier turn must have an answer of every lane"),
    ([[1, "a", "b"]], "an earlier prompt must be text"),
    ([["p\x1b", "a", "b"]], "an earlier prompt contains the character U+001B"),
    ([["p" * 32_769, "a", "b"]], "an earlier prompt is longer than 32,768 characters"),
    ([["p", "a", None]], "an earlier answer must be text"),
    ([["p", "\ud800", "b"]], "an earlier answer contains the character U+D800"),
    ([["p", "x" * 200_001, "b"]], "an earlier answer is longer than 200,000 characters"),
    ([LONG_TURN, ["p", "", ""]], "earlier turns are longer than 100,000 characters"),
]


@pytest.mark.parametrize(("past", "reason"), BAD_PASTS, ids=range(len(BAD_PASTS)))
def test_earlier_turns_have_limits_too(past: Any, reason: str) -> None:
    with pytest.raises(RecordingError, match=reason.replace("+", "[+]")):
        Recording.from_json(json.dumps(json.loads(race().to_json()) | {"past": past}))


@pytest.mark.parametrize("past", [[["", "", ""]] * 32, [LONG_TURN], []], ids=len)
def test_earlier_turns_just_within_their_limits_are_accepted(past: list[list[str]]) -> None:
    text = json.dumps(json.loads(race().to_json()) | {"past": past})
    assert [[t.prompt, *t.answers] for t in Recording.from_json(text).past] == past


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("prompt",), "x" * 32_768),
        (("prompt",), "tab\tnew\nline"),
        (("verdict",), "x" * 500),
        ((*TRACE, "text"), "x" * 200_000),
        (("lanes", 0, "texts", 0, 1), "x" * 200),
        ((*TRACE, "config", "block_size"), 4096),
        ((*TRACE, "config", "max_new_tokens"), 4096),
        ((*HEADER, "prompt_ids"), [2**31 - 1] * 3),
        ((*HEADER, "stop_ids"), [0] * 1024),
        ((*HEADER, "versions"), {str(i): "" for i in range(16)}),
        ((*STEP, "seconds"), 86_399.5),
        ((*COMMIT, 2), 1),
        ((*COMMIT, 2), 0.0),
    ],
    ids=range(13),
)
def test_what_is_just_within_a_limit_is_accepted(path: tuple[Any, ...], value: Any) -> None:
    text = changed(path, value)
    place: Any = json.loads(Recording.from_json(text).to_json())
    for key in path:
        place = place[key]
    assert place == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("null", "it is not a race"),
        ("[]", "it is not a race"),
        ('"d2f-race"', "it is not a race"),
        ("\ufeff{}", "BOM"),
        ("[" * 100_000, "the JSON is nested too deeply"),
        ('{"a":' * 100_000, "the JSON is nested too deeply"),
        ("1" * 5000, "a number in the JSON has more than 1,000 digits"),
        ("1" * 5000 + ".5", "a number in the JSON has more than 1,000 digits"),
        ("-" + "1" * 20, "it is not a race"),
        ("1e999", "JSON holds finite numbers only, got 1e999"),
        ("NaN", "JSON holds finite numbers only, got NaN"),
        ("-Infinity", "JSON holds finite numbers only, got -Infinity"),
        ('{"kind":"d2f-race","kind":"d2f-race"}', "format is missing"),
        ('{"kind":"d2f-race"}', "format is missing"),
        (" " * 2_500_001, "it is longer than 2,500,000 characters"),
        (b"{}", "it is not text"),
        (None, "it is not text"),
        (7, "it is not text"),
    ],
    ids=range(20),
)
def test_what_is_no_recording_at_all_is_refused(text: Any, reason: str) -> None:
    with pytest.raises(RecordingError) as refused:
        Recording.from_json(text)
    assert reason in str(refused.value)


def test_a_recording_made_in_python_keeps_the_same_limits() -> None:
    (lane, _) = race().lanes
    with pytest.raises(RecordingError, match="^a race has one or two lanes$"):
        Recording("Count.", ())
    with pytest.raises(RecordingError, match="^the prompt contains the character U\\+000B$"):
        Recording("\x0b", (lane,))
    late = replace(lane.trace.events[0], seconds=float("inf"))
    trace = replace(lane.trace, events=(late, *lane.trace.events[1:]))
    with pytest.raises(RecordingError, match="^the time is out of range in step 0$"):
        Recording("Count.", (replace(lane, trace=trace),))
    view = BlockView(1, 3, 7, 0, "asleep")
    trace = replace(lane.trace, events=(replace(lane.trace.events[0], blocks=(view,)),))
    with pytest.raises(RecordingError, match="^a block is out of range in step 0$"):
        Recording("Count.", (replace(lane, trace=trace),))


# --- Fuzzing. ---

ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 10**18, -(10**18), 0.5, -0.0, 1e308, 5e-324),
    *("", "d2f", "\ud800", "\x00", "x" * 300, [], {}, [[]], [None], {"": ""}, [0] * 40),
]
SCRAPS = ["NaN", "1e999", "9" * 30, "[" * 3000, '"\\ud800"', "{", "]", ",", "-", '"', "\x00", "e"]


def mutate(data: Any, rng: random.Random) -> Any:
    """One value, anywhere, replaced, removed, repeated or swapped for another."""
    places = list(_places(data))
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.5:
        parent[key] = rng.choice(ODD)
    elif kind < 0.7 and isinstance(parent[key], (int, float)):
        parent[key] += rng.choice([-1, 1, 1000, 0.5])
    elif kind < 0.85:
        other, place = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
    elif isinstance(parent, list):
        parent.insert(key, parent[key])
    else:
        del parent[key]
    return data


def _keys(container: Any) -> Any:
    return range(len(container)) if isinstance(container, list) else container


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(_keys(data)) if isinstance(data, (list, dict)) else ():
        yield data, key
        yield from _places(data[key])


def scratch(text: str, rng: random.Random) -> str:
    """A text cut, or with a few characters changed, removed or put in."""
    if rng.random() < 0.1:
        return text[: rng.randrange(len(text))]
    for _ in range(rng.choice([1, 1, 1, 3])):
        at = rng.randrange(len(text))
        filling = rng.choice([*SCRAPS, chr(ord(text[at]) ^ 1 << rng.randrange(7)), "", "0"])
        text = text[:at] + filling + text[at + rng.choice([0, 1, 1, 5]) :]
    return text


def survives(read: Callable[[str], Recording], text: str) -> bool:
    """Whether ``text`` is accepted; it may only be refused, and either must be quick."""
    started = time.process_time()
    try:
        recorded = read(text)
    except RecordingError as refused:
        assert len(str(refused)) < 250
        return False
    finally:
        assert time.process_time() - started < 1
    assert Recording.from_json(recorded.to_json()) == recorded
    for lane in recorded.lanes:
        json.dumps(lane.trace.metrics, allow_nan=False)
    return True


def test_thousands_of_damaged_files_are_refused_or_valid() -> None:
    rng, text = random.Random(1), replace(race(), past=PAST).to_json()
    changed = [json.dumps(mutate(json.loads(text), rng)) for _ in range(1500)]
    damaged = [scratch(text, rng) for _ in range(1500)]
    accepted = [survives(Recording.from_json, each) for each in changed + damaged]
    assert 30 < sum(accepted) < 1500  # both ends of the reader were reached
