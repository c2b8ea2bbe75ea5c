"""Limits of every value of a recording, so that a page may draw any recording there is.

They hold however a recording came about: from a file, from a link, from a race that was just run.
"""

from collections.abc import Sized
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from d2f.config import MAX_TOKENS, DecodeConfig, settings_of
from d2f.events import BLOCK_STATES, BlockView
from d2f.model_files import Fields

from ..conversation import MAX_CHARACTERS, MAX_TURNS
from .refusals import require, unreadable

MAX_LANES = 2
MAX_PROMPT_TOKENS = 32_768
MAX_BLOCK_VIEWS = 50_000  # a lane, over all steps
MAX_SECONDS = 86_400.0  # a lane
MIN_SECONDS = 1e-12  # a step that took any time; keeps every speed finite
MAX_ID = 2**31 - 1
MAX_STOP_IDS = 1024
MAX_VERSIONS = 16
MAX_CANDIDATES = 16  # of a token
# Characters.
MAX_PROMPT, MAX_ANSWER, MAX_VERDICT, MAX_NAME, MAX_TOKEN_TEXT = 32_768, 200_000, 500, 200, 200


def few(most: int, refusal: str, least: int = 0) -> BeforeValidator:
    """Refuses too many parts before any of them is read."""

    def counted(parts: Any) -> Any:
        require(not isinstance(parts, Sized) or least <= len(parts) <= most, refusal)
        return parts

    return BeforeValidator(counted)


def known_format(*known: int) -> BeforeValidator:
    """Refuses what no reader here reads."""

    def checked(value: Any) -> Any:
        ok = type(value) is int and value in known
        require(ok, f"its format must be {' or '.join(map(str, known))}")
        return value

    return BeforeValidator(checked)


def _shown(text: Any) -> Any:
    if isinstance(text, str) and (character := unreadable(text)):
        raise PydanticCustomError("unreadable", "contains the character {it}", {"it": character})
    return text


def check_settings(config: DecodeConfig) -> DecodeConfig:
    """Refuses settings that would make a board or a block pipeline costly."""
    for name, setting in settings_of(type(config)).items():
        value, most = getattr(config, name), setting.most
        bounded = isinstance(value, int | float)
        require(not bounded or value <= most, f"{name} must be at most {most:,}")
    return config


FEW_STEPS = few(MAX_TOKENS, f"a lane has more than {MAX_TOKENS:,} steps")
FEW_TURNS = few(MAX_TURNS, f"there are more than {MAX_TURNS} earlier turns")
ONE_OR_TWO = few(MAX_LANES, "a race has one or two lanes", least=1)
READABLE = BeforeValidator(_shown)
Prompt = Annotated[str, Field(max_length=MAX_PROMPT), READABLE]
Answer = Annotated[str, Field(max_length=MAX_ANSWER), READABLE]
Name = Annotated[str, Field(max_length=MAX_NAME), READABLE]
TokenText = Annotated[str, Field(max_length=MAX_TOKEN_TEXT), READABLE]
Id = Annotated[int, Field(ge=0, le=MAX_ID)]
Share = Annotated[float, Field(ge=0, le=1)]
Candidates = Annotated[
    tuple[tuple[Id, Share], ...], few(MAX_CANDIDATES, "a token has too many candidates")
]


class Limited(Fields):
    """A value's own fields within their limits; read from its attributes, and then let go."""

    model_config = ConfigDict(from_attributes=True)


class LimitedGuess(Limited):
    position: int
    token_id: Id
    confidence: Share


class LimitedCommit(LimitedGuess):
    candidates: Candidates


class LimitedStep(Limited):
    step: int
    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS)]
    window: tuple[int, int]
    commits: tuple[LimitedCommit, ...]
    guesses: Annotated[tuple[LimitedGuess, ...], few(MAX_TOKENS, "a step has too many guesses")]
    blocks: tuple[BlockView, ...]
    cache_length: int
    finish_reason: str | None
    drafted: int

    def check(self, start: int, end: int) -> None:
        """``[start, end)`` are the positions of the answer."""
        first, last = self.window
        decided = (*self.commits, *self.guesses)
        within = {
            "the time": self.seconds == 0 or self.seconds >= MIN_SECONDS,
            "the window": 0 <= first < last <= end,
            "the cache": 0 <= self.cache_length <= end,
            "a draft": not self.drafted or len(self.commits) - 1 <= self.drafted < last - first,
            "a position": all(start <= each.position < end for each in decided),
            "a block": all(_is_block(block, start, end) for block in self.blocks),
        }
        for name, ok in within.items():
            require(ok, f"{name} is out of range in step {self.step}")


def _is_block(block: BlockView, start: int, end: int) -> bool:
    return (
        0 <= block.index <= MAX_TOKENS
        and start <= block.start < block.end <= end
        and 0 <= block.num_masked <= block.end - block.start
        and block.state in BLOCK_STATES
    )


class LimitedHeader(Limited):
    config: Annotated[Any, AfterValidator(check_settings)]
    model: Name
    device: Name
    dtype: Name
    prompt_ids: Annotated[
        tuple[Id, ...], few(MAX_PROMPT_TOKENS, "the prompt has too many tokens or none", least=1)
    ]
    stop_ids: Annotated[tuple[Id, ...], few(MAX_STOP_IDS, "a lane has too many stop tokens")]
    versions: Annotated[dict[Name, Name], few(MAX_VERSIONS, f"more than {MAX_VERSIONS} versions")]
    clock: Literal["decoder", "client"]
    host: Name | None
    counted: bool
    held: tuple[tuple[int, Id], ...]

    @model_validator(mode="after")
    def held_ascend(self) -> "LimitedHeader":
        places = [-1, *(place for place, _ in self.held), self.config.max_new_tokens]
        require(all(a < b for a, b in pairwise(places)), "a held token is out of range")
        return self


class LimitedTrace(Limited):
    header: LimitedHeader
    events: Annotated[tuple[LimitedStep, ...], FEW_STEPS]
    text: Answer
    canvas: dict[int, int]

    @model_validator(mode="after")
    def is_one_run(self) -> "LimitedTrace":
        start, events = len(self.header.prompt_ids), self.events
        views = sum(len(event.blocks) for event in events)
        require(views <= MAX_BLOCK_VIEWS, "a lane has too many blocks in flight")
        for number, event in enumerate(events):
            require(event.step == number, f"step {number} is missing")
            over = event.finish_reason is not None and event is not events[-1]
            require(not over, f"the run goes on after its end in step {number}")
            event.check(start, start + self.header.config.max_new_tokens)
        seconds = sum(event.seconds for event in events)
        require(seconds <= MAX_SECONDS, "a lane takes more than a day")
        decided = len(self.header.held) + sum(len(event.commits) for event in events)
        require(decided == len(self.canvas), "a position is decided twice")
        return self


class LimitedLane(Limited):
    name: Name
    trace: LimitedTrace
    texts: dict[int, TokenText]
    placed: dict[int, TokenText]

    @model_validator(mode="after")
    def has_its_texts(self) -> "LimitedLane":
        canvas = self.trace.canvas
        known = self.texts.keys() == set(canvas.values())
        require(known, "the texts must be those of the tokens, no more and no less")
        require(self.placed.keys() <= canvas.keys(), "a text must be that of a token")
        return self


class LimitedExchange(Limited):
    prompt: Prompt
    answers: tuple[Answer, ...]


class LimitedRecording(Limited):
    prompt: Prompt
    lanes: Annotated[tuple[LimitedLane, ...], ONE_OR_TWO]
    verdict: Annotated[str, Field(max_length=MAX_VERDICT), READABLE]
    past: Annotated[tuple[LimitedExchange, ...], FEW_TURNS]

    @model_validator(mode="after")
    def has_all_answers(self) -> "LimitedRecording":
        whole = all(len(turn.answers) == len(self.lanes) for turn in self.past)
        require(whole, "an earlier turn must have an answer of every lane")
        said = sum(len(text) for turn in self.past for text in (turn.prompt, *turn.answers))
        most = f"{MAX_CHARACTERS:,} characters"
        require(said <= MAX_CHARACTERS, f"earlier turns are longer than {most}")
        return self
