"""One run as the page tells it: from what a visitor asked to the last message of the board.

A message is a small JSON object with a ``kind``: ``start``, ``step``, ``status``, ``stopped``,
``end`` or ``error``. Knows nothing of gradio; layout is in ``ui``, drawing in ``static/board.js``.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any
from uuid import uuid4

from app.board import Delta, LaneBoard, final, machine, speeds
from app.lanes import Lane, pair_lanes
from app.prompts import check_prompt, verdict
from app.race import PREPARING, STOPPED, WAITING, Race
from d2f import D2FConfig
from d2f.registry import PAIRS, Pair
from d2f.tasks import Problem

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
SLOW_MOTION, REAL_TIME = 0.125, 1.0


def tell(
    prompt: str,
    pair: str,
    settings: Sequence[Any],
    problem: Problem | None,
    device: str,
    dtype: str,
) -> Iterator[tuple[str, Race | None]]:
    """Packed messages of one run, each with the race it belongs to, so that it can be stopped.

    The one place where failures become words for the visitor.
    """
    run, numbers = uuid4().hex[:8], count()

    def pack(messages: list[Delta]) -> str:
        return pack_messages(run, next(numbers), messages)

    try:
        race = start(prompt, pair, settings, device, dtype)
        for messages in report(race, problem, REAL_TIME if device != "cpu" else SLOW_MOTION):
            yield pack(messages), race
    except ValueError as error:
        yield pack([{"kind": "error", "text": str(error)}]), None
    except Exception as error:
        logging.getLogger(__name__).exception("a run failed")
        text = f"The run failed on the server ({type(error).__name__}). Its log says more."
        yield pack([{"kind": "error", "text": text}]), None


def pack_messages(run: str, number: int, messages: list[Delta]) -> str:
    """JSON for the board, free of ``<`` whatever a model wrote; ``number`` makes it unique."""
    packed = json.dumps({"run": run, "seq": number, "messages": messages}, separators=(",", ":"))
    return packed.replace("<", "\\u003c")


def start(prompt: str, pair: str, settings: Sequence[Any], device: str, dtype: str) -> Race:
    """A race that is ready to go, or ``ValueError`` saying which input is wrong."""
    text = check_prompt(prompt)
    if pair not in PAIRS:
        raise ValueError(f"model pair must be one of {sorted(PAIRS)}, got {pair!r}")
    config = read_settings(PAIRS[pair], settings)
    return Race(lambda: pair_lanes(PAIRS[pair], text, config, device, dtype))


def read_settings(pair: Pair, values: Sequence[Any]) -> D2FConfig:
    """The pair's settings with the visitor's values; whole floats of a form become integers."""
    whole = [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return replace(pair.config, **dict(zip(SETTINGS, whole, strict=True)))


def report(race: Race, problem: Problem | None, speed: float) -> Iterator[list[Delta]]:
    """Messages for the board, batch by batch; an empty list only says that the run lives."""
    boards: list[LaneBoard] = []
    for batch in race.batches():
        messages: list[Delta] = []
        if batch and not boards:
            boards = [_board(index, lane) for index, lane in enumerate(race.lanes)]
            messages.append(
                {"kind": "start", "speed": speed, "lanes": [board.start for board in boards]}
            )
        messages += [{"kind": "step", **boards[index].step(event)} for index, event in batch]
        if race.phase in PHASES:
            messages.append({"kind": "status", "text": PHASES[race.phase]})
        yield messages
    yield [{"kind": "stopped"}] if race.phase == STOPPED else [_end(race.lanes, problem)]


def _board(index: int, lane: Lane) -> LaneBoard:
    return LaneBoard(index, lane.name, lane.header, lane.token_text)


def _end(lanes: Sequence[Lane], problem: Problem | None) -> Delta:
    names, traces = [lane.name for lane in lanes], [lane.trace for lane in lanes]
    judged = verdict(problem, names, [trace.text for trace in traces])
    return {
        "kind": "end",
        "lanes": [final(trace) for trace in traces],
        "summary": f"{speeds(names, traces)} {judged}",
        "note": machine(traces[0].header),
    }
