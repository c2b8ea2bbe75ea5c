"""Every metric against figures worked out by hand; JSON both ways; nonsense refused."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from races import with_value
from test_config import configs

from d2f import ARConfig, BlockView, Commit, D2FConfig, StepEvent, Trace, TraceHeader
from d2f.errors import InvalidInput
from d2f.events import BLOCK_STATES, FINISH_REASONS, event_from_dict, event_to_dict

STOP, OTHER_STOP = 4, 5
HEADER = TraceHeader(
    config=D2FConfig(max_new_tokens=8, block_size=4),
    model="tiny",
    device="cpu (x86_64)",
    dtype="float32",
    prompt_ids=(20, STOP, 21),  # a stop token in the prompt stops nothing
    stop_ids=(STOP, OTHER_STOP),
    versions={"torch": "2.13"},
)
# Prompt 0..2, blocks [3, 7) and [7, 11). The stop at 8 ends the answer: 30 31 32 33 34 <stop>.
EVENTS = (
    StepEvent(
        0,
        0.5,
        (0, 7),
        (Commit(4, 31, 0.95), Commit(9, 39, 0.97)),
        (BlockView(1, 3, 7, 3, "fully_activated"),),
        3,
    ),
    StepEvent(
        1,
        0.25,
        (3, 11),
        (Commit(3, 30, 0.5, True), Commit(5, 32, 0.99), Commit(8, STOP, 0.91)),
        (BlockView(1, 3, 7, 1, "fully_activated"), BlockView(2, 7, 11, 2, "semi_activated")),
        3,
    ),
    StepEvent(
        2,
        0.125,
        (3, 11),
        (Commit(6, 33, 0.75, True), Commit(7, 34, 0.92)),
        (BlockView(1, 3, 7, 0, "completed"), BlockView(2, 7, 11, 1, "semi_activated")),
        3,
        "stop",
    ),
)
TRACE = Trace(HEADER, EVENTS, "an answer")


def test_the_answer_runs_up_to_and_including_the_first_stop() -> None:
    assert TRACE.token_ids == (30, 31, 32, 33, 34, STOP)
    assert TRACE.tokens == 6


def test_the_canvas_holds_everything_committed() -> None:
    assert TRACE.canvas == {3: 30, 4: 31, 5: 32, 6: 33, 7: 34, 8: STOP, 9: 39}


def test_the_answer_ends_at_the_first_gap() -> None:
    assert Trace(HEADER, EVENTS[:1]).token_ids == ()
    assert Trace(HEADER, EVENTS[:2]).token_ids == (30, 31, 32)


def test_every_metric_equals_its_figure_by_hand() -> None:
    assert TRACE.metrics == {
        "tokens": 6,
        "forwards": 3,
        "seconds": 0.875,
        "ttft": 0.75,  # position 3 came with the second forward
        "tokens_per_second": 6 / 0.875,
        # One of the answer's tokens came with the first forward; position 9 is behind the stop.
        "decode_tokens_per_second": 5 / 0.375,
        "tokens_per_forward": 2.0,
        "ms_per_forward": 875 / 3,
        "finish_reason": "stop",
    }


def test_each_metric_is_also_a_property() -> None:
    assert {name: getattr(TRACE, name) for name in TRACE.metrics} == TRACE.metrics


def test_any_stop_id_stops() -> None:
    events = (StepEvent(0, 1.0, (0, 7), (Commit(3, OTHER_STOP, 0.9), Commit(4, 30, 0.9))),)
    assert Trace(HEADER, events).token_ids == (OTHER_STOP,)


def test_a_run_cancelled_before_its_first_step_has_metrics_too() -> None:
    assert Trace(HEADER, ()).metrics == {
        "tokens": 0,
        "forwards": 0,
        "seconds": 0.0,
        "ttft": 0.0,
        "tokens_per_second": 0.0,
        "decode_tokens_per_second": 0.0,
        "tokens_per_forward": 0.0,
        "ms_per_forward": 0.0,
        "finish_reason": None,
    }


def test_a_run_cancelled_before_its_first_token_has_waited_all_its_time_for_it() -> None:
    assert Trace(HEADER, EVENTS[:1]).ttft == 0.5
    assert Trace(HEADER, EVENTS[:1]).finish_reason is None


def test_one_forward_has_no_decoding_speed_behind_the_prefill() -> None:
    only = Trace(HEADER, (StepEvent(0, 0.5, (0, 7), (Commit(3, 30, 1.0),)),))
    assert only.decode_tokens_per_second == 0.0
    assert only.tokens_per_second == 2.0
    assert only.ttft == 0.5


def test_with_text_changes_nothing_else() -> None:
    assert TRACE.with_text("other") == Trace(HEADER, EVENTS, "other")


def test_a_header_knows_its_decoder() -> None:
    assert HEADER.decoder == "d2f"


def test_the_json_of_a_trace_is_this() -> None:
    assert json.loads(TRACE.to_json()) == {
        "format": 1,
        "decoder": "d2f",
        "config": {
            "max_new_tokens": 8,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "seed": 0,
            "rule": "confidence",
            "tau_conf": 0.9,
            "max_entropy": 0.4,
            "entropy_bound": 0.1,
            "max_kl": 0.01,
            "stable_steps": 1,
            "block_size": 4,
            "tau_add": 0.1,
            "tau_act": 0.95,
            "max_active_blocks": None,
            "early_stop": True,
            "grid": "prompt",
        },
        "header": {
            "model": "tiny",
            "device": "cpu (x86_64)",
            "dtype": "float32",
            "prompt_ids": [20, 4, 21],
            "stop_ids": [4, 5],
            "versions": {"torch": "2.13"},
            "clock": "decoder",
            "host": None,
            "counted": True,
        },
        "events": [
            {
                "step": 0,
                "seconds": 0.5,
                "window": [0, 7],
                "commits": [[4, 31, 0.95, 0], [9, 39, 0.97, 0]],
                "blocks": [[1, 3, 7, 3, "fully_activated"]],
                "cache_length": 3,
                "finish_reason": None,
            },
            {
                "step": 1,
                "seconds": 0.25,
                "window": [3, 11],
                "commits": [[3, 30, 0.5, 1], [5, 32, 0.99, 0], [8, 4, 0.91, 0]],
                "blocks": [[1, 3, 7, 1, "fully_activated"], [2, 7, 11, 2, "semi_activated"]],
                "cache_length": 3,
                "finish_reason": None,
            },
            {
                "step": 2,
                "seconds": 0.125,
                "window": [3, 11],
                "commits": [[6, 33, 0.75, 1], [7, 34, 0.92, 0]],
                "blocks": [[1, 3, 7, 0, "completed"], [2, 7, 11, 1, "semi_activated"]],
                "cache_length": 3,
                "finish_reason": "stop",
            },
        ],
        "text": "an answer",
    }
    assert "\n" not in TRACE.to_json()


NUMBERS = st.integers(0, 2**53)
SHARES, SECONDS = st.floats(0, 1), st.floats(0, 1e9)
COMMITS = st.builds(
    Commit, position=NUMBERS, token_id=NUMBERS, confidence=SHARES, forced=st.booleans()
)
VIEWS = st.builds(BlockView, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(BLOCK_STATES))
STEPS = st.builds(
    StepEvent,
    step=NUMBERS,
    seconds=SECONDS,
    window=st.tuples(NUMBERS, NUMBERS),
    commits=st.lists(COMMITS, max_size=3).map(tuple),
    blocks=st.lists(VIEWS, max_size=3).map(tuple),
    cache_length=NUMBERS,
    finish_reason=st.sampled_from([None, *FINISH_REASONS]),
)
IDS = st.lists(NUMBERS, max_size=5).map(tuple)
TRACES = st.builds(
    Trace,
    header=st.builds(
        TraceHeader,
        config=configs(),
        model=st.text(max_size=8),
        device=st.text(max_size=8),
        dtype=st.text(max_size=8),
        prompt_ids=IDS,
        stop_ids=IDS,
        versions=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    ),
    events=st.lists(STEPS, max_size=3).map(tuple),
    text=st.text(),
)


@settings(max_examples=60)
@given(trace=TRACES)
def test_a_trace_survives_json_exactly(trace: Trace) -> None:
    again = Trace.from_json(trace.to_json())
    assert again == trace
    assert again.to_json() == trace.to_json()


@given(event=STEPS)
def test_an_event_survives_json_exactly(event: StepEvent) -> None:
    again = event_from_dict(json.loads(json.dumps(event_to_dict(event))))
    assert again == event
    assert type(again.seconds) is float
    assert all(type(commit.forced) is bool for commit in again.commits)


@settings(max_examples=40)
@given(trace=TRACES)
def test_an_answer_never_holds_a_stop_token_but_at_its_end(trace: Trace) -> None:
    assert not set(trace.token_ids[:-1]) & set(trace.header.stop_ids)
    assert trace.tokens <= sum(len(event.commits) for event in trace.events)


def changed(path: tuple[Any, ...], value: Any) -> str:
    """TRACE's JSON with one value replaced; ``...`` removes it."""
    return with_value(TRACE.to_json(), path, value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format",), 2, "trace format must be 1, got 2"),
        (("format",), ..., "not a trace: KeyError: 'format'"),
        (("decoder",), "eagle", "decoder must be one of"),
        (("decoder",), ["d2f"], "not a trace"),
        (("config",), None, "not a trace"),
        (("config", "tau_conf"), 3, "tau_conf must be in [0, 1], got 3"),
        (("config", "skip"), 3, "unknown d2f settings ['skip']"),
        (("header",), [], "not a trace"),
        (("header", "model"), ..., "'model'"),
        (("header", "prompt_ids"), [1.5], "expected an integer, got 1.5"),
        (("header", "prompt_ids"), 5, "expected a list of integers, got 5"),
        (("header", "stop_ids"), [True], "expected an integer, got True"),
        (("header", "versions"), [], "not a trace"),
        (("events",), 7, "not a trace"),
        (("events", 0), None, "not a trace"),
        (("events", 0, "step"), "0", "expected an integer, got '0'"),
        (("events", 0, "seconds"), None, "seconds must be a number in [0, 1e+09], got None"),
        (("events", 0, "seconds"), float("nan"), "JSON holds finite numbers only, got NaN"),
        (("events", 0, "seconds"), float("inf"), "JSON holds finite numbers only, got Infinity"),
        pytest.param(
            ("events", 0, "seconds"),
            10**400,
            "seconds must be a number in [0, 1e+09], got 100",
            id="huge seconds",
        ),
        (("events", 0, "window"), [1], "not enough values"),
        (("events", 0, "window"), [1, 2, 3], "too many values"),
        (("events", 0, "commits", 0), [4, 31, 0.5], "not a trace: IndexError"),
        (("events", 0, "commits", 0, 1), 31.0, "expected an integer, got 31.0"),
        (
            ("events", 0, "commits", 0, 2),
            "high",
            "confidence must be a number in [0, 1], got 'high'",
        ),
        (("events", 0, "blocks", 0, 4), "sleeping", "block state must be one of"),
        (("events", 0, "blocks", 0), [1, 3, 7], "not enough values"),
        (("events", 0, "cache_length"), ..., "'cache_length'"),
        (("events", 2, "finish_reason"), "bored", "finish_reason must be one of"),
        (("events", 2, "finish_reason"), ["stop"], "finish_reason must be one of"),
        (("text",), ..., "'text'"),
    ],
)
def test_a_malformed_trace_is_refused_and_says_why(
    path: tuple[Any, ...], value: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(message)):
        Trace.from_json(changed(path, value))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "7", '"trace"', "{}", "[[[1]]"])
def test_what_is_no_trace_at_all_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Trace.from_json(text)


def test_lists_nested_far_too_deep_are_refused() -> None:
    with pytest.raises(ValueError, match="the JSON is nested too deeply"):
        Trace.from_json("[" * 200_000)


def test_other_decoders_traces_survive_too() -> None:
    header = TraceHeader(ARConfig(max_new_tokens=3), "ar", "cpu", "bfloat16", (1,), (STOP,))
    trace = Trace(header, (StepEvent(0, 0.1, (0, 1), (Commit(1, STOP, 0.3),), (), 1, "stop"),))
    assert Trace.from_json(trace.to_json()) == trace
