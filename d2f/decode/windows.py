"""A run's forwards over its cache: token ids of a window in, logits of wanted positions out.

Two kinds that decoders cannot tell apart: exact windows, as long as they are, and windows padded
to fixed shapes for a compiled model (:mod:`d2f.fixed`). Knows no decoding policy.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from d2f.attention import send
from d2f.cache import KVCache
from d2f.checkpoint import Model
from d2f.decode.common import Predictor
from d2f.fixed import Workspace


class Windows:
    """Each window starts where the cache's final rows end; :meth:`advance` moves that on."""

    def __init__(self, model: Model, cache: KVCache, shift: bool) -> None:
        self.net, self.cache = model.net, cache
        self.device = model.device
        self.predictor = Predictor(model.net, shift)

    def logits(self, ids: Sequence[int], ends: Tensor | None, positions: Sequence[int]) -> Tensor:
        """(N, V) logits of ascending absolute ``positions``.

        Args:
            ends: (T,) visible ends on the host, or None: every row sees every key.
        """
        start = self.cache.length
        self.hidden = self.net(send(torch.tensor([ids]), self.device), ends, self.cache, start)
        return self.predictor.logits(self.hidden, start, positions)

    def advance(self, rows: int) -> None:
        """Declare the first ``rows`` rows of the window final."""
        self.predictor.keep(self.hidden, rows)
        self.cache.advance(rows)


class FixedWindows(Windows):
    """The same at fixed shapes; the prompt, of any length, is forwarded as it is."""

    def __init__(self, model: Model, space: Workspace, size: int, shift: bool) -> None:
        super().__init__(model, space.cache, shift)
        self.space, self.size = space, size

    def logits(self, ids: Sequence[int], ends: Tensor | None, positions: Sequence[int]) -> Tensor:
        start = self.cache.length
        if start == 0:
            return super().logits(ids, ends, positions)
        ends = torch.full((len(ids),), start + len(ids)) if ends is None else ends
        self.space.forward(ids, start, ends, self.size)
        offset = start + self.predictor.shift
        return self.space.logits([p - offset for p in positions], self.size)

    def advance(self, rows: int) -> None:
        if rows:
            window = self.hidden if self.cache.length == 0 else self.space.states[:, 1:]
            self.space.states[:, 0] = window[:, rows - 1]
        self.cache.advance(rows)


@contextmanager
def open_windows(
    model: Model, length: int, size: int, blocks: int, shift: bool
) -> Iterator[Windows]:
    """The windows of one run.

    Args:
        length: where the last window ends.
        size: rows a block, the unit windows are padded in.
        blocks: the most blocks a window has behind the prompt.
        shift: position i is predicted from the state at i - 1.
    """
    if model.fixed is None:
        yield Windows(model, model.net.new_cache(length), shift)
        return
    with model.fixed.workspace(length, size, blocks) as space:
        yield FixedWindows(model, space, size, shift)
