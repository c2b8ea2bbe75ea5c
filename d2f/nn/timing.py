"""How fast a network of a shape computes on this CPU, by dtype, packing and number of threads.

Weights are random and prompts are none: speed depends on neither. A row is what autoregression
forwards, a window what D2F does. Each way has its turn in every round, and its least time counts:
what else runs meanwhile only adds.
"""

import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count

import torch

from d2f.nn.packing import can_pack, pack
from d2f.nn.threads import computing_with
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig

ROW, WINDOW, BLOCK, KEYS = 1, 32, 8, 128
# Seconds of rounds, and the fewest of these.
BUDGET, ROUNDS = 0.5, 3
# Up to so much slower counts as alike: then fewer threads are better, for who shares the machine,
# and since a busy one makes times differ by as much.
ALIKE = 1.1


@dataclass(frozen=True)
class Way:
    """A way to compute, and the milliseconds of its forwards: of one row, of a window."""

    dtype: str
    packing: str
    threads: int
    row: float
    window: float

    def ms(self, rows: int) -> float:
        """Of a forward of so many rows, one or a window."""
        return self.row if rows == ROW else self.window


@dataclass(frozen=True)
class Tuned:
    """The ways that were open to a model, the one that was chosen, and for forwards of how many
    rows."""

    ways: tuple[Way, ...]
    chosen: Way
    rows: int

    @property
    def reason(self) -> str:
        """The chosen way's time, and that of the best with other threads, and in another dtype."""
        threads, dtype = self.chosen.threads, self.chosen.dtype
        what = "row" if self.rows == ROW else f"window of {WINDOW} rows"
        told = [
            f"{self.chosen.ms(self.rows):.1f} ms a {what} in {dtype} with {threads} "
            f"thread{'s' * (threads != 1)}"
        ]
        for other in sorted({way.threads for way in self.ways} - {threads}):
            some = [way for way in self.ways if way.threads == other]
            told.append(f"{fastest(some, self.rows).ms(self.rows):.1f} with {other}")
        for kind in sorted({way.dtype for way in self.ways} - {dtype}):
            some = [way for way in self.ways if way.dtype == kind]
            told.append(f"{fastest(some, self.rows).ms(self.rows):.1f} in {kind}")
        return ", ".join(told)


def packings(dtype: torch.dtype) -> list[str]:
    """Those that may pay for a dtype."""
    own = ["columns"] if dtype == torch.float32 else ["rows"]
    return own + ["onednn"] * can_pack(dtype)


def time_ways(
    config: ModelConfig, dtypes: Sequence[str], threads: Sequence[int], budget: float = BUDGET
) -> list[Way]:
    """Every way, timed: in ``budget`` seconds, or in as many as :data:`ROUNDS` rounds take."""
    nets = _networks(config, dtypes)
    ways = [(*kind, each) for kind in nets for each in threads]
    least = {(way, rows): math.inf for way in ways for rows in (ROW, WINDOW)}
    started = time.perf_counter()
    for turn in count():
        if turn >= ROUNDS and time.perf_counter() - started > budget:
            break
        for way, rows in least:
            with computing_with(way[2]):
                seconds = _forward_seconds(nets[way[:2]], rows)
            least[way, rows] = min(least[way, rows], seconds)
    return [Way(*way, *(1000 * least[way, rows] for rows in (ROW, WINDOW))) for way in ways]


def _networks(config: ModelConfig, dtypes: Sequence[str]) -> dict[tuple[str, str], Transformer]:
    """One of the shape for each dtype and packing."""
    plain = Transformer(config).eval().requires_grad_(False)
    nets = {}
    for dtype in dtypes:
        for packing in packings(getattr(torch, dtype)):
            nets[dtype, packing] = net = deepcopy(plain).to(getattr(torch, dtype))
            pack(net, packing)
    return nets


def _forward_seconds(net: Transformer, rows: int) -> float:
    """Of the second of two forwards: the first one brings the network to the processor."""
    rows = min(rows, net.config.max_length)
    keys = min(KEYS, net.config.max_length - rows)
    ids, ends = torch.zeros(1, rows, dtype=torch.long), None
    if rows > ROW:
        ends = (keys + torch.arange(rows) // BLOCK * BLOCK + BLOCK).clamp(max=keys + rows)
    with torch.inference_mode():
        cache = net.new_cache(keys + rows)
        cache.advance(keys)
        for _ in range(2):
            started = time.perf_counter()
            net.logits(net(ids, ends, cache, keys)[0])
            seconds = time.perf_counter() - started
    return seconds


def fastest(ways: Sequence[Way], rows: int) -> Way:
    """The way for forwards of so many rows; of those alike, one with the fewest threads."""
    bound = ALIKE * min(way.ms(rows) for way in ways)
    alike = [way for way in ways if way.ms(rows) <= bound]
    return min(alike, key=lambda way: (way.threads, way.ms(rows)))
