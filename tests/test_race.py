"""Fair merging by virtual clock, and a worker that stops within a step and frees everything."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from races import ar_trace, d2f_trace, decode, header, recorded, token_text

from app.lanes.lane import Lane
from app.page.tell import waits
from app.race import (
    DONE,
    PREPARING,
    RUNNING,
    STOPPED,
    WAITING,
    Device,
    Overdue,
    Race,
    here,
    merge,
)
from d2f import ARConfig, StepEvent

FAST = {"interval": 0.0, "heartbeat": 0.01}


@pytest.fixture
def device() -> Iterator[Device]:
    with Device() as device:
        yield device


class Endless:
    """A decoder that goes on for seconds; tells when it was closed and how many steps it made."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds, self.steps, self.closed = seconds, 0, threading.Event()
        self.lane = Lane("AR", header(ARConfig(), "endless"), self._run(), token_text, decode)

    def _run(self) -> Iterator[StepEvent]:
        give_up = time.monotonic() + 10
        try:
            while time.monotonic() < give_up:
                time.sleep(self.seconds)
                self.steps += 1
                yield StepEvent(self.steps - 1, self.seconds, (0, 1), ())
        finally:
            self.closed.set()


def with_times(*times: float) -> Lane:
    events = (StepEvent(step, seconds, (0, 1), ()) for step, seconds in enumerate(times))
    return Lane("lane", header(ARConfig(), "timed"), events, token_text, decode)


def test_the_lane_with_the_least_time_moves_next():
    order = [index for index, _ in merge([with_times(3, 3, 3), with_times(2, 2, 2, 2)])]
    # Clocks after each move: 3|0, 3|2, 3|4, 6|4, 6|6, 9|6, 9|8.
    assert order == [0, 1, 1, 0, 1, 0, 1]


def test_a_finished_lane_lets_the_other_run_on():
    assert [index for index, _ in merge([with_times(1), with_times(1, 1, 1)])] == [0, 1, 1, 1]


def test_a_run_hands_out_every_event_in_order_and_ends(device):
    race = Race(here(recorded), device)
    moved = [item for batch in race.batches(**FAST) for item in batch]
    for index, trace in enumerate((d2f_trace(), ar_trace())):
        assert tuple(event for lane, event in moved if lane == index) == trace.events
        assert race.lanes[index].trace == trace
    assert race.phase == DONE


def test_batches_come_no_faster_than_the_interval(device):
    began = time.monotonic()
    endless = Endless(0.001)
    race = Race(here(lambda: [endless.lane]), device)
    batches = race.batches(interval=0.05)
    sizes = [len(next(batches)) for _ in range(4)]
    assert time.monotonic() - began >= 0.15
    assert max(sizes) > 1, "events of one interval travel together"
    batches.close()


def test_stop_ends_both_lanes_within_one_step(device):
    one, two = Endless(0.02), Endless(0.02)
    race = Race(here(lambda: [one.lane, two.lane]), device)
    batches = race.batches(**FAST)
    while not (one.steps and two.steps):
        next(batches)
    steps = one.steps + two.steps
    race.stop()
    assert one.closed.wait(1) and two.closed.wait(1)
    assert one.steps + two.steps <= steps + 2, "the step under way and at most one batched"
    for _ in batches:
        pass
    assert race.phase == STOPPED
    assert device.submit(lambda: "free").result(1) == "free"


def test_a_closed_page_ends_the_work(device):
    endless = Endless()
    batches = Race(here(lambda: [endless.lane]), device).batches(**FAST)
    next(batches)
    batches.close()
    assert endless.closed.wait(1)


def test_a_second_visitor_waits_and_then_runs(device):
    first, second = Endless(), Race(here(recorded), device)
    running = Race(here(lambda: [first.lane]), device)
    batches = running.batches(**FAST)
    next(batches)
    waiting = second.batches(**FAST)
    assert next(waiting) == [] and second.phase == WAITING
    running.stop()
    assert sum(len(batch) for batch in waiting) == 9
    assert second.phase == DONE


def test_a_waiting_visitor_can_stop(device):
    first = Endless()
    batches = Race(here(lambda: [first.lane]), device).batches(**FAST)
    next(batches)
    prepared = []
    second = Race(here(lambda: prepared.append(1) or recorded()), device)
    waiting = second.batches(**FAST)
    next(waiting)
    second.stop()
    assert list(waiting) in ([], [[]])
    assert second.phase == STOPPED
    batches.close()
    device.submit(int).result(1)
    assert not prepared, "nothing is loaded for a visitor who left"


def test_a_failing_decoder_is_reported_and_frees_the_device(device):
    def failing() -> Iterator[StepEvent]:
        yield StepEvent(0, 0.1, (0, 1), ())
        raise RuntimeError("out of luck")

    endless = Endless()
    bad = Lane("D2F", header(ARConfig(), "bad"), failing(), token_text, decode)
    with pytest.raises(RuntimeError, match="out of luck"):
        list(Race(here(lambda: [bad, endless.lane]), device).batches(**FAST))
    assert endless.closed.wait(1)
    assert sum(len(batch) for batch in Race(here(recorded), device).batches(**FAST)) == 9


def test_a_run_past_its_budget_is_ended_and_told(device):
    endless = Endless()
    race = Race(here(lambda: [endless.lane]), device, budget=0.05)
    with pytest.raises(Overdue, match="after 0.05 s, the longest"):
        list(race.batches(**FAST))
    assert endless.closed.is_set() and endless.steps < 100
    assert race.lanes[0].trace.forwards == endless.steps, "what was computed is kept"


def test_visitors_in_line_know_how_many_are_before_them(device):
    first = Endless()
    running = Race(here(lambda: [first.lane]), device)
    line = [running, Race(here(recorded), device), Race(here(recorded), device)]
    batches = [race.batches(**FAST) for race in line]
    for each in batches:
        next(each)
    for each in batches[1:]:
        next(each)
    assert [race.ahead for race in line[1:]] == [1, 2]
    line[1].stop()
    list(batches[1])
    next(batches[2])
    assert line[2].ahead == 1, "who left is not waited for"
    running.stop()
    assert sum(len(batch) for batch in batches[2]) == 9 and line[2].ahead == 0


def test_the_next_run_waits_until_the_last_has_been_told(device, monkeypatch):
    monkeypatch.setattr("app.race.FAREWELL", 60.0)
    second = Race(here(recorded), device)
    with Race(here(recorded), device) as first:
        assert sum(len(batch) for batch in first.batches(**FAST)) == 9
        waiting = second.batches(**FAST)
        assert next(waiting) == [] and second.phase == WAITING
    assert sum(len(batch) for batch in waiting) == 9


def getting_ready(seconds: float, count: int) -> Lane:
    """A lane of whose steps each takes a while to make."""

    def ahead() -> Iterator[tuple[int, int]]:
        for done in range(1, count + 1):
            time.sleep(seconds)
            yield done, count

    return replace(Endless().lane, ahead=ahead())


def test_steps_that_are_made_ahead_are_told_and_cost_the_lane_no_time(device):
    race = Race(here(lambda: [getting_ready(0.05, 3), with_times(1)]), device)
    told = []
    batches = race.batches(interval=0.0, heartbeat=0.005)
    for batch in batches:
        if batch:
            break
        told.append((race.phase, waits(race)))
    steps = [f"Capturing the steps of AR: {done} of 3." for done in (1, 2)]
    assert [text for text in dict.fromkeys(told) if text[1] in steps] == [
        (PREPARING, text) for text in steps
    ]
    assert race.phase == RUNNING and race.lanes[0].seconds < 0.05
    batches.close()


@pytest.mark.parametrize("ended", ["stopped", "overdue"])
def test_steps_are_made_until_the_run_is_to_end(device, ended: str):
    lane = getting_ready(0.02, 1000)
    race = Race(here(lambda: [lane]), device, budget=60 if ended == "stopped" else 0.1)
    batches, began = race.batches(**FAST), time.monotonic()
    if ended == "stopped":
        while lane.made is None:
            next(batches)
        race.stop()
        assert list(batches) in ([], [[]])
    else:
        with pytest.raises(Overdue, match=r"after 0\.1 s, the longest"):
            list(batches)
    assert time.monotonic() - began < 5 and lane.events == []


def test_a_visitor_who_takes_long_to_be_told_keeps_the_device_for_a_moment_only(
    device, monkeypatch
):
    monkeypatch.setattr("app.race.FAREWELL", 0.05)
    with Race(here(recorded), device) as first:
        list(first.batches(**FAST))
        assert sum(len(batch) for batch in Race(here(recorded), device).batches(**FAST)) == 9


def test_a_failing_preparation_is_reported(device):
    def prepare() -> list[Lane]:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        list(Race(here(prepare), device).batches(**FAST))
