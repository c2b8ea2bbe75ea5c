"""The reducer on golden traces: exact deltas, and figures equal to the Trace at every step."""

from dataclasses import replace

import pytest
from races import ar_trace, d2f_trace, token_text

from app.lanes.lane import own_texts
from app.page.messages import SETTINGS
from app.page.reducer import LaneBoard, final, machine, speeds
from d2f import Trace


def board(trace: Trace, name: str = "D2F") -> LaneBoard:
    return LaneBoard(0, name, trace.header, own_texts(token_text))


def test_golden_deltas_of_a_d2f_run():
    trace = d2f_trace()
    lane = board(trace)
    assert lane.start == {
        "name": "D2F",
        "model": "small-d2f",
        "decoder": "d2f",
        "capacity": 8,
        "block": 4,
        "confidences": True,
        "settings": {name: getattr(trace.header.config, name) for name in SETTINGS},
        "chat": [],
    }
    assert [lane.step(event) for event in trace.events] == [
        {
            "kind": "step",
            "lane": 0,
            "time": 0.25,
            "tokens": 1,
            "forwards": 1,
            "commits": [(0, "one", 0.95, 0), (2, " three", 0.95, 0)],
            "blocks": [(0, 4, "fully_activated")],
            "finish": None,
        },
        {
            "kind": "step",
            "lane": 0,
            "time": 0.5,
            "tokens": 3,
            "forwards": 2,
            "commits": [(1, " two", 0.95, 0), (5, "<end>", 0.95, 2)],
            "blocks": [(0, 4, "fully_activated"), (4, 8, "semi_activated")],
            "finish": None,
        },
        {
            "kind": "step",
            "lane": 0,
            "time": 0.75,
            "tokens": 6,
            "forwards": 3,
            "commits": [(3, " four", 0.4, 1), (4, "!", 0.95, 0)],
            "blocks": [(0, 4, "completed"), (4, 8, "semi_activated")],
            "finish": "stop",
        },
    ]


@pytest.mark.parametrize(
    ("grid", "length", "shared"),
    [
        *[("prompt", 3, None), ("remainder", 3, None), ("start", 4, None), ("start", 8, None)],
        *[("start", 1, 1), ("start", 3, 3), ("start", 9, 1)],
    ],
)
def test_a_lane_tells_how_much_of_its_first_block_is_prompt(
    grid: str, length: int, shared: int | None
):
    trace = d2f_trace()
    config = replace(trace.header.config, grid=grid)
    header = replace(trace.header, config=config, prompt_ids=(90,) * length)
    assert board(replace(trace, header=header)).start.get("shared") == shared


def test_an_ar_lane_has_rows_of_sixteen_and_fills_from_the_left():
    lane = board(ar_trace(), "AR")
    assert lane.start["block"] == 16
    deltas = [lane.step(event) for event in ar_trace().events]
    assert [delta["commits"][0][0] for delta in deltas] == [0, 1, 2, 3, 4, 5]
    assert [delta["tokens"] for delta in deltas] == [1, 2, 3, 4, 5, 6]


def at_a_tenth(trace: Trace) -> Trace:
    """The same run in steps of 0.1 s, which floats cannot add exactly."""
    return replace(trace, events=tuple(replace(event, seconds=0.1) for event in trace.events))


@pytest.mark.parametrize("trace", [d2f_trace(), at_a_tenth(ar_trace())], ids=["d2f", "ar"])
def test_figures_equal_the_trace_of_the_run_so_far(trace):
    lane = board(trace)
    for shown in range(1, len(trace.events) + 1):
        delta = lane.step(trace.events[shown - 1])
        so_far = Trace(trace.header, trace.events[:shown])
        assert (delta["tokens"], delta["forwards"]) == (so_far.tokens, so_far.forwards)
        assert delta["time"] == so_far.seconds


def test_final_is_the_traces_own_metrics():
    trace = d2f_trace()
    assert final(trace) == {"metrics": trace.metrics, "text": "one two three four!"}
    assert final(trace)["metrics"]["tokens_per_second"] == 8.0


def test_speed_is_told_as_a_ratio_with_both_absolutes():
    traces = [d2f_trace(), ar_trace()]
    told = "D2F was 2.00 times as fast: 8 against 4 tokens per second."
    assert speeds(["D2F", "AR"], traces) == told
    assert speeds(["AR", "D2F"], traces[::-1]) == told


def test_the_slower_lane_may_be_d2f():
    traces = [ar_trace(), d2f_trace()]
    assert speeds(["D2F", "AR"], traces).startswith("AR was 2.00 times as fast: 8 against 4")


def test_a_lane_without_a_token_gives_no_ratio():
    empty = Trace(ar_trace().header, ())
    told = "AR has no measured speed: it wrote no token, or took no time."
    assert speeds(["D2F", "AR"], [d2f_trace(), empty]) == told


def test_a_lane_that_was_cut_short_gives_no_ratio():
    cut = replace(ar_trace(), events=ar_trace().events[:3])
    told = "AR did not finish, so speeds are not compared."
    assert speeds(["D2F", "AR"], [d2f_trace(), cut]) == told


def test_machine_names_device_and_dtype():
    assert machine(d2f_trace().header) == (
        "Measured on this machine (cpu (x86_64), float32); "
        "each lane's clock ran only while it computed."
    )
