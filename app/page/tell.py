"""One run as the page tells it: from what a visitor asked to the last message of the board.

Knows nothing of gradio or JSON; the messages are in :mod:`.messages`, drawing in ``static``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

from d2f import D2FConfig
from d2f.catalogue.pairs import Pair
from d2f.errors import InvalidInput

from ..conversation import Conversation
from ..failures import words
from ..lanes.lane import Host, Lane, Question, pair_lanes
from ..lanes.runners import RivalPair, trained_lanes
from ..prompts import Known, check_prompt, verdict
from ..race import INTERVAL, PREPARING, STOPPED, WAITING, Race, here, merge
from ..recordings.limits import MAX_VERDICT, check_settings
from ..recordings.link import to_link
from ..recordings.recording import Recording, record, replay_lane
from ..recordings.refusals import RecordingError, require
from .messages import SETTINGS, Clock, End, Link, Message, Start
from .reducer import LaneBoard, final, machine, place, speeds

SLOW_MOTION, REAL_TIME = 0.1, 1.0
# Seconds for which a batch is gathered. Telling and showing take time from models that share the
# machine with the server or the browser. In slow motion the board has events to show until the next
# ones come, and the first come when D2F is done with most answers of the embedded models.
INTERVALS = {SLOW_MOTION: 1 / 4, REAL_TIME: INTERVAL}


@dataclass(frozen=True)
class Told:
    """Messages for the board, and the recording once a run has finished."""

    messages: list[Message]
    recording: Recording | None = None


def tell(
    prompt: str,
    pair: str,
    settings: Sequence[Any],
    known: Known | None,
    host: Host,
    past: Conversation | None = None,
    stop: Event | None = None,
) -> Iterator[Told]:
    """One run, message by message, until it is over or ``stop`` is set, or an error in words."""
    try:
        question = ask(prompt, pair, settings, host, past)
        prepare = partial(host.elsewhere or here(pair_lanes), question, host)
        # A lane elsewhere takes its time as it is.
        slow = host.engine.device == "cpu" and not isinstance(question.pair, RivalPair)
        with Race(prepare, stop=stop) as race:
            for messages in report(race, SLOW_MOTION if slow else REAL_TIME):
                yield Told(messages)
            if race.phase == STOPPED:
                yield Told([{"kind": "stopped"}])
            else:
                yield _over(question, known, race.lanes)
    except Exception as error:
        yield Told([{"kind": "error", "text": words(error)}])


def _over(question: Question, known: Known | None, lanes: Sequence[Lane]) -> Told:
    """The end of a run that was not stopped."""
    past = _told_before(question, lanes)
    judged = judge(known, question.pair, lanes)
    recording = record(question.prompt, lanes, judged, past.turns)
    last = _with_counted(end(recording), recording, lanes)
    for told, lane in zip(last["lanes"], lanes, strict=True):
        if lane.answer != told["text"]:
            told["spoken"] = lane.answer
    if known and known.follow_up:
        last["follow_up"] = known.follow_up
    return Told([last], recording)


def retell(recording: Recording, trusted: bool = False) -> list[Message]:
    """All messages of a recorded race at once; the board plays them like a live one.

    What a stranger's recording says of itself is told as its words, not as the page's.

    Raises:
        RecordingError: it has but one lane.
    """
    require(len(recording.lanes) == 2, "a race on the board has two lanes")
    past = Conversation("", recording.past)
    lanes = [
        replace(replay_lane(lane), chat=past.messages(index, recording.prompt))
        for index, lane in enumerate(recording.lanes)
    ]
    boards = [_board(index, lane) for index, lane in enumerate(lanes)]
    steps = [boards[index].step(event) for index, event in merge(lanes)]
    start = _start(boards, SLOW_MOTION)
    start["recorded"], start["turn"] = True, recording.turn
    places = dict.fromkeys(place(lane.header) for lane in lanes)
    told = end(recording)
    turn = f"Turn {recording.turn} of a conversation. " if recording.past else ""
    told["note"] = f"{turn}As recorded, not measured here: {'; '.join(places)}."
    if not trusted and recording.verdict:
        told["summary"] = f"{_speeds(recording)} The recording says: {recording.verdict}"
    return [start, *steps, told]


def ask(
    prompt: str,
    pair: str,
    settings: Sequence[Any],
    host: Host,
    past: Conversation | None,
) -> Question:
    """A question that can be run, or ``ValueError`` saying which input is wrong."""
    past = past if past and past.turns else None
    text = check_prompt(prompt)
    chosen = host.pair(pair)
    if past is not None and past.pair != pair:
        raise InvalidInput(
            "This conversation was held with other models. Choose them again, or begin a new chat."
        )
    config = read_settings(chosen, settings)
    if host.engine.fused:
        check_compiled(chosen.config, config)
    return Question(chosen, text, config, past or Conversation(pair))


def check_compiled(default: D2FConfig, config: D2FConfig) -> None:
    """``ValueError`` for settings that would compile new programs, for minutes, for one visitor."""
    for name in ("block_size", "max_active_blocks"):
        if getattr(config, name) != getattr(default, name):
            fixed = getattr(default, name)
            raise InvalidInput(f"{name} is fixed here at {fixed}: the models are compiled for it")


def read_settings(pair: Pair, values: Sequence[Any]) -> D2FConfig:
    """The pair's settings with the visitor's values; whole floats of a form become integers."""
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    changes: dict[str, Any] = dict(zip(SETTINGS, whole, strict=True))
    config = replace(pair.config, **changes)
    check_settings(config)
    return config


def report(race: Race, speed: float) -> Iterator[list[Message]]:
    """Messages for the board, batch by batch; an empty list only says that the run lives."""
    boards: list[LaneBoard] = []
    for batch in race.batches(INTERVALS[speed]):
        messages: list[Message] = []
        if batch and not boards:
            boards = [_board(index, lane) for index, lane in enumerate(race.lanes)]
            messages.append(_start(boards, speed))
        messages += [boards[index].step(event) for index, event in batch]
        if boards:
            messages += _clocks(race.lanes)
        if waiting := waits(race):
            messages.append({"kind": "status", "text": waiting})
        yield messages


def waits(race: Race) -> str:
    """What a run that has not begun waits for; nothing once it is to end."""
    if race.stopping:
        return ""
    if race.phase == PREPARING:
        for lane in race.lanes:
            if lane.made is not None:
                return "Capturing the steps of {}: {} of {}.".format(lane.name, *lane.made)
        return "Loading the models."
    if race.phase != WAITING:
        return ""
    return f"Waiting: {race.ahead} run{'s' * (race.ahead != 1)} of other visitors before yours."


def _clocks(lanes: Sequence[Lane]) -> list[Clock]:
    """How late it is in lanes on other machines, for a board that waits for their next event."""
    return [
        {"kind": "clock", "lane": index, "time": lane.clock, "over": bool(lane.failure)}
        for index, lane in enumerate(lanes)
        if lane.feed is not None
    ]


def _board(index: int, lane: Lane) -> LaneBoard:
    chat = [message["content"] for message in lane.chat]
    return LaneBoard(index, lane.name, lane.header, lane.texts(), chat)


def _start(boards: Sequence[LaneBoard], speed: float) -> Start:
    return {"kind": "start", "speed": speed, "lanes": [board.start for board in boards]}


def judge(known: Known | None, pair: Pair, lanes: Sequence[Lane]) -> str:
    """Whether the answers are right; of a lane that broke off, why it did."""
    failures = [f"{lane.name} broke off: {lane.failure}" for lane in lanes if lane.failure]
    if failures:
        return " ".join(failures)[:MAX_VERDICT]
    names, answers = [lane.name for lane in lanes], [lane.answer for lane in lanes]
    cut = [lane.name for lane in lanes if lane.trace.finish_reason == "length"]
    return verdict(known, names, answers, trained_lanes(pair), cut)


def end(recording: Recording) -> End:
    """The last message: final figures, a summary in words, and the link to this race."""
    traces = [lane.trace for lane in recording.lanes]
    return {
        "kind": "end",
        "lanes": [final(trace) for trace in traces],
        "summary": f"{_speeds(recording)} {recording.verdict}",
        "note": machine(*(trace.header for trace in traces)),
        "link": _link(recording),
    }


def _with_counted(end: End, recording: Recording, lanes: Sequence[Lane]) -> End:
    """Adds the steps that are kept of a lane where they are not those that the board has shown."""
    for index, (lane, kept) in enumerate(zip(lanes, recording.lanes, strict=True)):
        if kept.trace.events != tuple(lane.events):
            board = _board(index, replace(replay_lane(kept), chat=lane.chat))
            steps = [board.step(event) for event in kept.trace.events]
            told = end["lanes"][index]
            told["start"], told["steps"] = board.start, steps
    return end


def _speeds(recording: Recording) -> str:
    lanes = recording.lanes
    return speeds([lane.name for lane in lanes], [lane.trace for lane in lanes])


def _link(recording: Recording) -> Link:
    try:
        return {"race": to_link(recording)}
    except RecordingError as error:
        return {"refused": f"This race has no link: {error}"}


def _told_before(question: Question, lanes: Sequence[Lane]) -> Conversation:
    """The conversation as the lanes were told it, without turns that were dropped for room."""
    return question.conversation.latest(len(lanes[0].chat) // 2)
