"""The models' own process: the same race, event for event, whatever becomes of a run or of it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from folders import save_pair
from processes import eventually, running

from app.conversation import Conversation
from app.lanes.child import portable
from app.lanes.lane import Host, Question, forget_models, loaded_model, pair_lanes
from app.lanes.process import GRACE, Apart, lanes_apart
from app.lanes.runners import Transformers, rival_pair
from app.page.api import _generate
from app.page.messages import pack_now
from app.page.tell import SETTINGS, tell
from app.page.visitors import Visitor, Visitors
from app.race import Device, Overdue, Race, merge, never
from d2f import D2FConfig
from d2f.catalogue.pairs import Pair
from d2f.tokenizer import Message

ME = Visitor("me")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Pair:
    config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2)
    return save_pair(tmp_path_factory.mktemp("models"), tokenizer_folder, config)


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    apart = Apart()
    yield apart
    apart.close()


def question(pair: Pair, tokens: int = 24) -> Question:
    config = replace(pair.config, max_new_tokens=tokens)
    return Question(pair, "Hello", config, Conversation(pair.name))


def test_lanes_of_the_other_process_give_the_events_of_lanes_here(pair: Pair, apart: Apart):
    host = Host(elsewhere=lanes_apart(apart))
    (there, moves), here = (
        host.elsewhere(question(pair), host, never),
        pair_lanes(question(pair), Host()),
    )
    for order in (moves, merge(here)):
        assert {index for index, _ in order} == {0, 1}
    for other, own in zip(there, here, strict=True):
        # This process keeps to one thread; the other one has torch's own number.
        one = {"threads": own.header.versions["threads"]}
        told_ = replace(other.header, versions=other.header.versions | one)
        assert told_ == own.header and other.chat == own.chat
        assert [e.commits for e in other.events] == [e.commits for e in own.events]
        assert other.trace.text == own.trace.text
        assert other.finished and other.seconds > 0


def told(pair: Pair, apart: Apart) -> str:
    host = Host(pairs={pair.name: pair}, elsewhere=lanes_apart(apart))
    values = [getattr(pair.config, name) for name in SETTINGS]
    *_, last = tell("Hello", pair.name, values, None, host)
    return pack_now(last.messages)


def test_a_model_that_answers_alone_does_so_in_the_other_process(pair: Pair, apart: Apart):
    def answers(host: Host) -> list[dict]:
        return list(_generate("Hello", pair.ar, {"max_new_tokens": 8}, host, Visitors(), ME))

    host = Host(pairs={pair.name: pair})
    forget_models()
    there = answers(replace(host, elsewhere=lanes_apart(apart)))
    assert not loaded_model.cache_info().currsize, "this process loaded nothing"
    here = answers(host)
    assert there[-1]["text"] == here[-1]["text"] and there[-1]["forwards"] == here[-1]["forwards"]


def test_a_run_that_is_left_ends_and_the_next_begins(pair: Pair, apart: Apart):
    for _ in range(3):
        lanes, moves = lanes_apart(apart)(question(pair, tokens=400), Host(), never)
        next(moves)
        for lane in lanes:
            lane.close()
    assert '"kind":"end"' in told(pair, apart)


def test_what_a_run_raised_reaches_the_visitor_and_the_next_run_works(pair: Pair, apart: Apart):
    assert "The model 'nowhere' does not load" in told(replace(pair, d2f="nowhere"), apart)
    assert '"kind":"end"' in told(pair, apart)


class Asleep(Conversation):
    """Reading it never ends, in a place that lets other threads run, as torch's kernels do."""

    def messages(self, lane: int, prompt: str) -> list[Message]:
        time.sleep(600)
        return []


class Spinning(Conversation):
    """Reading it never ends, in C, and no other thread runs."""

    def messages(self, lane: int, prompt: str) -> list[Message]:
        re.match("(a+)+$", 64 * "a" + "b")
        return []


def freeze(process: SpawnProcess) -> None:
    os.kill(process.pid, signal.SIGSTOP)


def kill(process: SpawnProcess) -> None:
    pid = process.pid  # its replacement closes it
    process.kill()
    assert eventually(lambda: not running(pid))


def in_mid_run(
    pair: Pair, apart: Apart, then: Callable[[], None], stop: Event | None = None
) -> dict[str, Any]:
    """The last message of a run to which something happens after its first steps."""
    host = Host(pairs={pair.name: pair}, elsewhere=lanes_apart(apart))
    values = [400 if name == "max_new_tokens" else getattr(pair.config, name) for name in SETTINGS]
    run = tell("Hello", pair.name, values, None, host, stop=stop)
    while not any(m["kind"] == "step" for m in next(run).messages):
        pass
    then()
    *_, last = run
    return last.messages[-1]


@pytest.mark.parametrize(
    ("happens", "why"),
    [(freeze, "gave no sign of life for 3 s"), (kill, f"ended, code -{signal.SIGKILL}")],
)
def test_a_process_that_hangs_or_dies_fails_its_run_and_another_takes_its_place(
    pair: Pair,
    apart: Apart,
    happens: Callable[[SpawnProcess], None],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    assert '"kind":"end"' in told(pair, apart)
    monkeypatch.setattr(apart, "silence", 3.0)
    process = apart._process
    pid = process.pid
    assert in_mid_run(pair, apart, lambda: happens(process)) == {
        "kind": "error",
        "text": f"The models' process {why}. It has been restarted: run the race again.",
    }
    assert not running(pid) and running(apart._process.pid)
    assert caplog.messages == [f"the models' process {why}: it is replaced"]
    monkeypatch.undo()
    assert '"kind":"end"' in told(pair, apart)


@pytest.mark.parametrize("happens", [freeze, kill])
def test_a_process_that_hung_or_died_between_runs_is_replaced_before_the_next(
    pair: Pair,
    apart: Apart,
    happens: Callable[[SpawnProcess], None],
    monkeypatch: pytest.MonkeyPatch,
):
    assert '"kind":"end"' in told(pair, apart)
    pid = apart._process.pid
    monkeypatch.setattr(apart, "silence", 8.0)
    happens(apart._process)
    assert '"kind":"end"' in told(pair, apart)
    assert apart._process.pid != pid and not running(pid)


def test_stop_is_obeyed_for_a_process_that_hangs(pair: Pair, apart: Apart):
    assert '"kind":"end"' in told(pair, apart)
    stop, pid, since = Event(), apart._process.pid, []

    def hang() -> None:
        freeze(apart._process)
        stop.set()
        since.append(time.monotonic())

    assert in_mid_run(pair, apart, hang, stop) == {"kind": "stopped"}
    assert time.monotonic() - since[0] < 2 * GRACE + 1 and not running(pid)
    assert '"kind":"end"' in told(pair, apart)


@pytest.mark.parametrize("kind", [Asleep, Spinning])
def test_loading_that_never_ends_is_ended(
    kind: type[Conversation], pair: Pair, apart: Apart, monkeypatch: pytest.MonkeyPatch
):
    assert '"kind":"end"' in told(pair, apart)
    monkeypatch.setattr(apart, "loading", 1.0)
    monkeypatch.setattr("app.race.LOADING", 0.6)
    pid = apart._process.pid
    asked = replace(question(pair), conversation=kind(pair.name))
    opened = partial(lanes_apart(apart), asked, Host())
    with Device() as device, pytest.raises(Overdue, match="did not load within 0.01 minutes"):
        list(Race(opened, device).batches())
    assert not running(pid)
    monkeypatch.undo()
    assert '"kind":"end"' in told(pair, apart)


def test_a_budget_is_kept_by_a_process_that_hangs(pair: Pair, apart: Apart):
    assert '"kind":"end"' in told(pair, apart)
    pid, opened = apart._process.pid, partial(lanes_apart(apart), question(pair, 400), Host())
    with Device() as device, pytest.raises(Overdue, match="after 1 s, the longest"):
        for batch in Race(opened, device, budget=1.0).batches():
            if batch and running(pid):
                freeze(apart._process)
    assert not running(pid)
    assert '"kind":"end"' in told(pair, apart)


def test_a_run_left_before_the_process_is_up_does_not_end_it(pair: Pair):
    apart = Apart()
    apart.start()
    pid = apart._process.pid
    assert lanes_apart(apart)(question(pair), Host(), lambda: True)[0] == []
    assert '"kind":"end"' in told(pair, apart)
    assert apart._process.pid == pid
    apart.close()


def test_closing_the_program_ends_a_run_that_hangs(pair: Pair, apart: Apart):
    assert '"kind":"end"' in told(pair, apart)
    pid, opened = apart._process.pid, partial(lanes_apart(apart), question(pair, 400), Host())
    with Device() as device:
        batches = Race(opened, device).batches()
        while not next(batches):
            pass
        freeze(apart._process)
        device.closing.set()
        since = time.monotonic()
        device.shutdown()
    apart.close()
    assert time.monotonic() - since < 2 * GRACE + 1 and not running(pid)


SERVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from app.lanes.process import Apart

if __name__ == "__main__":
    apart = Apart()
    apart.start()
    print(apart._process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_process_ends_with_its_server(number: signal.Signals, tmp_path: Path):
    (tmp_path / "server.py").write_text(SERVER)
    server = subprocess.Popen(
        [sys.executable, "server.py", str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    with server:
        pid = int(server.stdout.readline())
        assert running(pid)
        server.send_signal(number)
    assert eventually(lambda: not running(pid))


def test_a_rivals_lane_stays_here(pair: Pair):
    rival = rival_pair(pair, {"ar": Transformers()})
    apart = Apart()
    _, moves = lanes_apart(apart)(question(rival), Host(pairs={rival.name: rival}), never)
    assert len(list(moves)) > 0 and apart._process is None


class Closed(Exception):
    """Cannot be made anew from its message, as many errors of libraries cannot."""

    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}: {line}")


def test_a_fault_brings_the_traceback_that_it_had_there(pair: Pair, apart: Apart):
    asked = replace(question(pair), config=None)
    with pytest.raises(AttributeError) as error:
        lanes_apart(apart)(asked, Host(), never)
    assert "lane.py" in str(error.value.__cause__) and "AttributeError" in str(
        error.value.__cause__
    )


def test_an_error_that_cannot_travel_is_told_in_words():
    told = portable(Closed("here", 3))
    assert type(told) is RuntimeError and str(told) == "Closed: here: 3"
    assert type(portable(ZeroDivisionError("by nothing"))) is ZeroDivisionError
    held = ValueError(BytesIO)
    held.stream = BytesIO().getbuffer()
    assert "BytesIO" in str(portable(held))
