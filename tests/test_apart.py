"""The models' own process: the same race, event for event, whatever becomes of a run or of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from folders import save_pair

from app.apart import Apart, lanes_apart
from app.api import _generate
from app.child import portable
from app.conversation import Conversation
from app.lanes import Host, Question, forget_models, loaded_model, pair_lanes
from app.race import merge, never
from app.rivals import Transformers, rival_pair
from app.run import SETTINGS, tell
from app.visitors import Visitor, Visitors
from d2f import D2FConfig
from d2f.catalogue.pairs import Pair

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
        assert other.header == own.header and other.chat == own.chat
        assert [e.commits for e in other.events] == [e.commits for e in own.events]
        assert other.trace.text == own.trace.text
        assert other.finished and other.seconds > 0


def told(pair: Pair, apart: Apart) -> str:
    host = Host(pairs={pair.name: pair}, elsewhere=lanes_apart(apart))
    values = [getattr(pair.config, name) for name in SETTINGS]
    *_, last = tell("Hello", pair.name, values, None, host)
    return last.packed


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


def test_a_process_that_died_fails_its_run_and_another_takes_its_place(pair: Pair, apart: Apart):
    lanes, moves = lanes_apart(apart)(question(pair, tokens=400), Host(), never)
    dead = apart._process.pid
    apart._process.kill()
    with pytest.raises(RuntimeError, match=f"models' process ended, code -{signal.SIGKILL}"):
        list(moves)
    for lane in lanes:
        lane.close()
    assert '"kind":"end"' in told(pair, apart)
    assert apart._process.pid != dead
    # Between two runs it may die as well, which the next one finds out.
    apart._process.kill()
    apart._process.join()
    assert "The run failed on the server (RuntimeError)" in told(pair, apart)
    assert '"kind":"end"' in told(pair, apart)


SERVER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from app.apart import Apart

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


def running(pid: int) -> bool:
    """Whether a process is there that is not merely waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool], seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.05)
    return holds()


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
    assert "lanes.py" in str(error.value.__cause__) and "AttributeError" in str(
        error.value.__cause__
    )


def test_an_error_that_cannot_travel_is_told_in_words():
    told = portable(Closed("here", 3))
    assert type(told) is RuntimeError and str(told) == "Closed: here: 3"
    assert type(portable(ZeroDivisionError("by nothing"))) is ZeroDivisionError
    held = ValueError(BytesIO)
    held.stream = BytesIO().getbuffer()
    assert "BytesIO" in str(portable(held))
