"""A recording as a short text for a web address: columns of numbers and texts, deflated.

What follows from the settings is not sent: windows, blocks, cache lengths and finish reasons are
found again by repeating each decoder's own rules on the commits of every step. The text is the
base64url form, without padding, of a raw deflate stream of JSON. What was said before a follow-up
comes last; without it a link is as it always was. What a link loses, on purpose:

- times are rounded to at most a fiftieth of the lane's median step; sums do not drift;
- confidences are rounded to hundredths above 0.9 and to twentieths below, but under the commit rule
  of that name never across tau_conf: a token at or below it was forced, one above it was not. Under
  other rules each token's confidence comes with whether it was forced;
- token ids: a token is numbered from 1 by its first place in the answer; two ids of the same text
  become one, unless only one of them stops the answer. ``stop_ids`` keeps those that occur;
- the prompt's token ids: only their count is sent, and ``prompt_ids`` is that many zeros;
- versions, but torch's.

Knows nothing of models, tokenizers or screens.
"""

import base64
import statistics
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate
from typing import Any

from d2f.config import (
    CONFIGS,
    MAX_TOKENS,
    D2FConfig,
    DecodeConfig,
    DiffusionConfig,
    config_from_dict,
    decoder_name,
)
from d2f.events import DECODER, BlockView, Commit, StepEvent, Trace, TraceHeader
from d2f.policy import policy_of
from d2f.strict_json import to_json

from .armour import QUOTED, pieces
from .digits import gaps_of, indexes_of, pack, unpack
from .recording import (
    FORMAT,
    KIND,
    MAX_BLOCK_VIEWS,
    MAX_LANES,
    MAX_PROMPT_TOKENS,
    RecordedLane,
    Recording,
    RecordingError,
    check_format,
    check_settings,
    parse_json,
    read_header,
    read_past,
    refusals,
    require,
    write_past,
)

MAX_LINK = 65_536  # bytes, deflated
MAX_INFLATED = 1_048_576  # bytes
# A D2F step visits every block and every undecided position. Real runs stay far below.
MAX_WORK = 2_000_000
BLOCK_WORK = 10
RULES = ("rule", "max_entropy", "entropy_bound", "max_kl", "stable_steps")
SHARED = ("max_new_tokens", "temperature", "top_p", "top_k", "seed")
# The order of settings in a link, fixed here so that old links survive new settings.
SETTINGS = {
    "d2f": (
        *SHARED,
        "block_size",
        "tau_add",
        "tau_act",
        "tau_conf",
        "max_active_blocks",
        "early_stop",
        "grid",
        *RULES,
    ),
    "ar": SHARED,
    "vanilla": (*SHARED, "tokens_per_step", "block_size", "tau_conf", *RULES),
}
# Settings that came later, which stand last: those that a link ends without have their defaults.
LATER = {"grid", "tau_conf", *RULES}
KEPT_VERSIONS = ("torch",)
HERE = [DECODER, None, True]  # clock, host and count of most lanes, which a link leaves out
TICKS = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))  # microseconds
LEVELS = tuple(percent / 100 for percent in (*range(100, 90, -1), *range(90, -1, -5)))
# A control character, so no token's text contains it, and the only one JSON need not escape.
SEPARATOR = "\x7f"

# What a step's StepEvent holds beyond its commits: window, blocks, cache length, finish reason.
Shape = tuple[tuple[int, int], tuple[BlockView, ...], int, str | None]


def to_link(recording: Recording) -> str:
    """The recording as a text of letters, digits, ``-`` and ``_``.

    Raises:
        RecordingError: the run is too long for a link, or is not what its settings give (an
            edited or hand-made trace), so that a link could not tell it. A file can.
    """
    with refusals("No link can tell this run; save it as a file"):
        lanes = recording.lanes
        head = [FORMAT, KIND, recording.prompt, recording.verdict, [_head(lane) for lane in lanes]]
        columns: list[list[Any]] = [[write(lane) for lane in lanes] for write in COLUMNS]
        past = [f",{_dump(write_past(recording.past))}"] if recording.past else []
        # One deflate block each, so that every kind of column has a Huffman code of its own.
        parts = [_dump(head)[:-1], *(f",{_dump(column)}" for column in columns), *past, "]"]
        link = _deflate([part.encode() for part in parts])
        rebuilt = from_link(link)
        same = [_skeleton(lane) for lane in rebuilt.lanes] == [_skeleton(lane) for lane in lanes]
        require(same, "it is not what its settings give")
        return link


def from_link(text: str) -> Recording:
    """The recording of a link; safe on any text, of which nothing is believed.

    Raises:
        RecordingError: the text is not a link of a recording, or breaks a limit.
    """
    try:
        return _read(text)
    except RecordingError:
        if isinstance(text, str) and text.startswith(QUOTED):
            return _read(text.removeprefix(QUOTED))
        raise


def _read(text: str) -> Recording:
    with refusals("This link cannot be opened"):
        data = parse_json(_inflate(text).decode())
        require(isinstance(data, list) and data[1:2] == [KIND], "it is not a race")
        check_format(data[0])
        format, _, prompt, verdict, *columns = data
        past = read_past(columns.pop()) if len(columns) == 2 + len(COLUMNS) else ()
        complete = len(columns) == 1 + len(COLUMNS) and all(isinstance(c, list) for c in columns)
        require(complete, "its columns are not those of a race")
        require(1 <= len(columns[0]) <= MAX_LANES, "a race has one or two lanes")
        require(len({len(c) for c in columns}) == 1, "its columns are not of one length")
        lanes = tuple(_read_lane(format, *lane) for lane in zip(*columns, strict=True))
        return Recording(prompt, lanes, verdict, past)


def _dump(value: Any) -> str:
    return to_json(value, ascii=False)


def _deflate(parts: Sequence[bytes]) -> str:
    size = sum(len(part) for part in parts)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1)
    data = b"".join(deflate.compress(part) + deflate.flush(zlib.Z_BLOCK) for part in parts)
    data += deflate.flush()
    fits = size <= MAX_INFLATED and len(data) <= MAX_LINK
    require(fits, "it is too long")
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _inflate(text: str) -> bytes:
    require(isinstance(text, str), "it is not text")
    # On its way every character may have become three, or nine.
    require(len(text) <= MAX_LINK * 12, f"it is longer than {MAX_LINK:,} bytes")
    found = pieces(text)
    ends = list(accumulate(map(len, found)))
    letters = "".join(found)
    whole = letters[: len(letters) - (len(letters) % 4 == 1)]
    data = base64.urlsafe_b64decode(whole + "=" * (-len(whole) % 4))
    short = len(data) <= MAX_LINK or len(found) > 1
    require(short, f"it is longer than {MAX_LINK:,} bytes")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = inflate.decompress(data, MAX_INFLATED + 1)
    except zlib.error as error:
        raise RecordingError("it is damaged") from error
    require(len(content) <= MAX_INFLATED, f"it unfolds to more than {MAX_INFLATED:,} bytes")
    require(inflate.eof, "its end is missing")
    # What stands behind the end must be set apart from it: words of the text around the link.
    end = -((len(inflate.unused_data) - len(data)) * 8 // 6)
    behind = letters[end : next(each for each in ends if each >= end)]
    require(not behind.strip("-_"), "something follows its end")
    return content


class _Replay:
    """A decoder's policy, with bounds on the work that a stranger's commits may cost."""

    def __init__(self, prompt_length: int, config: DecodeConfig) -> None:
        self.policy = policy_of(prompt_length, config)
        self.work = self.views = 0

    def candidates(self) -> list[int]:
        """Positions the next forward may decide."""
        self.plan = self.policy.plan()
        return self.plan.wanted

    def shape(self, positions: Sequence[int], stops: Sequence[int]) -> Shape:
        """The step in which these of them were decided."""
        blocks = self.policy.record(positions, stops)
        self.work += BLOCK_WORK * len(blocks) + len(self.plan.wanted)
        require(self.work <= MAX_WORK, "the run has too many blocks and steps for a link")
        self.views += len(blocks)
        require(self.views <= MAX_BLOCK_VIEWS, "the run has too many blocks in flight")
        return self.plan.window, blocks, self.policy.cached, self.policy.finish_reason


def _head(lane: RecordedLane) -> list[Any]:
    """Name and header; the answer only where it is not its tokens' texts, the stop left out."""
    header = lane.trace.header
    settings = _settings(header.config)
    versions = {name: header.versions[name] for name in KEPT_VERSIONS if name in header.versions}
    answer = None if lane.trace.text == _joined(lane) else lane.trace.text
    place = [header.model, header.device, header.dtype, versions, len(header.prompt_ids)]
    origin = [header.clock, header.host, header.counted]
    head = [lane.name, header.decoder, settings, *place, answer]
    return head if origin == HERE else head + origin


def _order(decoder: str) -> tuple[str, ...]:
    """The order of a decoder's settings in a link."""
    return SETTINGS.get(decoder) or tuple(field.name for field in fields(CONFIGS[decoder]))


def _settings(config: DecodeConfig) -> list[Any]:
    """A config's values in the order of a link, up to the last one that a reader would miss."""
    defaults = {field.name: field.default for field in fields(config)}
    names = list(_order(decoder_name(config)))
    while names[-1] in LATER and getattr(config, names[-1]) == defaults[names[-1]]:
        names.pop()
    return [getattr(config, name) for name in names]


def _joined(lane: RecordedLane) -> str:
    header, ids = lane.trace.header, lane.trace.token_ids
    told = enumerate(ids, len(header.prompt_ids))
    return "".join(lane.text_at(p, i) for p, i in told if i not in header.stop_ids)


def _texts(lane: RecordedLane) -> str:
    return SEPARATOR.join(lane.text_at(p, i) for p, i in sorted(lane.trace.canvas.items()))


def _steps(lane: RecordedLane) -> list[str]:
    """How many commits each step has; which candidates they are; which of them all are stops."""
    header, gaps, counts, stops = lane.trace.header, [], [], []
    schedule = _Replay(len(header.prompt_ids), header.config)
    for event in lane.trace.events:
        candidates = schedule.candidates()
        positions = [commit.position for commit in event.commits]
        gaps += gaps_of([bisect_left(candidates, position) for position in positions])
        counts.append(len(positions))
        ends = [commit.token_id in header.stop_ids for commit in event.commits]
        stops += ends
        schedule.shape(positions, [p for p, end in zip(positions, ends, strict=True) if end])
    return [pack(counts), pack(gaps), pack(gaps_of([i for i, end in enumerate(stops) if end]))]


def _levels(lane: RecordedLane) -> str:
    tau = _tau(lane.trace.header.config)
    commits = [commit for event in lane.trace.events for commit in event.commits]
    return pack([_level(commit, tau) for commit in commits])


def _tau(config: DecodeConfig) -> float | None:
    """At or below this confidence a token was forced; None: confidence does not tell."""
    if not isinstance(config, DiffusionConfig):
        return -1.0
    # Where only what must be decided is, it is forced in D2F, and all there is to do elsewhere.
    told = {"confidence": config.tau_conf, "best": 1.0 if isinstance(config, D2FConfig) else -1.0}
    return told.get(config.rule)


def _level(commit: Commit, tau: float | None) -> int:
    """The nearest of LEVELS, by its number, on the side of ``tau`` where the commit stands.

    Without a ``tau`` twice that number, and one more if the token was forced.
    """
    if tau is None:
        return 2 * _nearest(commit, range(len(LEVELS))) + commit.forced
    above = commit.confidence - tau
    # Decoders compare in float32, where a confidence a little above tau may equal it.
    right = above < 1e-6 if commit.forced else above > 0
    require(right, "it is not what its settings give")
    side = [number for number, level in enumerate(LEVELS) if (level <= tau) == commit.forced]
    return _nearest(commit, side)


def _nearest(commit: Commit, levels: Sequence[int]) -> int:
    return min(levels, key=lambda number: abs(LEVELS[number] - commit.confidence))


def _times(lane: RecordedLane) -> list[Any]:
    """The tick in microseconds; the median step in ticks, then how far each step is from it."""
    seconds = [event.seconds for event in lane.trace.events]
    usual = statistics.median(seconds) if seconds else 0.0
    tick = max((tick for tick in TICKS if tick <= usual * 1e6 / 50), default=TICKS[0])
    ends = [round(total * 1e6 / tick) for total in accumulate(seconds)]
    steps = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    middle = statistics.median_low(steps) if steps else 0
    apart = [step - middle for step in steps]
    return [tick, pack([middle, *(2 * far if far >= 0 else -2 * far - 1 for far in apart)])]


COLUMNS = (_texts, _steps, _levels, _times)


def _read_lane(
    format: int, head: list[Any], texts: str, steps: list[str], levels: str, times: list[Any]
) -> RecordedLane:
    name, decoder, settings, model, device, dtype, versions, prompt_length, answer, *origin = head
    require(len(origin) in (0, len(HERE)), "its head is not that of a lane")
    require(decoder in CONFIGS, "its decoder is unknown")
    order = _order(decoder)
    known = len(settings) <= len(order) and LATER.issuperset(order[len(settings) :])
    require(known, "its settings are not those of its decoder")
    config = config_from_dict(decoder, dict(zip(order, settings, strict=False)))
    check_settings(config)
    known = type(prompt_length) is int and 1 <= prompt_length <= MAX_PROMPT_TOKENS
    require(known, "the prompt has too many tokens or none")
    placed = _replay(_Replay(prompt_length, config), *steps)
    ids, stop_ids, by_id = _tokens(placed, texts)
    place = (model, device, dtype, (0,) * prompt_length, stop_ids, versions)
    header = read_header(TraceHeader(config, *place, *origin), format)
    events = _events(placed, ids, unpack(levels, MAX_TOKENS), _read_times(*times), _tau(config))
    lane = RecordedLane(name, Trace(header, events), by_id)
    text = _joined(lane) if answer is None else answer
    return RecordedLane(name, lane.trace.with_text(text), by_id)


# A step's committed positions, those of them that hold a stop token, and its shape.
Placed = tuple[list[int], list[int], Shape]


def _replay(schedule: _Replay, counts: str, gaps: str, stops: str) -> list[Placed]:
    """Runs the decoder's rules over the commits of every step."""
    rows, ends = unpack(gaps, MAX_TOKENS), set(indexes_of(unpack(stops, MAX_TOKENS)))
    steps: list[Placed] = []
    done = 0
    for number, count in enumerate(unpack(counts, MAX_TOKENS)):
        over = steps and steps[-1][2][3] is not None
        require(not over, f"the run goes on after its end in step {number}")
        indexes = indexes_of(rows[done : done + count])
        candidates = schedule.candidates()
        valid = len(indexes) == count >= 1 and indexes[-1] < len(candidates)
        require(valid, f"the commits are out of range in step {number}")
        positions = [candidates[index] for index in indexes]
        stopped = [p for nth, p in enumerate(positions, done) if nth in ends]
        steps.append((positions, stopped, schedule.shape(positions, stopped)))
        done += count
    require(done == len(rows) and max(ends, default=-1) < done, "a column is too long")
    return steps


def _tokens(
    steps: Sequence[Placed], texts: str
) -> tuple[dict[int, int], tuple[int, ...], dict[int, str]]:
    """Token ids by position, those that stop the answer, and the text of each."""
    positions = sorted(p for placed, _, _ in steps for p in placed)
    stops = {p for _, stopped, _ in steps for p in stopped}
    require(isinstance(texts, str), "a column must be text")
    # Counted first: a text of separators alone would split into a million.
    exact = texts.count(SEPARATOR) == max(len(positions) - 1, 0) and (positions or not texts)
    require(bool(exact), "a lane must have a text for every token")
    told = zip(positions, texts.split(SEPARATOR), strict=False)
    keys = {position: (text, position in stops) for position, text in told}
    numbers: dict[tuple[str, bool], int] = {}
    ids = {p: numbers.setdefault(key, len(numbers) + 1) for p, key in keys.items()}
    stop_ids = tuple(number for (_, stop), number in numbers.items() if stop)
    return ids, stop_ids, {number: text for (text, _), number in numbers.items()}


def _events(
    steps: Sequence[Placed],
    ids: dict[int, int],
    levels: Sequence[int],
    seconds: Sequence[float],
    tau: float | None,
) -> tuple[StepEvent, ...]:
    require(len(seconds) == len(steps), "a lane must have a time for every step")
    require(len(levels) == len(ids), "a lane must have a confidence for every token")
    kinds = 1 if tau is not None else 2
    require(max(levels, default=0) < kinds * len(LEVELS), "a confidence is out of range")
    certain = iter((LEVELS[level // kinds], tau is None and level % 2 == 1) for level in levels)
    events = []
    for number, ((positions, _, shape), time) in enumerate(zip(steps, seconds, strict=True)):
        sure = [next(certain) for _ in positions]
        commits = tuple(
            Commit(p, ids[p], c, flagged if tau is None else c <= tau)
            for p, (c, flagged) in zip(positions, sure, strict=True)
        )
        window, blocks, cached, reason = shape
        events.append(StepEvent(number, time, window, commits, blocks, cached, reason))
    return tuple(events)


def _read_times(tick: int, packed: str) -> list[float]:
    require(type(tick) is int and tick in TICKS, "a unit of time is none of those in use")
    middle, *apart = unpack(packed, MAX_TOKENS + 1)
    steps = [middle + (far // 2 if far % 2 == 0 else -(far + 1) // 2) for far in apart]
    return [step * tick / 1e6 for step in steps]


def _skeleton(lane: RecordedLane) -> list[Any]:
    """What a link must tell exactly."""
    stops = lane.trace.header.stop_ids
    steps = [
        (
            [
                (c.position, lane.text_at(c.position, c.token_id), c.token_id in stops, c.forced)
                for c in e.commits
            ],
            (e.window, e.blocks, e.cache_length, e.finish_reason),
        )
        for e in lane.trace.events
    ]
    return [lane.trace.text, steps]
