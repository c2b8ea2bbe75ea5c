"""Races on a GPU that is lent for one call: the same as a race at home, event for event."""

import pickle
from dataclasses import replace
from pathlib import Path
from threading import Event

import gradio as gr
import pytest
from folders import save_pair

from app.conversation import Conversation
from app.lanes.lane import (
    Asked,
    Host,
    Question,
    Solo,
    Stopped,
    loaded_model,
    pair_lanes,
    warm_model,
)
from app.lanes.proxy import Steps, borrowing, compute
from app.lanes.zerogpu import LONGEST, duration, lent
from app.page.api import _generate
from app.page.tell import SETTINGS, tell
from app.page.visitors import Visitor, Visitors
from app.race import merge, never
from d2f import D2FConfig
from d2f.catalogue.pairs import Pair


@pytest.fixture
def pair(tmp_path: Path, tokenizer_folder: Path):
    config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2)
    yield save_pair(tmp_path, tokenizer_folder, config)
    warm_model.cache_clear()
    loaded_model.cache_clear()


class Lender:
    """Hands everything over as another process would get it; knows how the call ended."""

    def __init__(self) -> None:
        self.seconds, self.closed = 0, False

    def __call__(self, asked: Asked, host: Host, _: Stopped) -> Steps:
        self.seconds = duration(asked, host)
        steps = compute(*pickle.loads(pickle.dumps((asked, host))))
        try:
            for step in steps:
                yield pickle.loads(pickle.dumps(step))
        finally:
            steps.close()
            self.closed = True


def question(pair: Pair, tokens: int = 24) -> Question:
    config = replace(pair.config, max_new_tokens=tokens)
    return Question(pair, "Hello", config, Conversation(pair.name))


def test_lanes_of_a_lent_gpu_give_the_events_of_lanes_at_home(pair: Pair):
    lender = Lender()
    away, moves = borrowing(lender)(question(pair), Host(), never)
    order = [index for index, _ in moves]
    home = pair_lanes(question(pair), Host())
    for _ in merge(home):
        pass
    for here, there in zip(home, away, strict=True):
        assert there.header == here.header and there.chat == here.chat
        assert [e.commits for e in there.events] == [e.commits for e in here.events]
        assert there.trace.text == here.trace.text
        assert there.events[-1].finish_reason is not None
    assert set(order) == {0, 1} and lender.closed


def test_a_whole_run_goes_by_the_lender_and_stops_with_it(pair: Pair):
    lender = Lender()
    host = Host(pairs={pair.name: pair}, elsewhere=borrowing(lender))
    values = [getattr(pair.config, name) for name in SETTINGS]
    *_, last = tell("Hello", pair.name, values, None, host)
    assert last.recording is not None and len(last.recording.lanes) == 2
    assert lender.closed


def test_a_single_answer_goes_by_the_lender_as_well(pair: Pair):
    lender = Lender()
    host = Host(pairs={pair.name: pair}, elsewhere=borrowing(lender))
    asked = "Hello", pair.d2f, {"max_new_tokens": 16}
    *_, last = _generate(*asked, host, Visitors(), Visitor("me"))
    assert last["forwards"] > 0 and lender.closed
    assert lender.seconds == duration(Solo(pair.d2f, "Hello", D2FConfig(max_new_tokens=16)), host)


def test_a_lane_that_is_closed_ends_the_call(pair: Pair):
    lender = Lender()
    lanes, moves = borrowing(lender)(question(pair), Host(), never)
    next(moves)
    assert not lender.closed
    lanes[0].close()
    assert lender.closed and list(moves) == []
    lanes[1].close()


def test_a_stopped_run_takes_no_further_step(pair: Pair):
    stop = Event()
    lanes, moves = borrowing(Lender())(question(pair), Host(), stop.is_set)
    next(moves)
    stop.set()
    assert list(moves) == [] and sum(len(lane.events) for lane in lanes) == 1


def test_a_model_whose_text_cannot_be_read_here_ends_the_call(pair: Pair):
    lender = Lender()
    there = Host(models_dir=Path(pair.d2f).parent)
    named = replace(pair, d2f="tiny-d2f", ar="tiny-ar")

    def elsewhere(asked: Asked, host: Host, stopped: Stopped) -> Steps:
        return lender(asked, there, stopped)

    with pytest.raises(ValueError, match="tiny-d2f"):
        borrowing(elsewhere)(question(named), Host(), never)
    assert lender.closed


def test_more_tokens_ask_for_more_seconds_up_to_a_bound(pair: Pair):
    few, many, most = (duration(question(pair, n), Host()) for n in (32, 512, 10_000))
    assert few < many <= most == LONGEST


def test_the_lenders_own_words_reach_the_visitor(pair: Pair):
    def refused(*_: object) -> Steps:
        raise gr.Error("no GPU time left today")
        yield

    host = Host(pairs={pair.name: pair}, elsewhere=borrowing(lent(refused)))
    values = [getattr(pair.config, name) for name in SETTINGS]
    *_, last = tell("Hello", pair.name, values, None, host)
    assert "no GPU time left today" in last.messages[0]["text"]
