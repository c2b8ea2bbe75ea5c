"""What the server tells the board, and ``/race`` its callers: every message is one of these types.

Browsers read the same types in ``static/messages.js``, people in ``docs/api.md``; a test holds all
three alike. ``lane`` is 0 or 1. Positions count from the end of the prompt. A ``time`` is in
seconds of its lane's own clock, from the lane's beginning. Knows nothing of gradio.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

from typing_extensions import NotRequired, TypedDict

from d2f.strict_json import to_json

from ..characters import whole

FORCED, STOP, DRAFTED = 1, 2, 4  # flags of a committed token
# The decoders' settings that a visitor may choose.
SETTINGS = (
    "max_new_tokens",
    "block_size",
    "tau_add",
    "tau_act",
    "tau_conf",
    "max_active_blocks",
    "temperature",
    "seed",
    "rule",
    "max_entropy",
    "entropy_bound",
    "max_kl",
    "stable_steps",
)

BlockState = Literal["semi_activated", "fully_activated", "completed", "cached"]
# Position, text, confidence in [0, 1], flags.
CommitRow = tuple[int, str, float, int]
# A position, and how its token reads from now on.
TextRow = tuple[int, str]
# The positions from the first up to the second, and their block's state after the step.
BlockRow = tuple[int, int, BlockState]


class LaneStart(TypedDict):
    """A lane before its first event. ``capacity`` and ``block`` are lengths in tokens.

    ``shared``: as many of the prompt's tokens stand in the block that the answer begins in.
    ``confidences``: whether they are known. ``settings``: those of its decoder by name. ``chat``:
    prompts and answers in turn, the last prompt included.
    """

    name: str
    model: str
    decoder: str
    capacity: int
    block: int
    shared: NotRequired[int]
    confidences: bool
    settings: dict[str, float | str | None]
    chat: list[str]


class Start(TypedDict):
    """A race begins, to be shown ``speed`` times as fast as it was.

    ``recorded``: it was run before. ``turn``: its place in its conversation, from 1.
    """

    kind: Literal["start"]
    speed: float
    lanes: list[LaneStart]
    recorded: NotRequired[bool]
    turn: NotRequired[int]


class Step(TypedDict):
    """One forward of a lane, over at ``time``. ``tokens`` and ``forwards`` are counts up to it.

    ``texts``: earlier tokens that read differently from now on, as parts of a character do.
    ``blocks``: those in flight and those that changed. ``finish``: "stop" or "length" on the last.
    ``rejected``: how many drafted tokens proved wrong up to it, once any were drafted.
    """

    kind: Literal["step"]
    lane: int
    time: float
    tokens: int
    forwards: int
    commits: list[CommitRow]
    texts: NotRequired[list[TextRow]]
    blocks: list[BlockRow]
    finish: str | None
    rejected: NotRequired[int]


class Clock(TypedDict):
    """How late it is in a lane on another machine. ``over``: no step follows, it broke off."""

    kind: Literal["clock"]
    lane: int
    time: float
    over: bool


class Status(TypedDict):
    """What a run that has not begun waits for."""

    kind: Literal["status"]
    text: str


class Stopped(TypedDict):
    """The run was ended before its time."""

    kind: Literal["stopped"]


class Metrics(TypedDict):
    """Figures of a finished lane: those of :class:`d2f.events.Trace`, in seconds and 1/s."""

    tokens: int
    forwards: int
    seconds: float
    ttft: float
    tokens_per_second: float
    decode_tokens_per_second: float
    tokens_per_forward: float
    ms_per_forward: float
    finish_reason: str | None


class LaneEnd(TypedDict):
    """A finished lane and its readable answer.

    ``spoken``: the answer without what the model thought aloud before, where it did. ``start`` and
    ``steps``: the run as it was counted in the end, where that is not how it came.
    """

    metrics: Metrics
    text: str
    spoken: NotRequired[str]
    start: NotRequired[LaneStart]
    steps: NotRequired[list[Step]]


class Link(TypedDict):
    """The race as a fragment of an address, or why it has none."""

    race: NotRequired[str]
    refused: NotRequired[str]


class End(TypedDict):
    """A race is over: the result in a sentence, and what it was measured on.

    ``follow_up``: a prompt that goes on from here, where the page knows one.
    """

    kind: Literal["end"]
    lanes: list[LaneEnd]
    summary: str
    note: str
    link: Link
    follow_up: NotRequired[str]


class Failure(TypedDict):
    """What went wrong and what to do. ``over``: it ended the run that the board shows."""

    kind: Literal["error"]
    text: str
    over: NotRequired[bool]


class Fill(TypedDict):
    """Values for the form: a prompt, a model pair, settings by name."""

    kind: Literal["fill"]
    prompt: NotRequired[str]
    pair: NotRequired[str]
    settings: NotRequired[dict[str, float | str | None]]


class Download(TypedDict):
    """A file for the visitor to save."""

    kind: Literal["file"]
    name: str
    text: str


class Published(TypedDict):
    """The short link of a race, by its id."""

    kind: Literal["published"]
    id: str
    prompt: str


Message = Start | Step | Clock | Status | Stopped | End | Failure | Fill | Download | Published


class Pack(TypedDict):
    """Messages on their way to the board, the ``seq``-th of their ``run``.

    ``opening``: the page's first ones, which give way to a run.
    """

    run: str
    seq: int
    messages: list[Message]
    opening: bool


def new_run() -> str:
    return uuid4().hex[:8]


def pack_now(messages: Sequence[Message], opening: bool = False) -> str:
    """Messages that belong to no live run."""
    return pack_messages(new_run(), 0, messages, opening)


def pack_messages(run: str, number: int, messages: Sequence[Message], opening: bool = False) -> str:
    """JSON for the board, free of ``<`` whatever a model wrote; ``number`` makes it unique.

    Nor does it hold half a character, which no JSON of Gradio's could tell again.

    Raises:
        ValueError: a number is not finite, which no browser reads.
    """
    pack = Pack(run=run, seq=number, messages=list(messages), opening=opening)
    return whole(to_json(pack, ascii=False)).replace("<", "\\u003c")


def sound(value: Any) -> Any:
    """The same for a value that another's JSON will hold, such as Gradio's.

    Raises:
        ValueError: a number is not finite.
    """
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, dict):
        return {key: sound(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [sound(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"JSON holds finite numbers only, got {value}")
    return value
