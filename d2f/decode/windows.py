"""A run's forwards over its cache: token ids of a window in, logits of wanted positions out.

Three kinds that the loop cannot tell apart: exact windows, as long as they are; windows padded to
fixed shapes for a model whose steps are made ahead (:mod:`d2f.nn.compiled`); and whole canvases, of
which nothing is ever final, without a cache. Knows no decoding policy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from d2f.config import DecodeConfig, decoder_name
from d2f.decode.common import Predictor
from d2f.model import Model
from d2f.nn.attention import send
from d2f.nn.cache import KVCache
from d2f.nn.compiled import Workspace
from d2f.policy import kind_of


class Windows:
    """Each window starts where the cache's final rows end; :meth:`advance` moves that on."""

    def __init__(self, model: Model, cache: KVCache | None) -> None:
        self.net, self.cache = model.net, cache
        self.device = model.device
        # Autoregressive models predict the next token, whatever their config says of a shift.
        self.predictor = Predictor(model.net, model.config.causal or model.config.logit_shift)

    @property
    def start(self) -> int:
        """Where the next window starts."""
        return 0 if self.cache is None else self.cache.length

    def logits(
        self, ids: Sequence[int], ends: Sequence[int] | None, positions: Sequence[int]
    ) -> Tensor:
        """(N, V) logits of ascending absolute ``positions``.

        Args:
            ends: visible end of each of the window's rows; None: every row sees every key.
        """
        start = self.start
        visible = None if ends is None else torch.tensor(ends)
        self.hidden = self.net(send(torch.tensor([ids]), self.device), visible, self.cache, start)
        return self.predictor.logits(self.hidden, start, positions)

    def advance(self, rows: int) -> None:
        """Declare the first ``rows`` rows of the window final."""
        if self.cache is not None:
            self.predictor.keep(self.hidden, rows)
            self.cache.advance(rows)


class FixedWindows(Windows):
    """The same at fixed shapes; what exceeds them, as most prompts, is forwarded as it is."""

    def __init__(self, model: Model, space: Workspace, size: int, most: int) -> None:
        super().__init__(model, space.cache)
        self.space, self.size, self.most = space, size, most
        self.eager = True

    def logits(
        self, ids: Sequence[int], ends: Sequence[int] | None, positions: Sequence[int]
    ) -> Tensor:
        start = self.start
        # Held tokens can make a later window longer than any other.
        self.eager = start == 0 or len(ids) > self.most
        if self.eager:
            self.predictor.last_final = self.space.states[:, :1]
            return super().logits(ids, ends, positions)
        visible = torch.tensor(ends or [start + len(ids)] * len(ids))
        self.space.forward(ids, start, visible, self.size)
        offset = start + self.predictor.shift
        return self.space.logits([p - offset for p in positions])

    def advance(self, rows: int) -> None:
        if rows:
            window = self.hidden if self.eager else self.space.states[:, 1:]
            self.space.states[:, 0] = window[:, rows - 1]
        self.space.cache.advance(rows)


@contextmanager
def open_windows(model: Model, length: int, config: DecodeConfig) -> Iterator[Windows]:
    """The windows of one run; ``length`` is where the last one ends."""
    units = kind_of(decoder_name(config)).units
    if units is None:
        yield Windows(model, None)
    elif model.fixed is None:
        yield Windows(model, model.net.new_cache(length))
    else:
        size, blocks = units(config)
        with model.fixed.workspace(length, size, blocks) as space:
            yield FixedWindows(model, space, size, size * blocks)
