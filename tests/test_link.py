"""Links: exact but for what they say they lose, short, and nothing but refusals for hostile text.

Links are taken apart and made here with zlib and base64 alone, beside the code under test.
"""

import base64
import json
import random
import re
import time
import tracemalloc
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recording import (
    BAD_PASTS,
    PAST,
    RECORDINGS,
    mutate,
    race,
    run,
    scratch,
    survives,
)
from tiny import network

from app.lanes.lane import Lane
from app.recordings.link import from_link, to_link
from app.recordings.recording import RecordedLane, Recording, record
from app.recordings.refusals import RecordingError
from app.recordings.rows import link_settings, read_settings
from d2f import (
    ARConfig,
    BlockView,
    Commit,
    D2FConfig,
    Model,
    StepEvent,
    Trace,
    TraceHeader,
    VanillaConfig,
    stream,
)
from d2f.config import COMMIT_RULES, CONFIGS, GRIDS, DecodeConfig, DiffusionConfig, config_to_dict
from d2f.decode import trace_header
from d2f.policy import Held, policy_of
from d2f.policy.pipelined import BlockPipeline
from d2f.tokenizer import Tokenizer


def armour(content: str | bytes) -> str:
    """Any content in the outer form of a link."""
    data = content.encode() if isinstance(content, str) else content
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(data) + deflate.flush()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def bared(link: str) -> bytes:
    """The content of a link."""
    return zlib.decompress(base64.urlsafe_b64decode(link + "=" * (-len(link) % 4)), -15)


# --- A race worked out by hand, step by step. ---

WORDS = {1: "one", 2: " two", 3: " three", 4: " four", 5: "!", 6: "<end>"}
D2F = D2FConfig(block_size=4, max_new_tokens=8, tau_add=0.5, tau_act=0.75)
AR = ARConfig(max_new_tokens=8)
HEAD = ("cpu (x86_64)", "float32", (0, 0, 0))
FULLY, SEMI = "fully_activated", "semi_activated"
D2F_EVENTS = (
    StepEvent(
        0,
        0.03,
        (0, 7),
        (Commit(3, 1, 0.95), Commit(5, 3, 0.97)),
        (BlockView(1, 3, 7, 2, FULLY),),
        3,
    ),
    StepEvent(
        1,
        0.025,
        (3, 11),
        (Commit(4, 2, 1.0), Commit(9, 6, 0.92)),
        (BlockView(1, 3, 7, 1, FULLY), BlockView(2, 7, 11, 3, SEMI)),
        3,
    ),
    StepEvent(
        2,
        0.025,
        (3, 11),
        (Commit(6, 4, 0.4, True), Commit(7, 5, 0.91)),
        (BlockView(1, 3, 7, 0, "completed"), BlockView(2, 7, 11, 2, FULLY)),
        3,
    ),
    StepEvent(
        3,
        0.024,
        (3, 11),
        (Commit(8, 2, 0.93),),
        (BlockView(1, 3, 7, 0, "cached"), BlockView(2, 7, 11, 1, FULLY)),
        7,
        "stop",
    ),
)
AR_EVENTS = (
    StepEvent(0, 0.03, (0, 3), (Commit(3, 1, 0.5),), (), 3),
    StepEvent(1, 0.012, (3, 4), (Commit(4, 2, 1.0),), (), 4, "stop"),
)
BY_HAND = Recording(
    "Count to four.",
    (
        RecordedLane(
            "D2F",
            Trace(
                TraceHeader(D2F, "mini-d2f", *HEAD, (6,), {"torch": "2.13.0"}),
                D2F_EVENTS,
                "one two three four! two",
            ),
            WORDS,
        ),
        RecordedLane(
            "AR",
            Trace(TraceHeader(AR, "mini-ar", *HEAD, (2,), {}), AR_EVENTS, "One."),
            {1: "one", 2: "<end>"},
        ),
    ),
    "D2F is correct.",
)
PAYLOAD = [
    3,
    "d2f-race",
    "Count to four.",
    "D2F is correct.",
    [
        [
            "D2F",
            "d2f",
            {"max_new_tokens": 8, "block_size": 4, "tau_add": 0.5, "tau_act": 0.75},
            "mini-d2f",
            "cpu (x86_64)",
            "float32",
            {"torch": "2.13.0"},
            3,
            None,
            ["one", " two", " three", " four", "!", " two", "<end>"],
            # Candidates passed over before each commit of a step; the fourth of all is a stop.
            [[0, 1], [0, 3], [0, 0], [0]],
            [3],
            [95, 97, 100, 92, 40, 91, 93],
            500,
            [60, 50, 50, 48],
        ],
        [
            "AR",
            "ar",
            {"max_new_tokens": 8},
            "mini-ar",
            "cpu (x86_64)",
            "float32",
            {},
            3,
            "One.",
            ["one", "<end>"],
            [[0], [0]],
            [1],
            [50, 100],
            200,
            [150, 60],
        ],
    ],
]


FOLLOWED = [*PAYLOAD, [["Hello.", "Hi!", ""], ["How are you?", "Fine.", "<b>Well</b>."]]]


def linked(payload: Any) -> str:
    return armour(json.dumps(payload))


def test_a_link_made_by_hand_is_read_as_worked_out_by_hand() -> None:
    assert from_link(linked(PAYLOAD)) == BY_HAND


def test_a_link_holds_what_was_written_by_hand_and_nothing_else() -> None:
    link = to_link(BY_HAND)
    assert re.fullmatch("[A-Za-z0-9_-]+", link)
    assert json.loads(bared(link)) == PAYLOAD
    assert from_link(link) == BY_HAND


def test_a_link_of_a_follow_up_holds_its_earlier_turns_last() -> None:
    followed = replace(BY_HAND, past=PAST)
    link = to_link(followed)
    assert json.loads(bared(link)) == FOLLOWED
    assert from_link(link) == from_link(linked(FOLLOWED)) == followed


DEFAULTS = {
    "max_new_tokens": 512,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "seed": 0,
    "tau_conf": 0.9,
    "max_entropy": 0.4,
    "entropy_bound": 0.1,
    "max_kl": 0.01,
    "stable_steps": 1,
    "tau_add": 0.1,
    "tau_act": 0.95,
    "max_active_blocks": None,
    "early_stop": True,
    "grid": "prompt",
}
OWN = {
    "d2f": {"rule": "confidence", "block_size": 32},
    "vanilla": {"rule": "best", "block_size": None, "tokens_per_step": 1},
}


@pytest.mark.parametrize("decoder", CONFIGS)
def test_a_default_that_links_leave_out_stays_as_it_was(decoder: str) -> None:
    """Another one would change what old links of format 3 say."""
    values = config_to_dict(CONFIGS[decoder]())
    expected = DEFAULTS | OWN.get(decoder, {})
    assert {name: expected[name] for name in values.keys() & expected.keys()} == {
        name: values[name] for name in values.keys() & expected.keys()
    }
    assert len(values.keys() & expected.keys()) >= 5


@pytest.mark.parametrize("decoder", CONFIGS)
def test_every_setting_of_every_decoder_is_sent(decoder: str) -> None:
    other = {"max_new_tokens": 9, "seed": 3, "temperature": 0.5}
    config = replace(CONFIGS[decoder](), **other)
    assert link_settings(config) == other
    assert read_settings(decoder, link_settings(config)) == config
    assert link_settings(CONFIGS[decoder]()) == {}


# --- Round trips. ---


def told(recorded: RecordedLane) -> list[Any]:
    """What a link must keep exactly."""
    trace, stops = recorded.trace, recorded.trace.header.stop_ids
    steps = [
        (
            event.step,
            [
                (c.position, recorded.texts[c.token_id], c.token_id in stops, c.forced)
                for c in event.commits
            ],
            event.window,
            event.blocks,
            event.cache_length,
            event.finish_reason,
        )
        for event in trace.events
    ]
    exact = (trace.tokens, trace.forwards, trace.tokens_per_forward, trace.finish_reason)
    return [recorded.name, trace.header.config, trace.text, exact, steps]


def assert_kept(before: RecordedLane, after: RecordedLane) -> None:
    """Exact but for ids, times to a fiftieth of the median step, and confidences."""
    assert told(after) == told(before)
    config = before.trace.header.config
    ruled = isinstance(config, DiffusionConfig) and config.rule == "confidence"
    tau = config.tau_conf if ruled else -1.0
    steps = sorted(event.seconds for event in before.trace.events)
    tick = max(steps[len(steps) // 2] / 50, 1e-6) if steps else 0.0
    elapsed = [0.0, 0.0]
    for old, new in zip(before.trace.events, after.trace.events, strict=True):
        elapsed = [elapsed[0] + old.seconds, elapsed[1] + new.seconds]
        assert abs(elapsed[0] - elapsed[1]) <= tick / 2 + 1e-9
        for was, now in zip(old.commits, new.commits, strict=True):
            assert abs(was.confidence - now.confidence) < 0.051
            assert (was.confidence > tau) is (now.confidence > tau)
    assert abs(before.trace.seconds - after.trace.seconds) <= tick / 2 + 1e-9
    assert abs(before.trace.ttft - after.trace.ttft) <= tick / 2 + 1e-9
    assert after.trace.header.prompt_ids == (0,) * len(before.trace.header.prompt_ids)
    assert set(after.texts) == set(range(1, len(after.texts) + 1))


@settings(max_examples=150)
@given(RECORDINGS)
def test_a_link_keeps_a_run_of_the_policy(recorded: Recording) -> None:
    again = from_link(to_link(recorded))
    assert (again.prompt, again.verdict) == (recorded.prompt, recorded.verdict)
    assert again.past == recorded.past
    for before, after in zip(recorded.lanes, again.lanes, strict=True):
        assert_kept(before, after)
    assert [told(lane) for lane in from_link(to_link(again)).lanes] == list(map(told, again.lanes))
    assert Recording.from_json(again.to_json()) == again


def decoded(config: DecodeConfig, seed: int, cut: int, tokenizer: Tokenizer) -> RecordedLane:
    """A run of the real decoder over a random network, cancelled after ``cut`` steps."""
    causal = isinstance(config, ARConfig)
    net = network(
        tokenizer.vocab_size,
        seed=seed,
        sharpness=(4, 6, 8)[seed % 3],
        causal=causal,
        logit_shift=causal,
        mask_id=None if causal else 1,
        grid=getattr(config, "grid", "prompt"),
    )
    model, prompt = Model("tiny", net, tokenizer), tokenizer.encode("Count to four.")
    lane = Lane(
        name="lane",
        header=trace_header(model, prompt, config),
        source=stream(model, prompt, config),
        token_text=tokenizer.token_text,
        decode=tokenizer.decode,
    )
    while len(lane.events) < cut and lane.advance() is not None:
        pass
    lane.close()
    return record("Count to four.", [lane]).lanes[0]


REAL = st.one_of(
    st.builds(
        D2FConfig,
        max_new_tokens=st.integers(8, 60),
        block_size=st.integers(2, 12),
        tau_add=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
        tau_act=st.sampled_from([0.5, 0.9, 1.0]),
        tau_conf=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.9, 1.0]),
        temperature=st.sampled_from([0.0, 1.0]),
        max_active_blocks=st.sampled_from([None, 2]),
        early_stop=st.booleans(),
        grid=st.sampled_from(GRIDS),
        rule=st.sampled_from(COMMIT_RULES),
    ),
    st.builds(ARConfig, max_new_tokens=st.integers(1, 30)),
    st.builds(
        VanillaConfig,
        rule=st.sampled_from(COMMIT_RULES),
        tau_conf=st.sampled_from([0.3, 0.6, 1.0]),
        max_new_tokens=st.integers(1, 24),
        tokens_per_step=st.integers(1, 5),
        block_size=st.none() | st.integers(1, 30),
    ),
)


@settings(max_examples=40)
@given(config=REAL, seed=st.integers(0, 8), cut=st.just(999) | st.integers(0, 9))
def test_a_link_keeps_what_the_real_decoders_did(
    config: DecodeConfig, seed: int, cut: int, tokenizer_folder: Path
) -> None:
    stops = range(5, 5000, 30) if seed % 2 else ()
    lane = decoded(config, seed, cut, Tokenizer(tokenizer_folder, stops))
    (again,) = from_link(to_link(Recording("Count to four.", (lane,)))).lanes
    assert_kept(lane, again)


@pytest.mark.parametrize("forced", [[], [0], [0, 1]])
def test_under_another_rule_a_link_tells_what_was_forced(forced: list[int]) -> None:
    settings = {"max_new_tokens": 2, "rule": "entropy"}  # both tokens in one step
    head = ["vanilla", "vanilla", settings, "m", *HEAD[:2], {}, 3, None]
    told = [*head, ["a", "b"], [[0, 0]], [], [97, 100], 1, [5]]
    told += ["decoder", None, True, [], forced] if forced else []
    link = linked([3, "d2f-race", "", "", [told]])
    (lane,) = from_link(link).lanes
    assert lane.trace.events[0].commits == (
        Commit(3, 1, 0.97, 0 in forced),
        Commit(4, 2, 1.0, 1 in forced),
    )
    assert json.loads(bared(to_link(from_link(link))))[4][0] == told


# --- What is lost, and only that. ---


@pytest.mark.parametrize(
    ("tau", "confidence", "forced", "kept"),
    [
        (0.9, 0.904, False, 0.91),
        (0.9, 0.9000001, False, 0.91),
        (0.9, 0.896, True, 0.9),
        (0.9, 0.9, True, 0.9),
        (0.897, 0.896, True, 0.85),
        (0.897, 0.8975, False, 0.9),
        (0.3, 0.3, True, 0.3),
        (0.0, 0.0, True, 0.0),
        (0.0, 1e-9, False, 0.05),
        (0.5, 0.5001, False, 0.55),
        (0.5, 0.94, False, 0.94),
        (0.5, 0.42, True, 0.4),
        (1.0, 0.999, True, 1.0),
        (0.995, 0.9951, False, 1.0),
        # float32's 0.1 is above 0.1, yet not above it for a decoder that compares in float32.
        (0.1, 0.10000000149011612, True, 0.1),
    ],
)
def test_a_rounded_confidence_stays_on_its_side_of_tau_conf(
    tau: float, confidence: float, forced: bool, kept: float
) -> None:
    config = D2FConfig(block_size=4, max_new_tokens=8, tau_conf=tau)
    views = (BlockView(1, 1, 5, 3, FULLY),)
    event = StepEvent(0, 0.01, (0, 5), (Commit(1, 3, confidence, forced),), views, 1)
    trace = Trace(TraceHeader(config, "m", "cpu", "float32", (9,), (0,)), (event,), "a")
    recorded = Recording("", (RecordedLane("D2F", trace, {3: "a"}),))
    (again,) = from_link(to_link(recorded)).lanes[0].trace.events
    assert again == replace(event, commits=(Commit(1, 1, kept, forced),))


def test_tokens_are_numbered_by_text_and_stops_stay_apart() -> None:
    config = VanillaConfig(max_new_tokens=4, tokens_per_step=4)
    commits = tuple(Commit(1 + n, i, 0.5) for n, i in enumerate((30, 20, 40, 50)))
    event = StepEvent(0, 0.01, (0, 5), commits, (), 0, "stop")
    header = TraceHeader(
        config, "m", "cpu", "float32", (9,), (50, 60), {"python": "3.11.7", "torch": "2.13.0"}
    )
    texts = {30: "a", 20: "b", 40: "a", 50: "a"}
    lane = RecordedLane("vanilla", Trace(header, (event,), "aba"), texts)
    (lane,) = from_link(to_link(Recording("", (lane,)))).lanes
    assert lane.trace.token_ids == (1, 2, 1, 3)
    assert lane.texts == {1: "a", 2: "b", 3: "a"}
    assert lane.trace.header == TraceHeader(
        config, "m", "cpu", "float32", (0,), (3,), {"torch": "2.13.0"}
    )


def ar_lane(config: ARConfig, seconds: list[float], texts: dict[int, str]) -> RecordedLane:
    """An AR run over a prompt of three tokens, one token id after the other."""
    last = len(seconds) - 1
    events = tuple(
        StepEvent(
            i,
            time,
            (2 + i if i else 0, 3 + i),
            (Commit(3 + i, i % len(texts), 0.5),),
            (),
            3 + i,
            "length" if i == last and len(seconds) == config.max_new_tokens else None,
        )
        for i, time in enumerate(seconds)
    )
    return RecordedLane("AR", Trace(TraceHeader(config, "m", *HEAD, ()), events, ""), texts)


def timed(seconds: list[float]) -> list[float]:
    """The seconds of a run's steps after a link."""
    lane = ar_lane(ARConfig(max_new_tokens=len(seconds)), seconds, {0: ""})
    (again,) = from_link(to_link(Recording("", (lane,)))).lanes
    return [event.seconds for event in again.trace.events]


def test_times_are_rounded_without_drift() -> None:
    seconds = [0.0400004] + [0.01234] * 99
    times = timed(seconds)
    # A fiftieth of 12.34 ms lies between 200 and 500 microseconds.
    assert times[:5] == [0.04, 0.0124, 0.0122, 0.0124, 0.0124]
    assert sum(times) == pytest.approx(sum(seconds), abs=1e-4)


def test_steps_of_microseconds_are_told_in_microseconds() -> None:
    assert timed([2e-6, 0.0, 1.4e-6]) == [2e-6, 0.0, 1e-6]


# --- Size. ---


FIRST_ID = 11  # beyond the stop tokens of ``test_recording``


def words(count: int) -> dict[int, str]:
    """Made-up words, word parts and marks; the frequent ones, with low ids, are shorter."""
    rng = random.Random(0)
    made = {}
    for i in range(count):
        parts = rng.randint(1, 2 + i // 200)
        letters = (rng.choice("bcdfghklmnprstvw") + rng.choice("aeiou") for _ in range(parts))
        made[FIRST_ID + i] = " " * (rng.random() < 0.8) + "".join(letters)
    marks = {1: ",", 3: ".", 8: "\n", 13: " (", 29: ")", 49: "'s"}
    return made | {FIRST_ID + i: mark for i, mark in marks.items()}


LONG = {
    "d2f": D2FConfig(max_new_tokens=512, max_active_blocks=4),
    "ar": ARConfig(max_new_tokens=512),
}
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
    "May. How many clips did Natalia sell altogether in April and May? Explain every step."
)


def zipf(rng: random.Random) -> int:
    """One of 600 ids: the lower, the likelier."""
    return FIRST_ID - 1 + int(601 ** rng.random())


def long_lane(name: str, run: list[StepEvent], rng: random.Random) -> RecordedLane:
    """A run at 30 ms (D2F) or 12 ms (AR) a step, give or take 5 %, told in made-up words."""
    usual, made = {"d2f": 0.03, "ar": 0.012}[name], words(600)
    events = tuple(replace(event, seconds=rng.gauss(usual, usual / 20)) for event in run)
    versions = {"python": "3.11.7", "torch": "2.13.0+cpu", "transformers": "5.23.0"}
    place = (f"mini-{name}", "cpu (x86_64)", "float32", (5,) * 67, (700,))
    trace = Trace(TraceHeader(LONG[name], *place, versions), events)
    texts = {i: made[i] for i in trace.canvas.values()}
    text = "".join(made[i] for i in trace.token_ids)
    return RecordedLane(name.upper(), trace.with_text(text), texts)


def long_race() -> Recording:
    """512 tokens a lane, about three a forward in the D2F lane; answers that share only words."""
    rng = random.Random(3)
    d2f, ar = run(LONG["d2f"], 67, rng, 0.16, zipf), run(LONG["ar"], 67, rng, 0, zipf)
    lanes = (long_lane("d2f", d2f, rng), long_lane("ar", ar, rng))
    return Recording(QUESTION, lanes, "Both answers are wrong.")


def test_a_race_of_512_tokens_fits_in_6000_characters() -> None:
    recorded = long_race()
    d2f, ar = (lane.trace for lane in recorded.lanes)
    assert (d2f.tokens, ar.tokens, ar.forwards) == (512, 512, 512)
    link = to_link(recorded)
    assert 2.8 < d2f.tokens_per_forward < 3.3
    assert len(set(d2f.canvas.values())) > 190
    assert 4000 < len(link) <= 6000
    for before, after in zip(recorded.lanes, from_link(link).lanes, strict=True):
        assert_kept(before, after)


# --- What fits in no link. ---


@pytest.mark.parametrize(
    "changes",
    [
        {"window": (0, 6)},
        {"cache_length": 2},
        {"blocks": ()},
        {"finish_reason": None},
        {"commits": ()},
        {"commits": (Commit(8, 2, 0.93, True),)},
        {"commits": (Commit(8, 2, 0.9001, True),)},
        {"commits": (Commit(8, 2, 0.9),)},
        {"commits": (Commit(10, 2, 0.93),)},
        {"commits": (Commit(10, 2, 0.93), Commit(8, 2, 0.93))},
    ],
    ids=str,
)
def test_a_step_that_no_decoder_made_fits_in_no_link(changes: dict[str, Any]) -> None:
    lane = BY_HAND.lanes[0]
    last = replace(lane.trace.events[-1], **changes)
    trace = replace(lane.trace, events=(*lane.trace.events[:-1], last))
    texts = {i: WORDS[i] for i in trace.canvas.values()}
    recorded = Recording("", (RecordedLane("D2F", trace, texts),))
    with pytest.raises(RecordingError, match="^This run does not fit in a link; save it as"):
        to_link(recorded)


def test_traces_drawn_by_hand_fit_in_no_link() -> None:
    with pytest.raises(RecordingError, match="This run does not fit in a link; save it as"):
        to_link(race())


def test_a_run_that_is_too_long_says_so() -> None:
    rng = random.Random(0)
    texts = {i: "".join(rng.choices("abcdefghijklmnop", k=40)) for i in range(4096)}
    lane = ar_lane(ARConfig(max_new_tokens=4096), [0.01] * 4096, texts)
    with pytest.raises(RecordingError, match="save it as a file: it is too long"):
        to_link(Recording("", (lane,)))


# --- Limits. ---


def changed(path: tuple[int, ...], value: Any) -> str:
    payload = json.loads(json.dumps(PAYLOAD))
    place = payload
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return linked(payload)


NAME, DECODER, SETTING, MODEL, DEVICE, DTYPE, VERSIONS, PROMPT, ANSWER = range(9)
TOLD, STEPS, STOPS, SURE, TICK, TIMES = range(9, 15)
LANE = (4, 0)
WALKED = [[0, 1], [0, 3], [0, 0], [0]]
LIMITS: list[tuple[tuple[int, ...], Any, str]] = [
    ((0,), 4, "its format must be 1 or 2 or 3"),
    ((0,), True, "its format must be 1 or 2 or 3"),
    ((1,), "d2f-run", "it is not a race"),
    ((2,), None, "the prompt must be text"),
    ((2,), "x" * 32_769, "the prompt is longer than 32,768 characters"),
    ((2,), "\x00", "the prompt contains the character U+0000"),
    ((2,), "\udfff", "the prompt contains the character U+DFFF"),
    ((3,), "x" * 501, "the verdict is longer than 500 characters"),
    ((4,), [], "a race has one or two lanes"),
    ((4,), [0, 0, 0], "a race has one or two lanes"),
    ((4,), {"0": 0}, "lanes must be a list"),
    (LANE, 0, "its parts are not those of a race"),
    (LANE, {"name": "D2F"}, "its parts are not those of a race"),
    (LANE, [0] * 22, "its parts are not those of a race"),
    (LANE, [], "lanes[0].name is missing"),
    (LANE, PAYLOAD[4][0][:TIMES], "lanes[0].times is missing"),
    ((*LANE, NAME), "x" * 201, "the name of a lane is longer than 200 characters"),
    ((*LANE, DECODER), "eagle", "its decoder is unknown"),
    ((*LANE, DECODER), [], "lanes[0].decoder must be text"),
    ((*LANE, SETTING), {"luck": 1}, "its settings are not those of its decoder"),
    ((*LANE, SETTING, "rule"), "luck", "rule must be one of confidence, entropy"),
    ((*LANE, SETTING), "8", "lanes[0].settings must be an object"),
    ((*LANE, SETTING), [8], "lanes[0].settings must be an object"),
    ((*LANE, SETTING, "max_new_tokens"), 4097, "max_new_tokens must be at most 4,096"),
    ((*LANE, SETTING, "max_new_tokens"), 8.0, "max_new_tokens must be an integer >= 1"),
    ((*LANE, SETTING, "seed"), 2**63, "seed must be at most"),
    ((*LANE, SETTING, "block_size"), 4097, "block_size must be at most 4,096"),
    ((*LANE, SETTING, "max_active_blocks"), 4097, "max_active_blocks must be at most 4,096"),
    ((*LANE, MODEL), "x" * 201, "the model is longer than 200 characters"),
    ((*LANE, DEVICE), "\x1b", "the device contains the character U+001B"),
    ((*LANE, DTYPE), 32, "the dtype must be text"),
    ((*LANE, VERSIONS), [], "a version must be an object"),
    ((*LANE, VERSIONS), {"torch": 2}, "a version must be text"),
    ((*LANE, VERSIONS), {str(i): "" for i in range(17)}, "more than 16 versions"),
    ((*LANE, PROMPT), 32_769, "the prompt is out of range"),
    ((*LANE, PROMPT), 0, "the prompt is out of range"),
    ((*LANE, PROMPT), "3", "the prompt must be a whole number"),
    ((*LANE, ANSWER), "x" * 200_001, "an answer is longer than 200,000 characters"),
    ((*LANE, ANSWER), 7, "an answer must be text"),
    ((*LANE, TOLD), ["one"], "a lane must have a text for every token"),
    ((*LANE, TOLD), [""] * 8, "a lane must have a text for every token"),
    ((*LANE, TOLD), [""] * 4097, "a column is too long"),
    ((*LANE, TOLD), "one", "the text of a token must be a list"),
    ((*LANE, TOLD, 0), 1, "the text of a token must be text"),
    ((*LANE, TOLD, 0), [], "the text of a token must be text"),
    ((*LANE, TOLD, 0), "x" * 201, "the text of a token is longer than 200 characters"),
    ((*LANE, TOLD, 0), "\r", "an answer contains the character U+000D"),
    ((*LANE, STEPS), [[0]] * 4097, "a column is too long"),
    ((*LANE, STEPS), [0], "lanes[0].steps[0] must be a list"),
    ((*LANE, STEPS, 0, 0), -1, "lanes[0].steps[0][0] is out of range"),
    ((*LANE, STEPS, 0, 0), True, "lanes[0].steps[0][0] must be a whole number"),
    ((*LANE, STEPS), WALKED[:3], "a lane must have a text for every token"),
    ((*LANE, STEPS), [*WALKED, [0]], "the run goes on after its end in step 4"),
    ((*LANE, STEPS), [[0, 1], [], [0, 3]], "the commits are out of range in step 1"),
    ((*LANE, STEPS, 3), [0, 0, 0], "the commits are out of range in step 3"),
    ((*LANE, STEPS, 3), [46**7], "the commits are out of range in step 3"),
    ((*LANE, STEPS, 0, 1), 3, "the commits are out of range in step 0"),
    ((*LANE, STOPS), [7], "a column is too long"),
    ((*LANE, STOPS), [0] * 4097, "a column is too long"),
    ((*LANE, SURE), [95, 97, 100, 92, 40, 91], "a lane must have a confidence for every token"),
    ((*LANE, SURE, 0), 101, "a confidence is out of range"),
    ((*LANE, SURE, 0), -1, "a confidence is out of range"),
    ((*LANE, SURE, 0), 0.95, "a confidence must be a whole number"),
    ((*LANE, TICK), 0, "the unit of time is out of range"),
    ((*LANE, TICK), 500.0, "the unit of time must be a whole number"),
    ((*LANE, TICK), 10**18, "the unit of time is out of range"),
    ((*LANE, TIMES), [60, 50, 50], "a lane must have a time for every step"),
    ((*LANE, TIMES, 3), -1, "the time is out of range"),
    ((*LANE, TIMES, 3), 10**999, "the time is out of range"),
    ((*LANE, TIMES, 3), 172_801_000, "the time is out of range in step 3"),
    ((*LANE, TIMES), [86_400_000, 43_200_000, 86_400_000, 0], "a lane takes more than a day"),
]


@pytest.mark.parametrize(("path", "value", "reason"), LIMITS, ids=range(len(LIMITS)))
def test_each_limit_is_kept_and_named(path: tuple[int, ...], value: Any, reason: str) -> None:
    with pytest.raises(RecordingError) as refused:
        from_link(changed(path, value))
    assert str(refused.value).startswith("This link cannot be opened: ")
    assert reason in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(("past", "reason"), BAD_PASTS, ids=range(len(BAD_PASTS)))
def test_earlier_turns_have_limits_too(past: Any, reason: str) -> None:
    with pytest.raises(RecordingError, match=reason.replace("+", "[+]")):
        from_link(linked([*PAYLOAD, past]))


def test_nothing_follows_the_earlier_turns() -> None:
    with pytest.raises(RecordingError, match="its parts are not those of a race"):
        from_link(linked([*FOLLOWED, []]))


def remasked(settings: dict[str, Any], steps: list[list[int]]) -> str:
    """A link of one vanilla lane: two steps of two tokens each."""
    head = ["vanilla", "vanilla", settings, "m", *HEAD[:2], {}, 3, None]
    lane = [*head, ["a", "b", "c", "d"], steps, [], [100] * 4, 1, [5, 5]]
    return linked([3, "d2f-race", "", "", [lane]])


def test_a_vanilla_lane_commits_in_its_leftmost_unfinished_block() -> None:
    settings = {"max_new_tokens": 4, "tokens_per_step": 2, "block_size": 2}
    (lane,) = from_link(remasked(settings, [[0, 0], [0, 0]])).lanes
    commits = [[Commit(3 + i, 1 + i, 1.0) for i in pair] for pair in ((0, 1), (2, 3))]
    assert lane.trace.events == (
        StepEvent(0, 5e-6, (0, 7), tuple(commits[0])),
        StepEvent(1, 5e-6, (0, 7), tuple(commits[1]), finish_reason="length"),
    )
    with pytest.raises(RecordingError, match="the commits are out of range in step 0"):
        from_link(remasked(settings, [[0, 1], [0, 0]]))


def test_settings_are_checked_before_they_cost_anything() -> None:
    with pytest.raises(RecordingError, match="max_new_tokens must be at most 4,096"):
        from_link(remasked({"max_new_tokens": 10**15, "tokens_per_step": 2}, [[0, 0], [0, 0]]))


# --- Held tokens. ---


def held_lane(config: DecodeConfig, held: tuple[tuple[int, int], ...]) -> RecordedLane:
    """A run around tokens that were given: the first wanted position, over and over."""
    policy = policy_of(3, config, Held(frozenset(3 + place for place, _ in held)))
    events: list[StepEvent] = []
    while policy.finish_reason is None:
        plan = policy.plan()
        position = plan.wanted[0]
        views = policy.record([position], [])
        told = ((Commit(position, 40, 0.95),), views, policy.cached, policy.finish_reason)
        events.append(StepEvent(len(events), 0.01, plan.window, *told))
    trace = Trace(TraceHeader(config, "m", *HEAD, (6,), {}, held=held), tuple(events))
    texts = {i: f"<{i}>" for i in trace.canvas.values()}
    text = "".join(texts[i] for i in trace.token_ids)
    return RecordedLane("lane", trace.with_text(text), texts)


@pytest.mark.parametrize(
    ("config", "held"),
    [
        (D2F, ((1, 50), (4, 51))),
        (AR, ((0, 50), (1, 51))),
        (VanillaConfig(max_new_tokens=8, block_size=4), ((2, 50), (3, 50))),
    ],
    ids=["d2f", "ar", "vanilla"],
)
def test_a_link_keeps_held_tokens(config: DecodeConfig, held: tuple[tuple[int, int], ...]) -> None:
    lane = held_lane(config, held)
    link = to_link(Recording("Fill.", (lane,)))
    assert json.loads(bared(link))[4][0][15:] == ["decoder", None, True, [[p, 0] for p, _ in held]]
    (again,) = from_link(link).lanes
    assert_kept(lane, again)
    told = [(place, again.texts[i]) for place, i in again.trace.header.held]
    assert told == [(place, f"<{i}>") for place, i in held]
    assert again.trace.tokens == lane.trace.tokens


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ([[8, 0]], "a held token is out of range"),
        ([[10**15, 0]], "a held token is out of range"),
        ([[4, 0], [1, 0]], "the commits are out of range in step 1"),
        ([[-1, 0]], "lanes[0].held[0][0] is out of range"),
        ([1], "lanes[0].held[0] must be a list"),
        ([[0, 0]] * 4097, "a column is too long"),
    ],
    ids=range(6),
)
def test_held_tokens_have_limits_too(held: Any, reason: str) -> None:
    payload = json.loads(json.dumps(PAYLOAD))
    payload[4][0] += ["decoder", None, True, held]
    with pytest.raises(RecordingError) as refused:
        from_link(linked(payload))
    assert reason in str(refused.value)


NOISE = random.Random(0).randbytes(65_537)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its end is missing"),
        ("AAAAA", "its end is missing"),
        ("AA==", "its end is missing"),
        ("AA\n", "its end is missing"),
        ("\u0660\u0661", "its end is missing"),
        ("x" * 87_384, "it is longer than 65,536 bytes"),
        (base64.urlsafe_b64encode(NOISE).decode().rstrip("="), "it is longer than 65,536 bytes"),
        (base64.urlsafe_b64encode(NOISE[:-1]).decode().rstrip("="), "it is damaged"),
        (to_link(BY_HAND)[:-4], "its end is missing"),
        (to_link(BY_HAND) + "AAAA", "something follows its end"),
        (armour(b"\xff\xfe"), "codec can't decode"),
        (armour(b" " * 1_048_577), "it unfolds to more than 1,048,576 bytes"),
        (armour(b" " * 1_048_576), "Expecting value"),
        (armour("[" * 1_000_000), "the JSON is nested too deeply"),
        (armour('{"a":' * 200_000), "the JSON is nested too deeply"),
        (armour("1" * 1_000_000), "a number in the JSON has more than 1,000 digits"),
        (armour("[1,NaN]"), "JSON holds finite numbers only, got NaN"),
        (armour("[1e400]"), "JSON holds finite numbers only, got 1e400"),
        (armour('{"a":1,"a":1}'), "it is not a race"),
        (armour("{}"), "it is not a race"),
        (armour('[1,"d2f-race"]'), "its columns are not those of a race"),
        (armour('[3,"d2f-race"]'), "prompt is missing"),
        (armour('["1","d2f-race"]'), "its format must be 1 or 2 or 3"),
        (b"AAAA", "it is not text"),
        (None, "it is not text"),
    ],
    ids=range(25),
)
def test_what_is_no_link_at_all_is_refused(text: Any, reason: str) -> None:
    with pytest.raises(RecordingError) as refused:
        from_link(text)
    assert reason in str(refused.value)


def test_a_bomb_is_not_unfolded() -> None:
    bomb = armour(b"\x00" * 60_000_000)
    assert len(bomb) < 87_000
    tracemalloc.start()
    with pytest.raises(RecordingError, match="unfolds to more than"):
        from_link(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def busy(config: D2FConfig, picks: tuple[int, ...]) -> str:
    """The link of a run that commits these of its candidates, for up to 1,000 steps."""
    pipeline, steps = BlockPipeline(3, config), []
    while pipeline.finish_reason is None and len(steps) < 1000:
        masked = pipeline.plan().wanted
        chosen = sorted({range(len(masked))[pick] for pick in picks})
        steps.append([i - before - 1 for before, i in pairwise([-1, *chosen])])
        pipeline.record([masked[i] for i in chosen], [])
    payload = json.loads(json.dumps(PAYLOAD))
    payload[4][0][SETTING] = link_settings(config)
    payload[4][0][STEPS:SURE] = [steps, []]
    return linked(payload)


@pytest.mark.parametrize(
    ("block_size", "tau_add", "picks", "reason"),
    [
        # Two blocks are in flight however many lie behind them: no work, and the texts are missing.
        (1, 0.1, (0,), "a text for every token"),
        (4096, 0.1, (0,), "too many blocks and steps"),
        (4, 0.25, (0, -1), "too many blocks in flight"),
    ],
)
def test_a_run_that_would_keep_the_pipeline_busy_is_refused_soon(
    block_size: int, tau_add: float, picks: tuple[int, ...], reason: str
) -> None:
    link = busy(D2FConfig(max_new_tokens=4096, block_size=block_size, tau_add=tau_add), picks)
    started = time.process_time()
    with pytest.raises(RecordingError, match=reason):
        from_link(link)
    assert time.process_time() - started < 1.5


# --- Fuzzing. ---


def test_thousands_of_damaged_links_are_refused_or_valid() -> None:
    rng, link, text = random.Random(2), to_link(BY_HAND), json.dumps(FOLLOWED)
    bent = [scratch(link, rng) for _ in range(1000)]
    torn = [armour(scratch(text, rng).encode("utf-8", "replace")) for _ in range(1500)]
    mutated = [linked(mutate(json.loads(text), rng)) for _ in range(1500)]
    accepted = [sum(survives(from_link, each) for each in kind) for kind in (bent, torn, mutated)]
    assert accepted[0] < 50 < accepted[1] < 750 and 50 < accepted[2] < 750


@pytest.mark.parametrize(
    "verdict",
    [
        "",
        "Both answers are correct.",
        "D2F is correct, AR is wrong.",
        "Answers not checked: not a problem the page knows.",
        "D2F is correct, AR was not checked. The page found no final answer.",
    ],
)
def test_old_verdicts_and_new_ones_open(verdict: str) -> None:
    told = replace(BY_HAND, verdict=verdict)
    assert from_link(to_link(told)).verdict == verdict
    assert Recording.from_json(told.to_json()).verdict == verdict


# --- On the way through chats and mails. ---


def wrapped(link: str, width: int, ending: str) -> str:
    return ending.join(link[i : i + width] for i in range(0, len(link), width))


LINK = to_link(BY_HAND)
DECORATED = {
    "full stop": f"{LINK}.",
    "brackets": f"{LINK})",
    "angle": f"{LINK}>",
    "bold": f"{LINK}**",
    "quotes": f"{LINK}\u201d, she said",
    "words": f"{LINK} look at this race",
    "words on a line": f"{LINK}\nlook at this",
    "spaces between": wrapped(LINK, 40, " "),
    "lines between": wrapped(LINK, 76, "\r\n"),
    "quoted mail": wrapped(LINK, 70, "\n> "),
    "quoted-printable": wrapped(LINK, 75, "=\n"),
    "soft hyphens": wrapped(LINK, 10, "\u00ad"),
    "zero width": wrapped(LINK, 25, "\u200b"),
    "encoded": "".join(f"%{ord(character):02x}" for character in LINK),
    "encoded twice": LINK.replace("-", "%252D").replace("_", "%255f"),
    "encoded stop": f"{LINK}%2E%20",
    "other alphabet": LINK.replace("-", "+").replace("_", "/"),
    "padded": LINK + "=" * (-len(LINK) % 4),
    "byte order mark": f"\ufeff{LINK}",
}


@pytest.mark.parametrize("kind", DECORATED)
def test_a_link_that_was_only_decorated_opens(kind: str) -> None:
    assert from_link(DECORATED[kind]) == from_link(LINK)


@pytest.mark.parametrize("text", [LINK[:-4] + ".", LINK[:40] + ")" + LINK[40:], LINK + "x.", "."])
def test_a_link_that_was_cut_or_altered_is_refused(text: str) -> None:
    with pytest.raises(RecordingError, match=r"^This link cannot be opened: .+\.$"):
        from_link(text)
