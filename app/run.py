"""One run as the page tells it: from what a visitor asked to the last message of the board.

A message is a small JSON object with a ``kind``: ``start``, ``step``, ``status``, ``stopped``,
``end`` or ``error``. Knows nothing of gradio; layout is in ``ui``, drawing in ``static``.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any
from uuid import uuid4

from app.board import Delta, LaneBoard, final, machine, speeds
from app.conversation import Conversation
from app.lanes import Lane, Question, pair_lanes
from app.link import to_link
from app.prompts import Known, check_prompt, verdict
from app.race import PREPARING, STOPPED, WAITING, Race, merge
from app.recording import (
    Recording,
    RecordingError,
    check_settings,
    record,
    replay_lane,
    require,
)
from d2f import D2FConfig
from d2f.registry import PAIRS, Pair

SETTINGS = (
    "max_new_tokens",
    "block_size",
    "tau_add",
    "tau_act",
    "tau_conf",
    "max_active_blocks",
    "temperature",
    "seed",
)
PHASES = {
    WAITING: "Waiting for another visitor's run to finish.",
    PREPARING: "Loading the models.",
}
SLOW_MOTION, REAL_TIME = 0.1, 1.0
CLEARED = "Cleared. Pick an example or type a question, then run the race."


@dataclass(frozen=True)
class Told:
    """Packed messages for the board, and what the page keeps beside them.

    ``race`` can be stopped; ``conversation`` and ``recording`` are there once a run has finished.
    """

    packed: str
    race: Race | None = None
    conversation: Conversation | None = None
    recording: Recording | None = None


def tell(
    prompt: str,
    pair: str,
    settings: Sequence[Any],
    known: Known | None,
    device: str,
    dtype: str,
    past: Conversation | None = None,
    drop_oldest: bool = False,
) -> Iterator[Told]:
    """One run, message by message. The one place where failures become words for the visitor."""
    run, numbers = uuid4().hex[:8], count()

    def pack(messages: list[Delta]) -> str:
        return pack_messages(run, next(numbers), messages)

    try:
        question = ask(prompt, pair, settings, past, drop_oldest)
        race = Race(lambda: pair_lanes(question, device, dtype))
        for messages in report(race, REAL_TIME if device != "cpu" else SLOW_MOTION):
            yield Told(pack(messages), race)
        if race.phase == STOPPED:
            yield Told(pack([{"kind": "stopped"}]), race)
        else:
            recording = record(question.prompt, race.lanes, judge(known, race.lanes))
            yield Told(pack([end(recording)]), None, _after(question, race.lanes), recording)
    except ValueError as error:
        yield Told(pack([{"kind": "error", "text": str(error)}]))
    except Exception as error:
        logging.getLogger(__name__).exception("a run failed")
        text = f"The run failed on the server ({type(error).__name__}). Its log says more."
        yield Told(pack([{"kind": "error", "text": text}]))


def recall(past: Conversation | None) -> list[Delta]:
    """Shows a conversation without a run; None: it was cleared."""
    turns = past.turns if past else ()
    chats = [[text for t in turns for text in (t.prompt, t.answers[lane])] for lane in range(2)]
    text = "Your conversation is still here. Follow up on it, or ask anew." if turns else CLEARED
    return [{"kind": "recall", "chats": chats, "text": text}]


def retell(recording: Recording, trusted: bool = False) -> list[Delta]:
    """All messages of a recorded race at once; the board plays them like a live one.

    What a stranger's recording says of itself is told as its words, not as the page's.

    Raises:
        RecordingError: it has but one lane.
    """
    require(len(recording.lanes) == 2, "a race on the board has two lanes")
    asked = [{"role": "user", "content": recording.prompt}]
    lanes = [replace(replay_lane(lane), chat=asked) for lane in recording.lanes]
    boards = [_board(index, lane) for index, lane in enumerate(lanes)]
    steps = [{"kind": "step", **boards[index].step(event)} for index, event in merge(lanes)]
    start = _start(boards, lanes, SLOW_MOTION) | {"recorded": True}
    header = lanes[0].header
    told = end(recording)
    told["note"] = f"As recorded, not measured here: {header.device}, {header.dtype}."
    if not trusted and recording.verdict:
        told["summary"] = f"{_speeds(recording)} The recording says: {recording.verdict}"
    return [start, *steps, told]


def pack_now(messages: list[Delta], opening: bool = False) -> str:
    """Messages that belong to no live run; the page's first ones give way to a run."""
    return pack_messages(uuid4().hex[:8], 0, messages, opening)


def pack_messages(run: str, number: int, messages: list[Delta], opening: bool = False) -> str:
    """JSON for the board, free of ``<`` whatever a model wrote; ``number`` makes it unique."""
    data = {"run": run, "seq": number, "messages": messages, "opening": opening}
    packed = json.dumps(data, separators=(",", ":"))
    return packed.replace("<", "\\u003c")


def ask(
    prompt: str,
    pair: str,
    settings: Sequence[Any],
    past: Conversation | None,
    drop_oldest: bool,
) -> Question:
    """A question that can be run, or ``ValueError`` saying which input is wrong."""
    past = past if past and past.turns else None
    text = check_prompt(prompt)
    if pair not in PAIRS:
        raise ValueError(f"model pair must be one of {sorted(PAIRS)}, got {pair!r}")
    if past is not None and past.pair != pair:
        raise ValueError(
            "This conversation was held with other models. Clear it, or choose them again."
        )
    config = read_settings(PAIRS[pair], settings)
    return Question(PAIRS[pair], text, config, past or Conversation(pair), drop_oldest)


def read_settings(pair: Pair, values: Sequence[Any]) -> D2FConfig:
    """The pair's settings with the visitor's values; whole floats of a form become integers."""
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    config = replace(pair.config, **dict(zip(SETTINGS, whole, strict=True)))
    check_settings(config)
    return config


def report(race: Race, speed: float) -> Iterator[list[Delta]]:
    """Messages for the board, batch by batch; an empty list only says that the run lives."""
    boards: list[LaneBoard] = []
    for batch in race.batches():
        messages: list[Delta] = []
        if batch and not boards:
            boards = [_board(index, lane) for index, lane in enumerate(race.lanes)]
            messages.append(_start(boards, race.lanes, speed))
        messages += [{"kind": "step", **boards[index].step(event)} for index, event in batch]
        if race.phase in PHASES:
            messages.append({"kind": "status", "text": PHASES[race.phase]})
        yield messages


def _board(index: int, lane: Lane) -> LaneBoard:
    return LaneBoard(index, lane.name, lane.header, lane.token_text)


def _start(boards: Sequence[LaneBoard], lanes: Sequence[Lane], speed: float) -> Delta:
    starts = [
        {**board.start, "chat": [message["content"] for message in lane.chat]}
        for board, lane in zip(boards, lanes, strict=True)
    ]
    return {"kind": "start", "speed": speed, "lanes": starts}


def judge(known: Known | None, lanes: Sequence[Lane]) -> str:
    return verdict(known, [lane.name for lane in lanes], [lane.trace.text for lane in lanes])


def end(recording: Recording) -> Delta:
    """The last message: final figures, a summary in words, and the link to this race."""
    traces = [lane.trace for lane in recording.lanes]
    return {
        "kind": "end",
        "lanes": [final(trace) for trace in traces],
        "summary": f"{_speeds(recording)} {recording.verdict}",
        "note": machine(traces[0].header),
        "link": _link(recording),
    }


def _speeds(recording: Recording) -> str:
    lanes = recording.lanes
    return speeds([lane.name for lane in lanes], [lane.trace for lane in lanes])


def _link(recording: Recording) -> Delta:
    try:
        return {"race": to_link(recording)}
    except RecordingError as error:
        return {"refused": f"This race has no link: {error}"}


def _after(question: Question, lanes: Sequence[Lane]) -> Conversation:
    """The conversation with this turn; turns that were dropped for room stay dropped."""
    kept = question.conversation.latest(len(lanes[0].chat) // 2)
    return kept.with_turn(question.prompt, [lane.trace.text for lane in lanes])
