"""How long a step of a network takes, by its shape alone: no weights are needed to know.

A step is what decoding makes of a window: forward over a cache, head, choice, and the one wait for
it. Each is held against a floor, the time in which this device's own memory could read what the
step must read. Knows no command line and no print.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any, NamedTuple, cast

import torch

from d2f.checkpoints.load import empty_network
from d2f.checkpoints.plan import DTYPES
from d2f.config import ARConfig
from d2f.decode.common import read
from d2f.decode.windows import FixedWindows, Windows
from d2f.model import Model
from d2f.nn.compiled import Fixed
from d2f.nn.sampling import choose, forbid
from d2f.nn.transformer import RMSNorm, Transformer
from d2f.policy import Plan
from d2f.shape import BYTES, ModelConfig
from d2f.tokenizer import Tokenizer

EAGER, GRAPHS, FUSED = FORWARDS = "eager", "graphs", "fused"
# Steps before the clock starts; then at least so many and so long, of which the median counts.
WARM_UPS, STEPS, SECONDS = 2, 5, 0.1
TINY: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_layers": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
}


class How(NamedTuple):
    """How a network computes: with which attention, in what kind of forward."""

    dtype: str
    attention: str
    forward: str


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A step of ``window`` rows after ``context`` tokens in the cache; times in milliseconds.

    ``ms`` is the median of ``steps``; of it ``host_ms`` went by until all was queued, where a
    device computes by itself: None on a CPU.
    """

    dtype: str
    attention: str
    forward: str
    context: int
    window: int
    ms: float
    host_ms: float | None
    floor_ms: float
    steps: int


def tiny(config: ModelConfig) -> ModelConfig:
    """The same kind of network at a size that any machine computes at once."""
    heads = TINY["num_kv_heads"] * config.num_heads // config.num_kv_heads
    return replace(config, **TINY, num_heads=heads, mask_id=config.mask_id and 0)


def random_network(config: ModelConfig, device: torch.device, dtype: str) -> Transformer:
    """A network with random weights, made where it is used."""
    net = empty_network(config, device, DTYPES[dtype]).eval()
    generator = torch.Generator(device).manual_seed(0)
    for module in net.modules():
        for weight in module.parameters(recurse=False):
            if isinstance(module, RMSNorm) or weight.dim() == 1:
                weight.fill_(1)
            else:
                weight.normal_(0, weight.shape[-1] ** -0.5, generator=generator)
    return net


def floor_ms(config: ModelConfig, dtype: str, keys: int, speed: float) -> float:
    """The least a step takes that reads all weights and the K/V of so many tokens once.

    Of an embedding that is not the head as well, only a few rows are read.
    """
    embedding = 0 if config.tied_head else config.vocab_size * config.hidden_size
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * keys
    size = config.model_bytes(dtype) + (cache - embedding) * BYTES[dtype]
    return 1000 * size / speed


class Steps:
    """Windows over a cache filled with noise, which each step reads and none makes longer."""

    def __init__(self, windows: Windows, block_size: int) -> None:
        assert windows.cache is not None
        self.windows, self.cache, self.block_size = windows, windows.cache, block_size
        config = windows.net.config
        self.forbidden = torch.zeros(config.vocab_size, dtype=torch.bool, device=windows.device)
        for rows in (*self.cache.keys, *self.cache.values):
            rows.normal_()
        # What models with a logit shift need of the row before the window.
        states = torch.zeros(1, config.hidden_size, device=windows.device)
        self.windows.last_final = states.to(windows.net.embed_tokens.weight.dtype)

    @torch.inference_mode()
    def step(self, context: int, window: int) -> tuple[float, float]:
        """Seconds until all is queued, and until the choice is on the host."""
        self.cache.length, end = context, context + window
        started = time.perf_counter()
        positions = list(range(context, end))
        size = self.block_size
        ends = [min(context + (row // size + 1) * size, end) for row in range(window)]
        plan = Plan((context, end), positions, ends, final=0)
        logits = self.windows.logits([1] * window, plan)
        logits, finite = forbid(logits, self.forbidden)
        chosen = (*choose(logits, ARConfig(), None), finite)
        queued = time.perf_counter()
        read(*chosen)
        return queued - started, time.perf_counter() - started

    def measure(self, context: int, window: int) -> list[tuple[float, float]]:
        """As many steps as tell."""
        for _ in range(WARM_UPS):
            self.step(context, window)
        times: list[tuple[float, float]] = []
        while len(times) < STEPS or sum(total for _, total in times) < SECONDS:
            times.append(self.step(context, window))
        return times


@contextmanager
def steps_of(net: Transformer, how: How, length: int, widest: int, size: int) -> Iterator[Steps]:
    """Steps of a network, up to so many tokens and rows."""
    # A step knows no text.
    model = Model("shape", net, cast(Tokenizer, None))
    if how.forward == EAGER:
        yield Steps(Windows(model, net.new_cache(length)), size)
        return
    fixed = Fixed(net, fused=how.forward == FUSED)
    with fixed.workspace(length, size, -(-widest // size)) as space:
        yield Steps(FixedWindows(model, space, size, widest), size)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is measured of each way to compute; ``until`` is when nothing more is begun."""

    contexts: Sequence[int]
    windows: Sequence[int]
    block_size: int
    until: float

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Pairs of context and window."""
        return list(product(self.contexts, self.windows))

    @property
    def length(self) -> int:
        """Where the last window ends."""
        return max(self.contexts) + max(self.windows)

    def measure(self, net: Transformer, how: How, speed: float) -> Iterator[Timing]:
        """As many cells as there is time for."""
        widest = max(self.windows)
        with steps_of(net, how, self.length, widest, self.block_size) as steps:
            for context, window in self.cells:
                if time.monotonic() > self.until:
                    return
                times = steps.measure(context, window)
                host = 1000 * median(queued for queued, _ in times)
                yield Timing(
                    **how._asdict(),
                    context=context,
                    window=window,
                    ms=1000 * median(total for _, total in times),
                    host_ms=host if steps.cache.keys[0].is_cuda else None,
                    floor_ms=floor_ms(net.config, how.dtype, context + window, speed),
                    steps=len(times),
                )


def tokens_per_second(rows: Sequence[Timing], rates: Sequence[float]) -> list[dict[str, Any]]:
    """What follows of timings at so many tokens a forward; of one row, at one: computed.

    Of one context, the middle one of those measured: others differ little.
    """
    contexts = sorted({row.context for row in rows})
    keys = ("dtype", "attention", "forward", "context", "window")
    return [
        {key: asdict(row)[key] for key in keys}
        | {"tokens_per_forward": rate, "tokens_per_second": 1000 * rate / row.ms}
        for row in rows
        if row.context == contexts[len(contexts) // 2]
        for rate in ([1.0] if row.window == 1 else rates)
        if rate <= row.window
    ]


def caps(rows: Sequence[Timing], block_size: int, most: float) -> list[dict[str, Any]]:
    """The widest windows that cost at most ``most`` times a window of one block.

    ``max_active_blocks`` keeps windows within: beside the active blocks they hold at most one more.
    """
    found = []
    for key in dict.fromkeys((r.dtype, r.attention, r.forward, r.context) for r in rows):
        own = {r.window: r.ms for r in rows if key == (r.dtype, r.attention, r.forward, r.context)}
        blocks = sorted(window for window in own if window >= block_size)
        if blocks:
            widest = max(window for window in blocks if own[window] <= most * own[blocks[0]])
            named = dict(zip(("dtype", "attention", "forward", "context"), key, strict=True))
            most_blocks = max(1, widest // block_size - 1)
            found.append(named | {"widest": widest, "max_active_blocks": most_blocks})
    return found
