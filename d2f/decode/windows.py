"""A run's forwards over its cache: token ids of a window in, logits of wanted positions out.

Four kinds that the loop cannot tell apart: exact windows, as long as they are; windows padded to
fixed shapes for a model whose steps are made ahead (:mod:`d2f.nn.compiled`); whole canvases, of
which nothing is ever final, without a cache; and windows over a cache that holds more than is
final. Knows no decoding policy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from d2f.config import DecodeConfig, decoder_name
from d2f.model import Model
from d2f.nn.attention import any_shape, send
from d2f.nn.cache import FixedRows, KVCache
from d2f.nn.compiled import Workspace
from d2f.policy import Plan, kind_of


class Windows:
    """Each window starts where the cache's final rows end.

    Models that predict position i from the state at i - 1 need, for the first position of a window,
    that of the last final row before it. It is kept when rows become final, which is exact: a final
    row's state cannot change.
    """

    def __init__(self, model: Model, cache: KVCache | None) -> None:
        self.net, self.cache = model.net, cache
        self.device = model.device
        # Autoregressive models predict the next token, whatever their config says of a shift.
        self.shift = int(model.config.causal or model.config.logit_shift)
        self.last_final: Tensor | None = None

    @property
    def start(self) -> int:
        """Where the next window starts."""
        return 0 if self.cache is None else self.cache.length

    def begin(self, start: int) -> None:
        """Declare all rows before the next window final, and none from there on."""
        if self.cache is not None:
            self.cache.length = start

    def logits(self, ids: Sequence[int], plan: Plan) -> Tensor:
        """(N, V) logits of the positions a plan wants; its final rows are final from here on."""
        rows = [position - self.start - self.shift for position in plan.wanted]
        kept = plan.final - 1 if self.shift else -1
        needed = sorted({*rows, kept} - {-1})
        states = self.states(ids, plan.ends, needed)
        before = self.last_final
        if kept >= 0:
            place = needed.index(kept)
            self.last_final = states[place : place + 1]
        if rows[0] < 0:
            assert before is not None
            states, needed = torch.cat((before, states)), [-1, *needed]
        if rows != needed:
            states = states[self.index([needed.index(row) for row in rows])]
        if self.cache is not None:
            self.cache.advance(plan.final)
        return self.net.logits(states)

    def states(
        self, ids: Sequence[int], ends: Sequence[int] | None, needed: Sequence[int]
    ) -> Tensor:
        """(N, hidden_size) states of the rows of a window that are needed."""
        visible = None if ends is None else torch.tensor(ends)
        window = send(torch.tensor([ids]), self.device)
        wanted = self.index(needed) if len(needed) < len(ids) else None
        states: Tensor = self.net(window, visible, self.cache, self.start, wanted)
        return states[0]

    def index(self, rows: Sequence[int]) -> Tensor:
        """Row numbers on the device."""
        return send(torch.tensor(rows, dtype=torch.long), self.device)


class StaleWindows(Windows):
    """Windows that may also see rows behind their end, as an earlier forward left them."""

    def states(
        self, ids: Sequence[int], ends: Sequence[int] | None, needed: Sequence[int]
    ) -> Tensor:
        start, end = self.start, self.start + len(ids)
        if ends is None or max(ends) <= end:
            return super().states(ids, ends, needed)
        assert self.cache is not None
        places = torch.arange(start, end, device=self.device)
        rows = FixedRows(self.cache, places, max(ends))
        window, visible = (send(torch.tensor(each), self.device) for each in ([ids], ends))
        with any_shape(self.device):
            states: Tensor = self.net.fixed(window, visible, rows, len(ids))
        return states[0, self.index(needed)]


class FixedWindows(Windows):
    """The same at fixed shapes; what exceeds them, as most prompts, is forwarded as it is."""

    def __init__(self, model: Model, space: Workspace, size: int, most: int) -> None:
        super().__init__(model, space.cache)
        self.space, self.size, self.most = space, size, most

    def logits(self, ids: Sequence[int], plan: Plan) -> Tensor:
        start, before = self.start, self.space.states[0, :1]
        # Held tokens can make a later window longer than any other.
        if start == 0 or len(ids) > self.most:
            self.last_final = before
            logits = super().logits(ids, plan)
            before.copy_(self.last_final)
            return logits
        visible = torch.tensor(plan.ends or [start + len(ids)] * len(ids))
        self.space.forward(ids, start, visible, self.size)
        offset = start + self.shift
        logits = self.space.logits([p - offset for p in plan.wanted])
        if plan.final:
            before.copy_(self.space.states[0, plan.final : plan.final + 1])
        self.space.cache.advance(plan.final)
        return logits


@contextmanager
def open_windows(model: Model, length: int, config: DecodeConfig) -> Iterator[Windows]:
    """The windows of one run; ``length`` is where the last one ends."""
    kind = kind_of(decoder_name(config))
    units = kind.units
    if kind.stale:
        yield StaleWindows(model, model.net.new_cache(length))
    elif units is None:
        yield Windows(model, None)
    elif model.fixed is None:
        yield Windows(model, model.net.new_cache(length))
    else:
        size, blocks = units(config)
        with model.fixed.workspace(length, size, blocks) as space:
            yield FixedWindows(model, space, size, size * blocks)
