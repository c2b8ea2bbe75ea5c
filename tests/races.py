"""Hand-made traces for the tests of the page: small, exact, and in the engine's own types."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from app.lanes.lane import Lane, Question, recorded_lane
from d2f import ARConfig, BlockView, Commit, D2FConfig, StepEvent, Trace, TraceHeader
from d2f.config import DecodeConfig

PROMPT = (90, 91, 92)
STOP = 0
START = len(PROMPT)
WORDS = {STOP: "<end>", 1: "one", 2: " two", 3: " three", 4: " four", 5: "!"}


def token_text(token_id: int) -> str:
    return WORDS[token_id]


def decode(ids: Sequence[int]) -> str:
    return "".join(WORDS[i] for i in ids if i != STOP)


def header(config: DecodeConfig, model: str) -> TraceHeader:
    return TraceHeader(config, model, "cpu (x86_64)", "float32", PROMPT, (STOP,))


def commit(position: int, token_id: int, confidence: float = 0.95, forced: bool = False) -> Commit:
    return Commit(START + position, token_id, confidence, forced)


def block(index: int, num_masked: int, state: str) -> BlockView:
    return BlockView(index, START + 4 * index, START + 4 * index + 4, num_masked, state)


def d2f_trace() -> Trace:
    """Two blocks of four, decided out of order in three forwards of 0.25 s; " four" is forced."""
    events = (
        StepEvent(0, 0.25, (0, 7), (commit(0, 1), commit(2, 3)), (block(0, 2, "fully_activated"),)),
        StepEvent(
            1,
            0.25,
            (3, 11),
            (commit(1, 2), commit(5, STOP)),
            (block(0, 1, "fully_activated"), block(1, 3, "semi_activated")),
        ),
        StepEvent(
            2,
            0.25,
            (3, 11),
            (commit(3, 4, 0.4, True), commit(4, 5)),
            (block(0, 0, "completed"), block(1, 2, "semi_activated")),
            finish_reason="stop",
        ),
    )
    config = D2FConfig(block_size=4, max_new_tokens=8)
    return Trace(header(config, "small-d2f"), events, "one two three four!")


def ar_trace() -> Trace:
    """The same answer, one token in each of six forwards of 0.25 s."""
    ids = (1, 2, 3, 4, 5, STOP)
    events = tuple(
        StepEvent(
            step,
            0.25,
            (START + step - 1, START + step),
            (commit(step, token),),
            finish_reason="stop" if token == STOP else None,
        )
        for step, token in enumerate(ids)
    )
    return Trace(header(ARConfig(max_new_tokens=8), "small-ar"), events, "one two three four!")


def recorded(question: Question | None = None, *_: object) -> list[Lane]:
    """Both traces as lanes, whatever was asked."""
    traces = (("D2F", d2f_trace()), ("AR", ar_trace()))
    lanes = [recorded_lane(name, trace, token_text) for name, trace in traces]
    if question is None:
        return lanes
    return [
        replace(lane, chat=question.conversation.messages(index, question.prompt))
        for index, lane in enumerate(lanes)
    ]


def with_value(text: str, path: tuple[Any, ...], value: Any) -> str:
    """JSON with one value replaced; ``...`` removes it."""
    data = json.loads(text)
    place = data
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(data)
