"""Forwards of fixed shape: what CUDA graphs can capture, and torch.compile can fuse.

An eager forward is as long as its window and reads as many keys as there are. Here a window is
padded to one of a few numbers of rows, and keys are read up to one of a few extents: a few programs
serve every step of every run. All they touch is allocated before they are made, and where a window
stands reaches them as data.

On CUDA each program is the eager forward captured as a graph, in a fraction of a second, so that it
costs the host a copy and a launch. The graphs are captured here, not by torch.compile's
"reduce-overhead" mode: that mode's graphs belong to the thread that made them, and a served model
meets another thread each run. The head is no program: its one product is launched as quickly.
Knows nothing of decoding: a caller says what is in the window.
"""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from types import FunctionType
from typing import NamedTuple
from weakref import finalize

import torch
from torch import Tensor

from d2f.errors import ComputeError
from d2f.nn.attention import ALIGNED, send
from d2f.nn.cache import FixedRows, KVCache
from d2f.nn.transformer import Transformer
from d2f.shape import TOKENS

# The smallest extent of keys; larger ones double.
EXTENT = 256
# The fewest rows of a program for more than one: fewer would cost as much.
LEAST = 8
WARM_UPS = 3
# One capture at a time in the process: beginning one waits for what another one forbids to wait.
_CAPTURING = threading.Lock()

Step = Callable[[], None]
# Makes of a step over tensors that stay where they are what repeats it; may run it meanwhile.
Capture = Callable[[Step], Step]


def bucket(count: int) -> int:
    """The least of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below ``count``."""
    power = 1 << (count - 1).bit_length()
    between = power * 3 // 4
    return between if power >= 4 and between >= count else power


def extent(end: int, capacity: int) -> int:
    """How many keys to read for a window that ends at ``end``: a power of two, or all."""
    return min(max(EXTENT, 1 << (end - 1).bit_length()), capacity)


class Key(NamedTuple):
    """What a program is made for.

    Attributes:
        rows: of the window.
        reach: how many keys it reads.
        size: rows a block, where the program has them built in; else 0.
    """

    rows: int
    reach: int
    size: int


class Fixed:
    """A network's programs, and the workspaces they run in; one for all runs of the network.

    Args:
        fused: have torch compile the programs, for minutes; else they run as written.
        capture: makes what captures the programs of one workspace; None: on CUDA graphs, elsewhere
            they are called as they are.
    """

    def __init__(
        self,
        net: Transformer,
        *,
        fused: bool = False,
        capture: Callable[[], Capture] | None = None,
    ) -> None:
        device = net.embed_tokens.weight.device
        self.net, self.fused = net, fused
        self.body: Callable[..., None] = _body
        self.new_capture = capture or (partial(Graphs, device) if device.type == "cuda" else _plain)
        self._free: list[Workspace] = []
        self._lock = threading.Lock()
        # A program must find the tables made.
        net.tables()

    @property
    def sized(self) -> bool:
        """Whether programs have the size of blocks built in: for flash, blocks are a batch."""
        return self.net.attention == "flash"

    @property
    def bound(self) -> bool:
        """Whether another size of blocks takes other programs."""
        return self.fused or self.sized

    @property
    def kind(self) -> str:
        """How the programs run, as reports name it."""
        if self.net.embed_tokens.weight.is_cuda:
            return "graphs of compiled steps" if self.fused else "graphs"
        return "compiled" if self.fused else "fixed shapes"

    def rows(self, length: int, size: int) -> int:
        """How many rows a window of ``length`` in blocks of ``size`` is padded to."""
        if self.sized:
            return bucket(-(-length // size)) * size
        return 1 if length == 1 else max(LEAST, bucket(length))

    @contextmanager
    def workspace(self, length: int, size: int, blocks: int) -> Iterator["Workspace"]:
        """A workspace with an empty cache, no one else's meanwhile.

        Args:
            length: where the last window ends.
            size: rows a block.
            blocks: the most blocks a window has.
        """
        rows = self.rows(blocks * size, size)
        with self._lock:
            space = next((free for free in self._free if free.fits(length, rows)), None)
            if space is None:
                # What is too small goes, graphs and all: memory holds one of a kind.
                self._free.clear()
            else:
                self._free.remove(space)
        if space is None:
            space = Workspace(self, self._room(length), rows)
        space.cache.length = 0
        try:
            yield space
        except ComputeError:
            # Rows that hold NaN would spoil later runs, which read them at weight 0.
            space.cache.clear()
            raise
        finally:
            with self._lock:
                self._free.append(space)

    def _room(self, length: int) -> int:
        """Rows for a run up to ``length``: as many as any run may need, or double the usual."""
        return max(length, min(self.net.config.max_length, max(TOKENS, bucket(length))))

    def preparing(self, length: int, size: int, blocks: int) -> Iterator[tuple[int, int]]:
        """Make every program that runs within these bounds need, ahead of their clocks.

        Those that are there already cost nothing.

        Yields:
            After each program that is made, how many are made now, and of how many.
        """
        need = length, size, blocks
        with self.workspace(*need) as space:
            todo = [key for key in self._keys(*need, space) if not space.has(key)]
        for done, (rows, reach, _) in enumerate(todo, start=1):
            # Not kept between two programs: who has enough just stops asking.
            with self.workspace(*need) as space, torch.inference_mode():
                ends = torch.full((rows,), min(rows, reach))
                space.forward([0] * rows, 0, ends, size, reach)
            yield done, len(todo)

    def _keys(self, length: int, size: int, blocks: int, space: "Workspace") -> list[Key]:
        """The programs that windows within these bounds meet, the largest first."""
        lengths = range(1, min(blocks * size, length) + 1)
        counts = sorted({self.rows(count, size) for count in lengths})
        reaches = sorted({extent(end, space.cache.capacity) for end in range(1, length + 1)})
        # A window padded to this many rows is longer than ``fewer`` of them.
        return [
            space.key(rows, reach, size)
            for fewer, rows in reversed(list(pairwise((0, *counts))))
            for reach in reversed(reaches)
            if reach > fewer
        ]


class Workspace:
    """What one run at a time works in: a cache, hidden states, and programs over both.

    ``states`` (1, 1 + rows, hidden_size): the last final row before the window, then the window.
    The cache's last row is no position's: padding is written there. Its rows are as many as kernels
    like to read.
    """

    def __init__(self, fixed: Fixed, length: int, rows: int) -> None:
        net, weight = fixed.net, fixed.net.embed_tokens.weight
        self.fixed = fixed
        self.device = weight.device
        self.cache = net.new_cache(-(-(length + 1) // ALIGNED) * ALIGNED)
        shape = (1, 1 + max(rows, bucket(length)), net.config.hidden_size)
        self.states = torch.zeros(shape, device=weight.device, dtype=weight.dtype)
        self._programs: dict[Key, Program] = {}
        self._capture = fixed.new_capture()

    def fits(self, length: int, rows: int) -> bool:
        """Whether a run of these needs can have it."""
        return self.cache.capacity > length and self.states.shape[1] > rows

    def key(self, rows: int, reach: int, size: int) -> Key:
        """A program's key."""
        return Key(rows, reach, size if self.fixed.sized else 0)

    def has(self, key: Key) -> bool:
        """Whether a program is made already."""
        return key in self._programs

    def forward(
        self, ids: Sequence[int], start: int, ends: Tensor, size: int, reach: int | None = None
    ) -> None:
        """Write a window's K/V and states; a last block may be shorter than ``size``.

        Args:
            start: position of the first row; the cache is final up to there.
            ends: (T,) visible ends, on the host.
            reach: how many keys to read, instead of as few as serve.
        """
        length = len(ids)
        rows = self.fixed.rows(length, size)
        table = torch.zeros(3, rows, dtype=torch.long)
        table[0, :length] = torch.tensor(ids)
        table[1, :length] = torch.arange(start, start + length)
        table[1, length:] = self.cache.capacity - 1
        table[2, :length] = ends
        table[2, length:] = start + length
        key = self.key(rows, reach or extent(start + length, self.cache.capacity), size)
        if key not in self._programs:
            self._programs[key] = Program(self._step(key.reach, size), table, self)
        self._programs[key](table)

    def logits(self, rows: Sequence[int]) -> Tensor:
        """(N, V) logits from rows of the window's states; row -1 is the last final one."""
        index = send(torch.tensor(rows) + 1, self.device)
        return self.fixed.net.logits(self.states[0, index])

    def _step(self, reach: int, size: int) -> Callable[[Tensor], None]:
        body = _fused(self.fixed.body) if self.fixed.fused else self.fixed.body
        return partial(body, self.fixed.net, self.cache, self.states, reach, size)

    def capture(self, step: Step) -> Step:
        """What repeats the step."""
        return self._capture(step)


class Program:
    """A function of one tensor that reads it from a place of its own: what a capture can repeat."""

    def __init__(
        self, function: Callable[[Tensor], None], values: Tensor, space: Workspace
    ) -> None:
        self._input = values.to(space.device, copy=True)
        self.function = function
        self._repeat = space.capture(partial(function, self._input))

    def __call__(self, values: Tensor) -> None:
        if self._input.is_cuda:
            values = values.pin_memory()
        self._input.copy_(values, non_blocking=True)
        self._repeat()


def _plain() -> Capture:
    """Where nothing is captured, a step is repeated by running it."""
    return lambda step: step


class Graphs:
    """Captures the steps of one workspace as CUDA graphs, and no others.

    They share a memory pool and a stream. Memory of a pool is used again only on the stream it was
    allocated on. And cuBLAS keeps scratch memory a stream, which recent torch frees with the first
    of the stream's graphs that goes (pytorch issue 193402): graphs of one stream must live and go
    together.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, step: Step) -> Step:
        """Run first, since compiling and kernels' own preparations cannot be captured."""
        with _CAPTURING, torch.cuda.device(self.device):
            here = torch.cuda.current_stream()
            self.stream.wait_stream(here)
            with torch.cuda.stream(self.stream):
                for _ in range(WARM_UPS):
                    step()
                graph = self._captured(step)
            here.wait_stream(self.stream)
        return graph.replay

    def _captured(self, step: Step) -> torch.cuda.CUDAGraph:
        """Not by ``torch.cuda.graph``, which waits for the device, other threads' work included."""
        graph = torch.cuda.CUDAGraph()
        with uncollected():
            # Another run's thread may allocate meanwhile.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
        return graph


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection: a dead graph that goes meanwhile would spoil a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _fused(function: Callable[..., None]) -> Callable[..., None]:
    """The function, compiled, and never run uncompiled.

    Compiled from a code object of its own: torch keeps what it compiled by code object, and refuses
    more than a few of one.
    """
    from torch._dynamo.eval_frame import remove_from_cache  # takes a second to load

    own = FunctionType(function.__code__.replace(), function.__globals__)
    program = torch.compile(own, fullgraph=True, dynamic=False)
    # Left alone, torch and the code object keep each other.
    finalize(program, remove_from_cache, own.__code__)
    return program


def _body(
    net: Transformer, cache: KVCache, states: Tensor, reach: int, size: int, table: Tensor
) -> None:
    """Embedding to final norm, for a (3, T) table of ids, positions and visible ends."""
    ids, positions, ends = table.unbind(0)
    hidden = net.fixed(ids[None], ends, FixedRows(cache, positions, reach), size)
    states[:, 1 : 1 + hidden.shape[1]] = hidden
