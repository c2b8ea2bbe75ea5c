"""A finished race as a value: kept in a file, opened again and replayed without any model.

A :class:`Recording` is valid by construction: whatever breaks a limit below raises
:class:`RecordingError`, so a page may draw any recording it holds, even one from a stranger's
file. The short form for web addresses is in :mod:`.link`. Knows nothing of models, tokenizers or
screens, and loads no torch before a lane is replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from d2f.config import MAX_TOKENS
from d2f.events import Trace
from d2f.model_files import Fields
from d2f.strict_json import from_json, to_json

from ..conversation import Exchange
from .limits import (
    FEW_STEPS,
    FEW_TURNS,
    MAX_ANSWER,
    MAX_BLOCK_VIEWS,
    MAX_LANES,
    MAX_TOKEN_TEXT,
    ONE_OR_TWO,
    LimitedRecording,
    few,
    known_format,
)
from .old import modern_header
from .refusals import readable, refusals, require

if TYPE_CHECKING:
    from ..lanes.lane import Lane

FORMAT, KIND = 2, "d2f-race"
MAX_FILE = 2_500_000  # characters

ONE_RUN = (
    "it holds the run of one decoder, as d2f generate --trace writes it; the page opens races, as "
    "its Download trace saves them"
)


@dataclass(frozen=True)
class RecordedLane:
    """One lane of a race; ``texts`` holds the text of every token id the trace commits.

    ``placed`` are texts by position where a token reads otherwise than by itself: as a part of a
    character, or at the start of the answer.
    """

    name: str
    trace: Trace
    texts: dict[int, str]
    placed: dict[int, str] = field(default_factory=dict)

    def text_at(self, position: int, token_id: int) -> str:
        """What a committed token says in its place."""
        return self.placed.get(position, self.texts[token_id])


@dataclass(frozen=True)
class Recording:
    """One or two lanes that answered ``prompt``, and the sentence that judged them.

    ``past`` is what the lanes were told before: prompts, and each lane's own answers to them.

    Raises:
        RecordingError: a value is out of its limits.
    """

    prompt: str
    lanes: tuple[RecordedLane, ...]
    verdict: str = ""
    past: tuple[Exchange, ...] = ()

    def __post_init__(self) -> None:
        with refusals():
            LimitedRecording.model_validate(self)

    @property
    def turn(self) -> int:
        """Which turn of its conversation the race was, from 1."""
        return len(self.past) + 1

    def to_json(self) -> str:
        """One JSON object, from which :meth:`from_json` makes an equal recording.

        Raises:
            RecordingError: it would be longer than the ``MAX_FILE`` characters a reader takes.
        """
        lanes = [
            {
                "name": lane.name,
                "trace": lane.trace.to_dict(),
                "texts": [[token_id, text] for token_id, text in sorted(lane.texts.items())],
                **({"placed": sorted(map(list, lane.placed.items()))} if lane.placed else {}),
            }
            for lane in self.lanes
        ]
        head = {"format": FORMAT, "kind": KIND, "prompt": self.prompt, "verdict": self.verdict}
        past = {"past": write_past(self.past)} if self.past else {}
        text = to_json(head | {"lanes": lanes} | past)
        require(len(text) <= MAX_FILE, "the run is too long to be saved")
        return text

    @classmethod
    def from_json(cls, text: str) -> "Recording":
        """Inverse of :meth:`to_json`; safe on any text, of which nothing is believed.

        Raises:
            RecordingError: the text is not a recording, or breaks a limit.
        """
        with refusals("This file cannot be opened"):
            require(isinstance(text, str), "it is not text")
            require(len(text) <= MAX_FILE, f"it is longer than {MAX_FILE:,} characters")
            data = from_json(text)
            one = isinstance(data, dict) and data.keys() >= {"decoder", "header", "events"}
            require(not one, ONE_RUN)
            require(isinstance(data, dict) and data.get("kind") == KIND, "it is not a race")
            race = RaceFile.model_validate(data)
            lanes = tuple(_read_lane(lane, race.format) for lane in race.lanes)
            return cls(race.prompt, lanes, race.verdict, read_past(race.past))


Texts = Annotated[
    list[Annotated[tuple[int, Any], Field(strict=False)]], few(MAX_TOKENS, "too many texts")
]
WHOLE_TURN = few(1 + MAX_LANES, "an earlier turn must be a prompt and its answers", least=2)
# A list each, of the prompt and then every lane's answer.
Past = Annotated[list[Annotated[list[Any], WHOLE_TURN]], FEW_TURNS]


class StepFile(Fields):
    """As much of a step as must be known before values are made of it."""

    model_config = ConfigDict(extra="allow")

    commits: list[Any]
    blocks: list[Any]


class TraceFile(Fields):
    model_config = ConfigDict(extra="allow")

    events: Annotated[list[StepFile], FEW_STEPS]

    @model_validator(mode="after")
    def is_small(self) -> "TraceFile":
        tokens = sum(len(event.commits) for event in self.events)
        require(tokens <= MAX_TOKENS, f"a lane has more than {MAX_TOKENS:,} tokens")
        views = sum(len(event.blocks) for event in self.events)
        require(views <= MAX_BLOCK_VIEWS, "a lane has too many blocks in flight")
        return self


class LaneFile(Fields):
    name: Any
    trace: TraceFile
    texts: Texts
    placed: Texts = []


class RaceFile(Fields):
    """The JSON of a recording; what it holds may still be anything."""

    format: Annotated[int, known_format(1, FORMAT)]
    prompt: Any
    verdict: Any
    lanes: Annotated[list[LaneFile], ONE_OR_TWO]
    past: Past = []


def record(
    prompt: str, lanes: "Sequence[Lane]", verdict: str = "", past: Sequence[Exchange] = ()
) -> Recording:
    """A recording of lanes that are over, by themselves or cancelled.

    Control characters that a model wrote become U+FFFD; a token's or an answer's text beyond its
    limit is cut and ends in an ellipsis.

    Raises:
        RecordingError: the race is beyond the limits of a recording.
    """
    said = tuple(
        Exchange(turn.prompt, tuple(readable(answer, MAX_ANSWER) for answer in turn.answers))
        for turn in past
    )
    return Recording(prompt, tuple(_recorded(lane) for lane in lanes), verdict, said)


def replay_lane(recorded: RecordedLane) -> "Lane":
    """A fresh lane that repeats the recorded run with its own times."""
    # Loads torch; reading and writing recordings does without.
    from ..lanes.lane import recorded_lane

    return recorded_lane(recorded.name, recorded.trace, recorded.texts.__getitem__, recorded.placed)


def write_past(past: Sequence[Exchange]) -> list[list[str]]:
    """Earlier turns for JSON."""
    return [[turn.prompt, *turn.answers] for turn in past]


def read_past(rows: Sequence[Sequence[Any]]) -> tuple[Exchange, ...]:
    """Inverse of :func:`write_past`."""
    return tuple(Exchange(prompt, tuple(answers)) for prompt, *answers in rows)


def _recorded(lane: "Lane") -> RecordedLane:
    trace, read = lane.trace, lane.texts()
    ids, said = trace.canvas, {}
    for event in trace.events:
        said.update({p: readable(text, MAX_TOKEN_TEXT) for p, text in read(event).items()})
    texts = {i: readable(lane.token_text(i), MAX_TOKEN_TEXT) for i in set(ids.values())}
    placed = {p: text for p, text in said.items() if text != texts[ids[p]]}
    answer = trace.with_text(readable(trace.text, MAX_ANSWER))
    return RecordedLane(lane.name, answer, texts, placed)


def _read_lane(lane: LaneFile, format: int) -> RecordedLane:
    texts, placed = dict(lane.texts), dict(lane.placed)
    once = len(texts) == len(lane.texts) and len(placed) == len(lane.placed)
    require(once, "a token has two texts")
    trace = Trace.from_dict(lane.trace.model_dump(exclude_unset=True))
    header = modern_header(trace.header) if format == 1 else trace.header
    return RecordedLane(lane.name, replace(trace, header=header), texts, placed)
