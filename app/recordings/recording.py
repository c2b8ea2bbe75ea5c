"""A finished race as a value: kept in a file, opened again and replayed without any model.

A :class:`Recording` is valid by construction: whatever breaks a limit below raises
:class:`RecordingError`, so a page may draw any recording it holds, even one from a stranger's
file. The short form for web addresses is in :mod:`.link`. Knows nothing of models, tokenizers or
screens, and loads no torch before a lane is replayed.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from d2f.config import MAX_TOKENS, DecodeConfig, settings_of
from d2f.errors import InvalidInput
from d2f.events import (
    BLOCK_STATES,
    CLIENT,
    CLOCKS,
    MALFORMED,
    BlockView,
    StepEvent,
    Trace,
    TraceHeader,
)
from d2f.strict_json import from_json, to_json

from ..conversation import MAX_CHARACTERS, MAX_TURNS, Exchange

if TYPE_CHECKING:
    from ..lanes.lane import Lane

FORMAT, KIND = 2, "d2f-race"
FORMATS = (1, FORMAT)
MAX_FILE = 2_500_000  # characters
MAX_LANES = 2
MAX_PROMPT_TOKENS = 32_768
MAX_BLOCK_VIEWS = 50_000  # a lane, over all steps
MAX_SECONDS = 86_400.0  # a lane
MIN_SECONDS = 1e-12  # a step that took any time; keeps every speed finite
MAX_ID = 2**31 - 1
MAX_STOP_IDS = 1024
MAX_VERSIONS = 16
# Characters.
MAX_PROMPT, MAX_ANSWER, MAX_VERDICT, MAX_NAME, MAX_TOKEN_TEXT = 32_768, 200_000, 500, 200, 200
# Control characters but newline and tab, and surrogates, which no UTF-8 text can hold.
_UNREADABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_CLIENT_TIMED = re.compile("client-timed, (.+?)(, tokens by its own count)?")  # in format 1


ONE_RUN = (
    "it is the run of one decoder, as d2f generate --trace writes it; here belongs a race, as the "
    "page's Download trace saves it"
)


class RecordingError(InvalidInput):
    """A recording is refused; the message tells a visitor why."""


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
        check_text("the prompt", self.prompt, MAX_PROMPT)
        check_text("the verdict", self.verdict, MAX_VERDICT)
        require(1 <= len(self.lanes) <= MAX_LANES, "a race has one or two lanes")
        for lane in self.lanes:
            _check_lane(lane)
        _check_past(self.past, len(self.lanes))

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
                "trace": from_json(lane.trace.to_json()),
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
            data = parse_json(text)
            one = isinstance(data, dict) and data.keys() >= {"decoder", "header", "events"}
            require(not one, ONE_RUN)
            require(isinstance(data, dict) and data.get("kind") == KIND, "it is not a race")
            check_format(data["format"])
            require(isinstance(data["lanes"], list), "its lanes must be a list")
            require(1 <= len(data["lanes"]) <= MAX_LANES, "a race has one or two lanes")
            lanes = tuple(_lane_from_dict(lane, data["format"]) for lane in data["lanes"])
            return cls(data["prompt"], lanes, data["verdict"], read_past(data.get("past", [])))


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
        Exchange(turn.prompt, tuple(_readable(answer, MAX_ANSWER) for answer in turn.answers))
        for turn in past
    )
    return Recording(prompt, tuple(_recorded(lane) for lane in lanes), verdict, said)


def replay_lane(recorded: RecordedLane) -> "Lane":
    """A fresh lane that repeats the recorded run with its own times."""
    # Loads torch; reading and writing recordings does without.
    from ..lanes.lane import recorded_lane

    return recorded_lane(recorded.name, recorded.trace, recorded.texts.__getitem__, recorded.placed)


def write_past(past: Sequence[Exchange]) -> list[list[str]]:
    """Earlier turns for JSON: a list each, of the prompt and then every lane's answer."""
    return [[turn.prompt, *turn.answers] for turn in past]


def read_past(rows: Any) -> tuple[Exchange, ...]:
    """Inverse of :func:`write_past`, of which nothing is believed."""
    require(isinstance(rows, list), "the earlier turns must be a list")
    require(len(rows) <= MAX_TURNS, f"there are more than {MAX_TURNS} earlier turns")
    for row in rows:
        whole = isinstance(row, list) and 2 <= len(row) <= 1 + MAX_LANES
        require(whole, "an earlier turn must be a prompt and its answers")
    return tuple(Exchange(prompt, tuple(answers)) for prompt, *answers in rows)


def require(ok: bool, reason: str) -> None:
    """Refuses with ``reason`` what is not ``ok``."""
    if not ok:
        raise RecordingError(reason)


def check_text(name: str, value: object, most: int) -> None:
    """Refuses what is no text, too long, or holds characters that no screen shows."""
    if not isinstance(value, str):
        raise RecordingError(f"{name} must be text")
    require(len(value) <= most, f"{name} is longer than {most:,} characters")
    found = _UNREADABLE.search(value)
    if found:
        raise RecordingError(f"{name} contains the character U+{ord(found[0]):04X}")


def check_format(value: object) -> None:
    """Refuses what no reader here reads."""
    known = type(value) is int and value in FORMATS
    require(known, f"its format must be {' or '.join(map(str, FORMATS))}")


def read_header(header: TraceHeader, format: int) -> TraceHeader:
    """The header of a recording; in format 1 the device said in words what fields tell since."""
    if format == FORMAT:
        return header
    client = _CLIENT_TIMED.fullmatch(header.device)
    if client:
        host, counted = client[1], bool(client[2])
        return replace(header, device="unknown", clock=CLIENT, host=host, counted=counted)
    device, at, host = header.device.rpartition(", at ")
    return replace(header, device=device, host=host) if at else header


def check_settings(config: DecodeConfig) -> None:
    """Refuses settings that would make a board or a block pipeline costly."""
    for name, setting in settings_of(type(config)).items():
        value, most = getattr(config, name), setting.most
        bounded = isinstance(value, int | float)
        require(not bounded or value <= most, f"{name} must be at most {most:,}")


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Whatever malformed input raises inside becomes a RecordingError that begins with ``what``."""
    try:
        yield
    except (ValueError, *MALFORMED) as error:
        known = isinstance(error, ValueError)
        reason = str(error) if known else f"it is malformed ({type(error).__name__})"
        raise RecordingError(f"{what}: {_readable(reason, 200)}.") from error


def parse_json(text: str) -> Any:
    """JSON with unique keys and short finite numbers; ``ValueError`` or RecursionError if not."""
    return json.loads(
        text,
        parse_int=_integer,
        parse_float=_number,
        parse_constant=_constant,
        object_pairs_hook=_unique,
    )


def _integer(text: str) -> int:
    # Python reads long numbers in quadratic time, or refuses them with advice for programmers.
    require(len(text) <= 20, "a number has too many digits")
    return int(text)


def _number(text: str) -> float:
    require(len(text) <= 40, "a number has too many digits")
    value = float(text)
    require(math.isfinite(value), "a number is too large")
    return value


def _constant(text: str) -> float:
    raise RecordingError(f"{text} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    require(len(values) == len(pairs), "a name occurs twice in one object")
    return values


def _readable(text: str, most: int) -> str:
    clean = _UNREADABLE.sub("\ufffd", text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _recorded(lane: "Lane") -> RecordedLane:
    trace, read = lane.trace, lane.texts()
    ids, said = trace.canvas, {}
    for event in trace.events:
        said.update({p: _readable(text, MAX_TOKEN_TEXT) for p, text in read(event).items()})
    texts = {i: _readable(lane.token_text(i), MAX_TOKEN_TEXT) for i in set(ids.values())}
    placed = {p: text for p, text in said.items() if text != texts[ids[p]]}
    answer = trace.with_text(_readable(trace.text, MAX_ANSWER))
    return RecordedLane(lane.name, answer, texts, placed)


def _lane_from_dict(data: dict[str, Any], format: int) -> RecordedLane:
    trace = data["trace"]
    _check_counts(trace["header"], trace["events"])
    texts, placed = _pairs(data["texts"]), _pairs(data.get("placed", []))
    read = Trace.from_json(to_json(trace))
    header = read_header(read.header, format)
    return RecordedLane(data["name"], replace(read, header=header), texts, placed)


def _pairs(rows: Any) -> dict[int, str]:
    """Texts by number."""
    require(isinstance(rows, list) and len(rows) <= MAX_TOKENS, "too many texts")
    pairs = {number: text for number, text in rows}
    require(len(pairs) == len(rows), "a token has two texts")
    require(all(type(number) is int for number in pairs), "a token id must be an integer")
    return pairs


def _check_counts(header: dict[str, Any], events: list[dict[str, Any]]) -> None:
    """Refuses too much of anything before values are made of it."""
    require(isinstance(events, list), "the events of a lane must be a list")
    require(len(header["prompt_ids"]) <= MAX_PROMPT_TOKENS, "the prompt has too many tokens")
    require(len(header["stop_ids"]) <= MAX_STOP_IDS, "a lane has too many stop tokens")
    require(len(events) <= MAX_TOKENS, f"a lane has more than {MAX_TOKENS:,} steps")
    commits = sum(len(event["commits"]) for event in events)
    require(commits <= MAX_TOKENS, f"a lane has more than {MAX_TOKENS:,} tokens")
    blocks = sum(len(event["blocks"]) for event in events)
    require(blocks <= MAX_BLOCK_VIEWS, "a lane has too many blocks in flight")


def _check_lane(lane: RecordedLane) -> None:
    trace = lane.trace
    check_text("the name of a lane", lane.name, MAX_NAME)
    check_text("an answer", trace.text, MAX_ANSWER)
    check_settings(trace.header.config)
    _check_header(trace.header)
    _check_events(trace)
    known = lane.texts.keys() == set(trace.canvas.values())
    require(known, "the texts must be those of the tokens, no more and no less")
    require(lane.placed.keys() <= trace.canvas.keys(), "a text must be that of a token")
    for text in (*lane.texts.values(), *lane.placed.values()):
        check_text("the text of a token", text, MAX_TOKEN_TEXT)


def _check_past(past: Sequence[Exchange], lanes: int) -> None:
    require(len(past) <= MAX_TURNS, f"there are more than {MAX_TURNS} earlier turns")
    for turn in past:
        check_text("an earlier prompt", turn.prompt, MAX_PROMPT)
        require(len(turn.answers) == lanes, "an earlier turn must have an answer of every lane")
        for answer in turn.answers:
            check_text("an earlier answer", answer, MAX_ANSWER)
    said = sum(len(text) for row in write_past(past) for text in row)
    require(said <= MAX_CHARACTERS, f"earlier turns are longer than {MAX_CHARACTERS:,} characters")


def _check_header(header: TraceHeader) -> None:
    names = {"model": header.model, "device": header.device, "dtype": header.dtype}
    names |= {} if header.host is None else {"host": header.host}
    for name, value in names.items():
        check_text(f"the {name}", value, MAX_NAME)
    require(header.clock in CLOCKS, "its clock is unknown")
    require(type(header.counted) is bool, "whether its tokens were counted is unknown")
    require(isinstance(header.versions, dict), "the versions must be named")
    require(len(header.versions) <= MAX_VERSIONS, f"more than {MAX_VERSIONS} versions")
    for value in (*header.versions, *header.versions.values()):
        check_text("a version", value, MAX_NAME)
    known = 1 <= len(header.prompt_ids) <= MAX_PROMPT_TOKENS
    require(known, "the prompt has too many tokens or none")
    require(len(header.stop_ids) <= MAX_STOP_IDS, "a lane has too many stop tokens")
    ids = (*header.prompt_ids, *header.stop_ids)
    require(all(0 <= i <= MAX_ID for i in ids), "a token id is out of range")


def _check_events(trace: Trace) -> None:
    events, start = trace.events, len(trace.header.prompt_ids)
    end = start + trace.header.config.max_new_tokens
    require(len(events) <= MAX_TOKENS, f"a lane has more than {MAX_TOKENS:,} steps")
    require(sum(len(e.blocks) for e in events) <= MAX_BLOCK_VIEWS, "too many blocks in flight")
    for number, event in enumerate(events):
        require(event.step == number, f"step {number} is missing")
        over = event.finish_reason is not None
        require(not over or event is events[-1], f"the run goes on after its end in step {number}")
        _check_event(event, start, end)
    # Sums beyond the greatest float are infinite here; fsum would raise OverflowError.
    require(sum(e.seconds for e in events) <= MAX_SECONDS, "a lane takes more than a day")
    positions = [commit.position for event in events for commit in event.commits]
    require(len(set(positions)) == len(positions), "a position is decided twice")


def _check_event(event: StepEvent, start: int, end: int) -> None:
    """``[start, end)`` are the positions of the answer."""
    where = f"in step {event.step}"
    timely = event.seconds == 0 or MIN_SECONDS <= event.seconds <= MAX_SECONDS
    require(timely, f"the time is out of range {where}")
    first, last = event.window
    require(0 <= first < last <= end, f"the window is out of range {where}")
    require(0 <= event.cache_length <= end, f"the cache is out of range {where}")
    for commit in event.commits:
        require(start <= commit.position < end, f"a position is out of range {where}")
        require(0 <= commit.token_id <= MAX_ID, f"a token id is out of range {where}")
        require(0 <= commit.confidence <= 1, f"a confidence is out of range {where}")
    for block in event.blocks:
        require(_is_block(block, start, end), f"a block is out of range {where}")


def _is_block(block: BlockView, start: int, end: int) -> bool:
    return (
        0 <= block.index <= MAX_TOKENS
        and start <= block.start < block.end <= end
        and 0 <= block.num_masked <= block.end - block.start
        and block.state in BLOCK_STATES
    )
