"""A recording as a short text for a web address: lists of numbers and texts, deflated.

What follows from the settings is not sent: windows, blocks, cache lengths and finish reasons are
found again by repeating each decoder's own rules on the commits of every step. The text is the
base64url form, without padding, of a raw deflate stream of JSON, whose lists :mod:`.rows` has. What
a link loses, on purpose:

- times are rounded to at most a fiftieth of the lane's median step; sums do not drift;
- confidences are rounded to hundredths above 0.9 and to twentieths below, but under the commit rule
  of that name never across tau_conf: a token at or below it was forced, one above it was not;
- token ids: a token is numbered from 1 by its first place in the answer; two ids of the same text
  become one, unless only one of them stops the answer. ``stop_ids`` keeps those that occur;
- the prompt's token ids: only their count is sent, and ``prompt_ids`` is that many zeros;
- versions, but torch's;
- what an inspected run tells besides: guesses and candidates.

Knows nothing of models, tokenizers or screens.
"""

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

from d2f.config import D2FConfig, DecodeConfig, DiffusionConfig
from d2f.events import BlockView, Commit, StepEvent, Trace, TraceHeader
from d2f.policy import Held, OneByOne, policy_of
from d2f.strict_json import from_json, to_json

from .armour import QUOTED, deflated, inflated
from .limits import MAX_BLOCK_VIEWS
from .old import LEVELS, indexes_of, modern_header, modern_link
from .recording import KIND, RecordedLane, Recording, read_past, write_past
from .refusals import RecordingError, refusals, require
from .rows import FORMAT, HERE, LaneLink, RaceLink, link_settings, read_settings

# A D2F step visits every block and every undecided position. Real runs stay far below.
MAX_WORK = 2_000_000
BLOCK_WORK = 10
KEPT_VERSIONS = ("torch",)
TICKS = tuple(digit * 10**power for power in range(9) for digit in (1, 2, 5))  # microseconds
# What a step's StepEvent holds beyond its commits: window, blocks, cache length, finish reason, and
# how many tokens were drafted.
Shape = tuple[tuple[int, int], tuple[BlockView, ...], int, str | None, int]


def to_link(recording: Recording) -> str:
    """The recording as a text of letters, digits, ``-`` and ``_``.

    Raises:
        RecordingError: the run is too long for a link, or is not what its settings give (an
            edited or hand-made trace), so that a link could not tell it. A file can.
    """
    with refusals("This run does not fit in a link; save it as a file"):
        lanes = [_write_lane(lane) for lane in recording.lanes]
        past = [write_past(recording.past)] if recording.past else []
        race = [FORMAT, KIND, recording.prompt, recording.verdict, lanes, *past]
        link = deflated(to_json(race, ascii=False))
        rebuilt = from_link(link)
        same = [_skeleton(lane) for lane in rebuilt.lanes] == list(map(_skeleton, recording.lanes))
        require(same, "its steps do not follow from its settings")
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
        data = from_json(inflated(text))
        require(isinstance(data, list) and data[1:2] == [KIND], "it is not a race")
        race = RaceLink.model_validate(modern_link(data))
        lanes = tuple(_read_lane(lane, race.format) for lane in race.lanes)
        return Recording(race.prompt, lanes, race.verdict, read_past(race.past))


class _Replay:
    """A decoder's policy, with bounds on the work that a stranger's commits may cost."""

    def __init__(self, prompt_length: int, config: DecodeConfig, held: Held) -> None:
        self.policy = policy_of(prompt_length, config, held)
        self.work = self.views = 0

    def candidates(self, drafted: int) -> list[int]:
        """Positions the next forward may decide, which checks so many drafted tokens."""
        if drafted:
            policy = self.policy
            room = policy.room if isinstance(policy, OneByOne) else 0
            require(drafted <= room, "the drafts are out of range")
            assert isinstance(policy, OneByOne)
            policy.draft([0] * drafted)  # which tokens they were, no rule asks
        self.plan = self.policy.plan()
        return self.plan.wanted

    def shape(self, positions: Sequence[int], stops: Sequence[int]) -> Shape:
        """The step in which these of them were decided."""
        first = self.plan.wanted[: len(positions)]
        require(not self.plan.drafted or first == list(positions), "a draft was skipped")
        blocks = self.policy.record(positions, stops)
        self.work += BLOCK_WORK * len(blocks) + len(self.plan.wanted)
        require(self.work <= MAX_WORK, "the run has too many blocks and steps for a link")
        self.views += len(blocks)
        require(self.views <= MAX_BLOCK_VIEWS, "the run has too many blocks in flight")
        reason, drafted = self.policy.finish_reason, self.plan.drafted
        return self.plan.window, blocks, self.policy.cached, reason, drafted


def _write_lane(lane: RecordedLane) -> list[Any]:
    header = lane.trace.header
    versions = {name: header.versions[name] for name in KEPT_VERSIONS if name in header.versions}
    answer = None if lane.trace.text == _joined(lane) else lane.trace.text
    place = [header.model, header.device, header.dtype, versions, len(header.prompt_ids)]
    head = [lane.name, header.decoder, link_settings(header.config), *place, answer]
    texts = [lane.text_at(p, i) for p, i in sorted(lane.trace.canvas.items())]
    held = [[place, int(i in header.stop_ids)] for place, i in header.held]
    drafted = [event.drafted for event in lane.trace.events]
    drafts = drafted if any(drafted) else []
    origin = [header.clock, header.host, header.counted, held, _forced(lane), drafts]
    while origin and origin[-1] == HERE[len(origin) - 1]:
        origin.pop()
    return [*head, texts, *_steps(lane), _confidences(lane), *_times(lane), *origin]


def _joined(lane: RecordedLane) -> str:
    header, ids = lane.trace.header, lane.trace.token_ids
    told = enumerate(ids, len(header.prompt_ids))
    return "".join(lane.text_at(p, i) for p, i in told if i not in header.stop_ids)


def _steps(lane: RecordedLane) -> tuple[list[list[int]], list[int]]:
    """Each step's commits by what lies between them; which of them all are stops."""
    trace, gaps, stops = lane.trace, [], []
    stop_ids = trace.header.stop_ids
    schedule = _Replay(len(trace.header.prompt_ids), trace.header.config, _held(trace.header))
    for event in trace.events:
        candidates = schedule.candidates(event.drafted)
        positions = [commit.position for commit in event.commits]
        indexes = [bisect_left(candidates, position) for position in positions]
        gaps.append([index - before - 1 for before, index in pairwise([-1, *indexes])])
        ends = [commit.position for commit in event.commits if commit.token_id in stop_ids]
        stops += [commit.token_id in stop_ids for commit in event.commits]
        schedule.shape(positions, ends)
    return gaps, [number for number, stop in enumerate(stops) if stop]


def _held(header: TraceHeader) -> Held:
    stops = {position for position, i in header.given.items() if i in header.stop_ids}
    return Held(frozenset(header.given), frozenset(stops))


def _confidences(lane: RecordedLane) -> list[int]:
    tau = _tau(lane.trace.header.config)
    return [_level(commit, tau) for event in lane.trace.events for commit in event.commits]


def _tau(config: DecodeConfig) -> float | None:
    """At or below this confidence a token was forced; None: confidence does not tell."""
    if not isinstance(config, DiffusionConfig):
        return -1.0
    # Where only what must be decided is, it is forced in D2F, and all there is to do elsewhere.
    told = {"confidence": config.tau_conf, "best": 1.0 if isinstance(config, D2FConfig) else -1.0}
    return told.get(config.rule)


def _level(commit: Commit, tau: float | None) -> int:
    """The nearest of LEVELS, on the side of ``tau`` where the commit stands if there is one."""
    if tau is None:
        return _nearest(commit, LEVELS)
    above = commit.confidence - tau
    # Decoders compare in float32, where a confidence a little above tau may equal it.
    right = above < 1e-6 if commit.forced else above > 0
    require(right, "its steps do not follow from its settings")
    return _nearest(commit, [level for level in LEVELS if (level / 100 <= tau) == commit.forced])


def _nearest(commit: Commit, levels: Sequence[int]) -> int:
    return min(levels, key=lambda level: abs(level / 100 - commit.confidence))


def _forced(lane: RecordedLane) -> list[int]:
    """Numbers of the commits that were forced, where their confidences do not tell."""
    if _tau(lane.trace.header.config) is not None:
        return []
    commits = [commit for event in lane.trace.events for commit in event.commits]
    return [number for number, commit in enumerate(commits) if commit.forced]


def _times(lane: RecordedLane) -> tuple[int, list[int]]:
    """The tick in microseconds; each step in ticks."""
    seconds = [event.seconds for event in lane.trace.events]
    usual = statistics.median(seconds) if seconds else 0.0
    tick = max((tick for tick in TICKS if tick <= usual * 1e6 / 50), default=TICKS[0])
    ends = [0, *(round(total * 1e6 / tick) for total in accumulate(seconds))]
    return tick, [end - start for start, end in pairwise(ends)]


def _read_lane(lane: LaneLink, format: int) -> RecordedLane:
    config = read_settings(lane.decoder, lane.settings)
    length = lane.prompt
    within = all(place < config.max_new_tokens for place, _ in lane.held)
    require(within, "a held token is out of range")
    held = {length + place: bool(stop) for place, stop in lane.held}
    given = Held(frozenset(held), frozenset(p for p, stop in held.items() if stop))
    steps = _replay(_Replay(length, config, given), lane)
    stops = {p: p in stopped for positions, stopped, _ in steps for p in positions} | held
    ids, stop_ids, texts = _tokens(stops, lane.texts)
    place = (lane.model, lane.device, lane.dtype, (0,) * length, stop_ids, lane.versions)
    origin = (lane.clock, lane.host, lane.counted, tuple((p - length, ids[p]) for p in held))
    header = TraceHeader(config, *place, *origin)
    header = modern_header(header) if format == 1 else header
    trace = Trace(header, _events(steps, ids, lane))
    read = RecordedLane(lane.name, trace, texts)
    answer = _joined(read) if lane.answer is None else lane.answer
    return replace(read, trace=trace.with_text(answer))


# A step's committed positions, those of them that hold a stop token, and its shape.
Placed = tuple[list[int], list[int], Shape]


def _replay(schedule: _Replay, lane: LaneLink) -> list[Placed]:
    """Runs the decoder's rules over the commits of every step."""
    steps: list[Placed] = []
    done, ends = 0, set(lane.stops)
    drafted = lane.drafted or [0] * len(lane.steps)
    told = len(drafted) == len(lane.steps)
    require(told, "a lane must have a number of drafts for every step")
    for number, gaps in enumerate(lane.steps):
        over = steps and steps[-1][2][3] is not None
        require(not over, f"the run goes on after its end in step {number}")
        indexes = indexes_of(gaps)
        candidates = schedule.candidates(drafted[number])
        valid = indexes and indexes[-1] < len(candidates)
        require(bool(valid), f"the commits are out of range in step {number}")
        positions = [candidates[index] for index in indexes]
        stopped = [p for nth, p in enumerate(positions, done) if nth in ends]
        steps.append((positions, stopped, schedule.shape(positions, stopped)))
        done += len(positions)
    require(max(ends, default=-1) < done, "a column is too long")
    return steps


def _tokens(
    stops: dict[int, bool], told: list[Any]
) -> tuple[dict[int, int], tuple[int, ...], dict[int, str]]:
    """Token ids by position, those that stop the answer, and the text of each."""
    require(len(told) == len(stops), "a lane must have a text for every token")
    require(all(isinstance(text, str) for text in told), "the text of a token must be text")
    keys = {p: (text, stops[p]) for p, text in zip(sorted(stops), told, strict=True)}
    numbers: dict[tuple[str, bool], int] = {}
    ids = {p: numbers.setdefault(key, len(numbers) + 1) for p, key in keys.items()}
    stop_ids = tuple(number for (_, stop), number in numbers.items() if stop)
    return ids, stop_ids, {number: text for (text, _), number in numbers.items()}


def _events(steps: Sequence[Placed], ids: dict[int, int], lane: LaneLink) -> tuple[StepEvent, ...]:
    tau = _tau(read_settings(lane.decoder, lane.settings))
    require(len(lane.times) == len(steps), "a lane must have a time for every step")
    commits = sum(len(positions) for positions, _, _ in steps)
    known = len(lane.confidences) == commits
    require(known, "a lane must have a confidence for every token")
    forced = set(lane.forced)
    certain = iter(
        (percent / 100, number in forced if tau is None else percent / 100 <= tau)
        for number, percent in enumerate(lane.confidences)
    )
    events = []
    for number, ((positions, _, shape), time) in enumerate(zip(steps, lane.times, strict=True)):
        decided = tuple(Commit(p, ids[p], *next(certain)) for p in positions)
        window, blocks, cached, reason, drafted = shape
        seconds = time * lane.tick / 1e6
        event = StepEvent(number, seconds, window, decided, blocks, cached, reason, drafted=drafted)
        events.append(event)
    return tuple(events)


def _skeleton(lane: RecordedLane) -> list[Any]:
    """What a link must tell exactly."""
    stops = lane.trace.header.stop_ids
    said = {p: (lane.text_at(p, i), i in stops) for p, i in lane.trace.canvas.items()}
    steps = [
        (
            [(c.position, c.forced) for c in e.commits],
            (e.window, e.blocks, e.cache_length, e.finish_reason, e.drafted),
        )
        for e in lane.trace.events
    ]
    return [lane.trace.text, said, sorted(lane.trace.header.given), steps]
