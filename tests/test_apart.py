"""The models' own process: the same race, event for event, whatever becomes of a run or of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from folders import save_pair

from app.apart import PROGRAM, ROOT, Apart, _portable, lanes_apart
from app.api import _generate
from app.conversation import Conversation
from app.lanes import Host, Question, forget_models, loaded_model, pair_lanes
from app.race import merge
from app.rivals import Transformers, rival_pair
from app.run import SETTINGS, tell
from app.visitors import Visitor, Visitors
from d2f import D2FConfig
from d2f.catalogue.pairs import Pair

ME = Visitor("me")


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
    there, here = host.elsewhere(question(pair), host), pair_lanes(question(pair), Host())
    for lanes in (there, here):
        assert {index for index, _ in merge(lanes)} == {0, 1}
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
        lanes = lanes_apart(apart)(question(pair, tokens=400), Host())
        lanes[0].advance()
        for lane in lanes:
            lane.close()
    assert '"kind":"end"' in told(pair, apart)


def test_what_a_run_raised_reaches_the_visitor_and_the_next_run_works(pair: Pair, apart: Apart):
    assert "The model 'nowhere' does not load" in told(replace(pair, d2f="nowhere"), apart)
    assert '"kind":"end"' in told(pair, apart)


def test_a_process_that_died_fails_its_run_and_another_takes_its_place(pair: Pair, apart: Apart):
    lanes = lanes_apart(apart)(question(pair, tokens=400), Host())
    dead = apart._process
    dead.kill()
    with pytest.raises(RuntimeError, match=f"process of the models ended, code -{signal.SIGKILL}"):
        for _ in merge(lanes):
            pass
    for lane in lanes:
        lane.close()
    assert '"kind":"end"' in told(pair, apart)
    assert apart._process.pid != dead.pid
    # Between two runs it may die as well, which the next one finds out.
    apart._process.kill()
    apart._process.wait()
    assert "The run failed on the server (RuntimeError)" in told(pair, apart)
    assert '"kind":"end"' in told(pair, apart)


def test_the_process_ends_with_its_server():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ROOT)], stdin=subprocess.PIPE, cwd=os.sep
    )
    time.sleep(0.1)
    assert process.poll() is None
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_rivals_lane_stays_here(pair: Pair):
    rival = rival_pair(pair, {"ar": Transformers()})
    lanes = lanes_apart(Apart())(question(rival), Host(pairs={rival.name: rival}))
    assert len(list(merge(lanes))) > 0


class Closed(Exception):
    """Cannot be made anew from its message, as many errors of libraries cannot."""

    def __init__(self, path: str, line: int) -> None:
        super().__init__(f"{path}: {line}")


def test_an_error_that_cannot_travel_is_told_in_words():
    told = _portable(Closed("here", 3))
    assert type(told) is RuntimeError and str(told) == "Closed: here: 3"
    assert type(_portable(ZeroDivisionError("by nothing"))) is ZeroDivisionError
    held = ValueError(BytesIO)
    held.stream = BytesIO().getbuffer()
    assert "BytesIO" in str(_portable(held))
