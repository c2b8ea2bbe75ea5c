"""What a decoder says of its work: plain frozen values, JSON both ways, and every metric.

A decoder yields one :class:`StepEvent` a forward; a run is a :class:`Trace`. Page, benchmark,
tests and links all read the same Trace, so each metric is defined once, here, and a recorded run
and a live one look the same. Knows nothing of tensors, text or screens.

Positions are absolute: the prompt fills ``0 .. prompt_length - 1``. Times are seconds spent inside
the decoder (device-synchronised), never around it.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import count
from typing import Any

from d2f.config import DecodeConfig, config_from_dict, config_to_dict, decoder_name
from d2f.errors import InvalidInput, shown
from d2f.strict_json import from_json, to_json

FORMAT = 1
SEMI_ACTIVATED, FULLY_ACTIVATED, COMPLETED, CACHED = (
    "semi_activated",
    "fully_activated",
    "completed",
    "cached",
)
BLOCK_STATES = (SEMI_ACTIVATED, FULLY_ACTIVATED, COMPLETED, CACHED)
FINISH_REASONS = ("stop", "length")
DECODER, CLIENT = CLOCKS = ("decoder", "client")
# Of one step; a sum of them stays finite.
MAX_SECONDS = 1e9
# What reading JSON of the wrong shape, far too large a number or far too deep a list may raise.
MALFORMED = (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Commit:
    """One token decided: its confidence is the probability of the chosen token.

    ``forced`` marks a token that was decided though it was not sure, such as the single best of a
    fully activated block that had none above tau_conf.
    ``candidates`` are the likeliest tokens there with their probabilities, best first; empty unless
    the run was inspected.
    """

    position: int
    token_id: int
    confidence: float
    forced: bool = False
    candidates: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Guess:
    """The token that the model would choose for a position that stays undecided."""

    position: int
    token_id: int
    confidence: float


@dataclass(frozen=True)
class BlockView:
    """A generated block as it stands after a step; ``[start, end)`` are absolute positions."""

    index: int
    start: int
    end: int
    num_masked: int
    state: str


@dataclass(frozen=True)
class StepEvent:
    """One forward and what came of it.

    ``window`` is the forwarded span ``[start, end)``; ``cache_length`` counts final K/V rows after
    the step; ``blocks`` are the blocks in flight and those that changed state in this step;
    ``finish_reason`` is set on the last event only. ``guesses`` are those for the wanted positions
    that stay undecided; empty unless the run was inspected. ``drafted`` tokens were checked: the
    commits but the last are those that proved right.
    """

    step: int
    seconds: float
    window: tuple[int, int]
    commits: tuple[Commit, ...]
    blocks: tuple[BlockView, ...] = ()
    cache_length: int = 0
    finish_reason: str | None = None
    guesses: tuple[Guess, ...] = ()
    drafted: int = 0

    @property
    def rejected(self) -> int:
        """Drafted tokens that proved wrong."""
        return self.drafted - (len(self.commits) - 1) if self.drafted else 0


@dataclass(frozen=True)
class TraceHeader:
    """What was run, on what: enough to run it again and to read the figures fairly.

    ``clock`` took the times: the ``"decoder"``, or a ``"client"`` that saw only when the tokens of
    another machine's run arrived. ``host`` names the other machine; None: the run was on this one.
    ``counted``: an event's tokens are the model's; False: pieces of text, of which nobody told how
    many tokens they were. ``held``: tokens of the answer that were given, not decided, as pairs of
    place (0: the answer's first token) and token id, ascending.
    """

    config: DecodeConfig
    model: str
    device: str
    dtype: str
    prompt_ids: tuple[int, ...]
    stop_ids: tuple[int, ...]
    versions: dict[str, str] = field(default_factory=dict)
    clock: str = DECODER
    host: str | None = None
    counted: bool = True
    held: tuple[tuple[int, int], ...] = ()

    @property
    def decoder(self) -> str:
        return decoder_name(self.config)

    @property
    def given(self) -> dict[int, int]:
        """Held token ids by absolute position."""
        return {len(self.prompt_ids) + place: token_id for place, token_id in self.held}


@dataclass(frozen=True)
class Trace:
    """A whole run. ``text`` is the answer decoded by the model's tokenizer, or "" if unknown.

    Token counts run up to and including the first stop token; padding behind it never counts, nor
    do tokens that were held.
    """

    header: TraceHeader
    events: tuple[StepEvent, ...]
    text: str = ""

    @cached_property
    def canvas(self) -> dict[int, int]:
        """Token by absolute position, everything held or committed."""
        return self.header.given | {
            c.position: c.token_id for event in self.events for c in event.commits
        }

    @cached_property
    def token_ids(self) -> tuple[int, ...]:
        """The answer: decided tokens from the end of the prompt up to the first gap or stop."""
        ids: list[int] = []
        position = len(self.header.prompt_ids)
        while position in self.canvas:
            ids.append(self.canvas[position])
            if ids[-1] in self.header.stop_ids:
                break
            position += 1
        return tuple(ids)

    @property
    def tokens(self) -> int:
        """Tokens decided, up to and including the first stop token."""
        given = sum(place < len(self.token_ids) for place, _ in self.header.held)
        return len(self.token_ids) - given

    @property
    def forwards(self) -> int:
        """NFE: number of forward evaluations."""
        return len(self.events)

    @property
    def seconds(self) -> float:
        return math.fsum(event.seconds for event in self.events)

    @property
    def ttft(self) -> float:
        """Time to first token: seconds until the first answer position is decided."""
        given = self.header.given
        first = next(p for p in count(len(self.header.prompt_ids)) if p not in given)
        elapsed = 0.0
        for event in self.events:
            elapsed += event.seconds
            if any(commit.position == first for commit in event.commits):
                return elapsed
        return elapsed

    @property
    def tokens_per_second(self) -> float:
        """TPS, end to end: prefill and time to first token included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """TPS after the first forward (which holds the prefill), for what later forwards added."""
        if len(self.events) < 2:
            return 0.0
        end = len(self.header.prompt_ids) + len(self.token_ids)
        first = sum(c.position < end for c in self.events[0].commits)
        seconds = math.fsum(event.seconds for event in self.events[1:])
        return (self.tokens - first) / seconds if seconds else 0.0

    @property
    def tokens_per_forward(self) -> float:
        """TPF."""
        return self.tokens / self.forwards if self.forwards else 0.0

    @property
    def rejected(self) -> int:
        """Drafted tokens that proved wrong, of all steps."""
        return sum(event.rejected for event in self.events)

    @property
    def ms_per_forward(self) -> float:
        return 1000 * self.seconds / self.forwards if self.forwards else 0.0

    @property
    def finish_reason(self) -> str | None:
        """ "stop", "length", or None for a run that was cancelled."""
        return self.events[-1].finish_reason if self.events else None

    @property
    def metrics(self) -> dict[str, float | int | str | None]:
        """Every metric by name, as printed by the command line and the benchmark."""
        return {
            "tokens": self.tokens,
            "forwards": self.forwards,
            "seconds": self.seconds,
            "ttft": self.ttft,
            "tokens_per_second": self.tokens_per_second,
            "decode_tokens_per_second": self.decode_tokens_per_second,
            "tokens_per_forward": self.tokens_per_forward,
            "ms_per_forward": self.ms_per_forward,
            "finish_reason": self.finish_reason,
        }

    def with_text(self, text: str) -> "Trace":
        return replace(self, text=text)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": FORMAT,
            "decoder": self.header.decoder,
            "config": config_to_dict(self.header.config),
            "header": _header_to_dict(self.header),
            "events": [event_to_dict(event) for event in self.events],
            "text": self.text,
        }

    def to_json(self) -> str:
        return to_json(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> "Trace":
        """Inverse of :meth:`to_json`. Anything malformed raises ``InvalidInput`` saying what."""
        return cls.from_dict(from_json(text))

    @classmethod
    def from_dict(cls, data: Any) -> "Trace":
        """Inverse of :meth:`to_dict`; nothing is believed, as in :meth:`from_json`."""
        try:
            if data["format"] != FORMAT:
                raise InvalidInput(f"trace format must be {FORMAT}, got {data['format']!r}")
            config = config_from_dict(data["decoder"], data["config"])
            header = data["header"]
            return cls(
                header=TraceHeader(
                    config=config,
                    model=str(header["model"]),
                    device=str(header["device"]),
                    dtype=str(header["dtype"]),
                    prompt_ids=_ints(header["prompt_ids"]),
                    stop_ids=_ints(header["stop_ids"]),
                    versions={str(k): str(v) for k, v in header["versions"].items()},
                    **_origin(header),
                ),
                events=tuple(event_from_dict(event) for event in data["events"]),
                text=str(data["text"]),
            )
        except InvalidInput:
            raise
        except (ValueError, *MALFORMED) as error:
            raise InvalidInput(f"not a trace: {type(error).__name__}: {error}") from error


def _header_to_dict(header: TraceHeader) -> dict[str, Any]:
    """Its JSON values without the config; held tokens are there only if any are."""
    values = asdict(header)
    del values["config"]
    if not header.held:
        del values["held"]
    return values


def _origin(header: dict[str, Any]) -> dict[str, Any]:
    """Whose clock, host and count they are, which older traces do not tell."""
    clock, host = header.get("clock", DECODER), header.get("host")
    counted = header.get("counted", True)
    if clock not in CLOCKS:
        raise InvalidInput(f"clock must be one of {CLOCKS}, got {clock!r}")
    if not isinstance(counted, bool):
        raise InvalidInput(f"counted must be true or false, got {counted!r}")
    return {
        "clock": clock,
        "host": None if host is None else str(host),
        "counted": counted,
        "held": tuple(_pair(row) for row in header.get("held", ())),
    }


def _pair(row: Any) -> tuple[int, int]:
    place, token_id = _ints(row)
    return place, token_id


def event_to_dict(event: StepEvent) -> dict[str, Any]:
    """Compact JSON values: commits as rows ``[position, token, confidence, forced]``.

    What few runs have is there only if it is: a row's candidates, the guesses, drafted tokens.
    """
    inspected = {"guesses": [[g.position, g.token_id, g.confidence] for g in event.guesses]}
    return {
        "step": event.step,
        "seconds": event.seconds,
        "window": list(event.window),
        "commits": [_commit_to_row(commit) for commit in event.commits],
        "blocks": [[b.index, b.start, b.end, b.num_masked, b.state] for b in event.blocks],
        "cache_length": event.cache_length,
        "finish_reason": event.finish_reason,
        **(inspected if event.guesses else {}),
        **({"drafted": event.drafted} if event.drafted else {}),
    }


def _commit_to_row(commit: Commit) -> list[Any]:
    row = [commit.position, commit.token_id, commit.confidence, int(commit.forced)]
    return [*row, [list(pair) for pair in commit.candidates]] if commit.candidates else row


def event_from_dict(data: dict[str, Any]) -> StepEvent:
    """Inverse of :func:`event_to_dict`; wrong values raise ``ValueError``."""
    start, end = _ints(data["window"])
    reason = data["finish_reason"]
    if reason is not None and reason not in FINISH_REASONS:
        raise InvalidInput(f"finish_reason must be one of {FINISH_REASONS}, got {reason!r}")
    return StepEvent(
        step=_int(data["step"]),
        seconds=_number(data["seconds"], "seconds", MAX_SECONDS),
        window=(start, end),
        commits=tuple(_commit_from_row(row) for row in data["commits"]),
        blocks=tuple(_block_from_row(row) for row in data["blocks"]),
        cache_length=_int(data["cache_length"]),
        finish_reason=reason,
        guesses=tuple(Guess(*_decided(row)) for row in data.get("guesses", ())),
        drafted=_int(data.get("drafted", 0)),
    )


def _decided(row: list[Any]) -> tuple[int, int, float]:
    return _int(row[0]), _int(row[1]), _number(row[2], "confidence", 1)


def _commit_from_row(row: list[Any]) -> Commit:
    candidates = row[4] if len(row) > 4 else ()
    pairs = tuple((_int(pair[0]), _number(pair[1], "confidence", 1)) for pair in candidates)
    return Commit(*_decided(row), bool(_int(row[3])), pairs)


def _block_from_row(row: list[Any]) -> BlockView:
    index, start, end, num_masked = _ints(row[:4])
    if row[4] not in BLOCK_STATES:
        raise InvalidInput(f"block state must be one of {BLOCK_STATES}, got {row[4]!r}")
    return BlockView(index, start, end, num_masked, row[4])


def _int(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidInput(f"expected an integer, got {shown(value)}")
    return value


def _ints(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise InvalidInput(f"expected a list of integers, got {shown(values)}")
    return tuple(_int(value) for value in values)


def _number(value: Any, name: str, most: float) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Nothing compares with NaN.
    if not number or not 0 <= value <= most:
        raise InvalidInput(f"{name} must be a number in [0, {most:g}], got {shown(value)}")
    return float(value)
