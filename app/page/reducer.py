"""The reducer behind the page: events of a run to messages that a board can draw.

``tokens``, ``forwards`` and ``time`` of a step are the metrics of :class:`d2f.events.Trace` for the
run up to that step, so a board that shows the latest step shows true figures at any moment. Knows
nothing of clocks, threads, gradio or torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from d2f.config import D2FConfig, DecodeConfig
from d2f.events import CLIENT, DECODER, BlockView, Commit, StepEvent, Trace, TraceHeader
from d2f.policy.pipelined import grid_start
from d2f.shape import not_for_racing

from .messages import (
    DRAFTED,
    FORCED,
    SETTINGS,
    STOP,
    BlockRow,
    BlockState,
    CommitRow,
    LaneEnd,
    LaneStart,
    Metrics,
    Step,
)

AR_ROW = 16


class LaneBoard:
    """Reduces one lane's events, in order, to steps. ``chat`` is what it was told."""

    def __init__(
        self,
        index: int,
        name: str,
        header: TraceHeader,
        texts: Callable[[StepEvent], Mapping[int, str]],
        chat: Sequence[str] = (),
    ) -> None:
        self.index = index
        self.name = name
        self.header = header
        self.chat = list(chat)
        self._texts = texts
        self._offset = len(header.prompt_ids)
        self._canvas: dict[int, int] = {}
        self._tokens = 0
        self._stopped = False
        self._times: list[float] = []
        self._drafted = self._rejected = 0

    @property
    def start(self) -> LaneStart:
        """What the board must know before the first event."""
        config = self.header.config
        start: LaneStart = {
            "name": self.name,
            "model": self.header.model,
            "decoder": self.header.decoder,
            "capacity": config.max_new_tokens,
            "block": getattr(config, "block_size", None) or AR_ROW,
            "confidences": self.header.clock == DECODER,
            "settings": _shown(config),
            "chat": self.chat,
        }
        if isinstance(config, D2FConfig):
            shared = (self._offset - grid_start(self._offset, config)) % config.block_size
            start |= {"shared": shared} if shared else {}
        return start

    def step(self, event: StepEvent) -> Step:
        """One event as a message."""
        self._times.append(event.seconds)
        for commit in event.commits:
            self._canvas[commit.position - self._offset] = commit.token_id
        self._count()
        texts = dict(self._texts(event))
        commits = [self._commit_row(each, texts.pop(each.position)) for each in event.commits]
        if event.drafted:
            right = [(*row[:3], row[3] | DRAFTED) for row in commits[:-1]]
            commits = [*right, *commits[-1:]]
        self._drafted += event.drafted
        self._rejected += event.rejected
        step: Step = {
            "kind": "step",
            "lane": self.index,
            "time": math.fsum(self._times),
            "tokens": self._tokens,
            "forwards": len(self._times),
            "commits": commits,
            "blocks": [self._block_row(block) for block in event.blocks],
            "finish": event.finish_reason,
        }
        if self._drafted:
            step["rejected"] = self._rejected
        if texts:  # tokens before, in which a character is whole now
            step["texts"] = [(position - self._offset, text) for position, text in texts.items()]
        return step

    def _commit_row(self, commit: Commit, text: str) -> CommitRow:
        flags = FORCED * commit.forced + STOP * (commit.token_id in self.header.stop_ids)
        return commit.position - self._offset, text, round(commit.confidence, 3), flags

    def _block_row(self, block: BlockView) -> BlockRow:
        state = cast(BlockState, block.state)
        return block.start - self._offset, block.end - self._offset, state

    def _count(self) -> None:
        """Counts on to the first gap, or up to and including the first stop token."""
        while not self._stopped and self._tokens in self._canvas:
            self._stopped = self._canvas[self._tokens] in self.header.stop_ids
            self._tokens += 1


def _shown(config: DecodeConfig) -> dict[str, float | str | None]:
    """The settings of a lane's decoder, those of the page."""
    return {name: getattr(config, name) for name in SETTINGS if hasattr(config, name)}


def final(trace: Trace) -> LaneEnd:
    """A finished lane: the Trace's own metrics and its readable answer."""
    return {"metrics": cast(Metrics, trace.metrics), "text": trace.text}


def speeds(names: Sequence[str], traces: Sequence[Trace]) -> str:
    """The speed ratio of two finished lanes in one sentence, with both absolutes."""
    (fast, fast_tps), (slow, slow_tps) = sorted(
        zip(names, (trace.tokens_per_second for trace in traces), strict=True),
        key=lambda pair: -pair[1],
    )
    if not slow_tps:
        return f"{slow} has no measured speed: it wrote no token, or took no time."
    cut = [name for name, trace in zip(names, traces, strict=True) if not trace.finish_reason]
    if cut:
        return f"{cut[0]} did not finish, so speeds are not compared."
    ratio = fast_tps / slow_tps
    return (
        f"{fast} was {ratio:.2f} times as fast: "
        f"{fast_tps:.0f} against {slow_tps:.0f} tokens per second."
    )


def place(header: TraceHeader) -> str:
    """Where a lane ran, and in which precision."""
    where = header.device
    if header.clock == CLIENT:
        where = f"client-timed, {header.host}{', tokens by its own count' * header.counted}"
    elif header.host:
        where = f"{header.device}, at {header.host}"
    return f"{where}, {header.dtype}"


def machine(*headers: TraceHeader) -> str:
    """What the figures were measured on, and how; told once where lanes do not differ."""
    warning = not_for_racing(header.versions.get("weights") for header in headers)
    told = [*(_measured(header) for header in headers), *map(_chosen, headers)]
    told += [warning] if warning else []
    return " ".join(filter(None, dict.fromkeys(told)))


def _chosen(header: TraceHeader) -> str:
    """With how many threads a lane computed, and why so many; nothing where none was timed."""
    threads, timed = (header.versions.get(name) for name in ("threads", "timed"))
    if threads is None or timed is None or header.host:
        return ""
    many = f"{threads} thread{'s' * (threads != '1')}"
    return f"{header.model} computed with {many}, the fastest here: {timed}."


def _measured(header: TraceHeader) -> str:
    if header.clock == CLIENT:
        counted = (
            "tokens are those it counted, each one a forward."
            if header.counted
            else "forwards are the pieces it streamed."
        )
        return (
            f"{header.model}: seconds are those between arrivals, the network included; {counted}"
        )
    where = "on another machine" if header.host else "on this machine"
    return f"Measured {where} ({place(header)}); each lane's clock ran only while it computed."
