"""A decoder of one's own: one file and its registration, and everything else takes it as it is.

``random`` decides the tokens of the whole canvas one a forward, in an order drawn by its seed.
"""

import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import fmean

import pytest
import torch
from tiny import network
from torch import Tensor

from app.lanes.lane import Lane, own_texts
from app.page.charts import benchmark, figures
from app.page.reducer import LaneBoard
from app.recordings.link import from_link, to_link
from app.recordings.recording import Recording, record
from d2f import BlockView, Model, Trace, generate, stream
from d2f.bench import suite
from d2f.bench.report import text_report
from d2f.config import CONFIGS, DecodeConfig
from d2f.decode import RULES, trace_header
from d2f.nn.certainty import Said
from d2f.policy import KINDS, Held, Kind, Plan
from d2f.tokenizer import Tokenizer

PROMPT = [40, 41, 42]


@dataclass(frozen=True, kw_only=True)
class RandomConfig(DecodeConfig):
    """Tokens in random order."""


class RandomOrder:
    """Wants one position at a time, of a canvas that is forwarded whole."""

    cached = 0

    def __init__(self, prompt_length: int, config: RandomConfig, held: Held) -> None:
        self.limit = prompt_length + config.max_new_tokens
        self.left = [p for p in range(prompt_length, self.limit) if p not in held.positions]
        random.Random(config.seed).shuffle(self.left)
        self.stopped = bool(held.stops)

    def plan(self) -> Plan:
        return Plan((0, self.limit), self.left[-1:], None, 0)

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        assert list(positions) == [self.left.pop()]
        self.stopped |= bool(list(stops))
        return ()

    @property
    def finish_reason(self) -> str | None:
        return None if self.left else "stop" if self.stopped else "length"


def keep(policy: RandomOrder, config: RandomConfig, said: Said) -> tuple[Tensor, Tensor]:
    none = torch.zeros_like(said.tokens, dtype=torch.bool)
    return ~none, none


CONFIG = RandomConfig(max_new_tokens=12, seed=3)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """All there is to a new decoder: settings, policy, commit rule."""
    monkeypatch.setitem(CONFIGS, "random", RandomConfig)
    monkeypatch.setitem(KINDS, "random", Kind("random order", RandomOrder, False, None))
    monkeypatch.setitem(RULES, "random", keep)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    return Model("tiny", network(tokenizer.vocab_size, mask_id=1, logit_shift=True), tokenizer)


@pytest.fixture
def recording(model: Model) -> Recording:
    lane = Lane(
        "Random",
        trace_header(model, PROMPT, CONFIG),
        stream(model, PROMPT, CONFIG),
        model.tokenizer.token_text,
        model.tokenizer.decode,
    )
    while lane.advance() is not None:
        pass
    return record("Any order?", [lane], "")


def test_it_decodes_every_position_once_in_its_own_order(model: Model) -> None:
    trace = generate(model, PROMPT, CONFIG)
    order = list(range(3, 15))
    random.Random(3).shuffle(order)
    assert [event.commits[0].position for event in trace.events] == order[::-1]
    assert trace.forwards == len(trace.canvas) == 12


def test_it_is_measured_and_reported(model: Model) -> None:
    lane = suite.Lane("random", model, CONFIG, problems=2)
    problems = suite.held_out(["math-mini"], 2, seed=0)
    outcomes = [suite.solve(lane, problem) for _, problem in suite.schedule([lane], problems)]
    *_, together = suite.rows([lane], outcomes)
    assert (together.decoder, together.problems, together.forwards) == ("random", 2, 24)
    assert together.accuracy == fmean(outcome.correct for outcome in outcomes)
    result = {
        "machine": dict.fromkeys(("cpu", "cores", "threads", "device", "platform"), "x")
        | {"bf16_native": False},
        "versions": {},
        "dtype": "float32",
        "seed": 0,
        "results": [asdict(together)],
        "ratios": {},
    }
    assert "random order  all" in text_report(result)
    figure, _ = benchmark([result])
    assert [series.name for series in figure.data] == ["random order"]


def test_it_is_saved_linked_and_drawn(recording: Recording) -> None:
    assert Recording.from_json(recording.to_json()) == recording
    linked = from_link(to_link(recording)).lanes[0].trace
    assert isinstance(linked.header.config, RandomConfig)
    assert linked.header.config == CONFIG
    assert [[c.position for c in e.commits] for e in linked.events] == [
        [c.position for c in e.commits] for e in recording.lanes[0].trace.events
    ]
    assert len(figures(recording)) == 6


def test_it_stands_on_the_board(recording: Recording) -> None:
    lane = recording.lanes[0]
    board = LaneBoard(0, lane.name, lane.trace.header, own_texts(lane.texts.__getitem__))
    assert board.start["decoder"] == "random"
    deltas = [board.step(event) for event in islice(lane.trace.events, 3)]
    assert [len(delta["commits"]) for delta in deltas] == [1, 1, 1]
    assert Trace.from_json(lane.trace.to_json()) == lane.trace
