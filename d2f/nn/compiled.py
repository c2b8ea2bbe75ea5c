"""Forwards of fixed shape: what torch.compile and CUDA graphs can capture.

An eager forward is as long as its window and reads as many keys as there are. Here a window is
padded to one of a few numbers of blocks, keys are read up to one of a few extents, and the head
sees one of a few numbers of rows: a few programs serve every step of every run. All they touch is
allocated before they are made, and where a window stands reaches them as data.

On CUDA each program is captured as a graph, so that a forward costs the host two copies and two
launches. The graphs are captured here, not by torch.compile's "reduce-overhead" mode: that mode's
graphs belong to the thread that made them, and a served model meets another thread each run.
Knows nothing of decoding: a caller says what is in the window.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from types import FunctionType
from typing import Any, NamedTuple, TypeVar
from weakref import finalize

import torch
from torch import Tensor

from d2f.errors import ComputeError
from d2f.nn.cache import FixedRows, KVCache
from d2f.nn.transformer import Transformer

# The smallest extent of keys, and the smallest cache; larger ones double.
EXTENT, CAPACITY = 256, 1024
# Programs a workspace keeps, so that ever new block sizes fill no memory; a run needs some thirty.
MOST_PROGRAMS = 256
WARM_UPS = 3

T = TypeVar("T")


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
        kind: "body", or "head", which reads no keys.
        rows: of the window, or of the states that logits are wanted of.
        reach: how many keys it reads.
        size: rows a block, where the program has them built in; else 0.
    """

    kind: str
    rows: int
    reach: int = 0
    size: int = 0


class Fixed:
    """A network's programs, and the workspaces they run in; one for all runs of the network.

    Args:
        compiled: compile the programs; without, they run as written, padding and all.
    """

    def __init__(self, net: Transformer, *, compiled: bool = True) -> None:
        self.net = net
        self.body: Callable[..., None] = _body
        self.head: Callable[..., Tensor] = _head
        self.ready = _compiled if compiled else partial
        self._free: list[Workspace] = []
        self._lock = threading.Lock()
        # A program must find the tables made.
        net.tables()

    @contextmanager
    def workspace(self, length: int, size: int, blocks: int) -> Iterator["Workspace"]:
        """A workspace with an empty cache, no one else's meanwhile.

        Args:
            length: where the last window ends.
            size: rows a block.
            blocks: the most blocks a window has.
        """
        rows = bucket(blocks) * size
        # The padding of the last window goes behind it.
        need = length + rows
        with self._lock:
            space = next((free for free in self._free if free.fits(need, rows)), None)
            if space is None:
                # What is too small goes, graphs and all: memory holds one of a kind.
                self._free.clear()
            else:
                self._free.remove(space)
        if space is None:
            doubled = max(CAPACITY, 1 << (need - 1).bit_length())
            most = self.net.config.max_length + rows
            space = Workspace(self, max(need, min(doubled, most)), rows)
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

    def prepare(self, length: int, size: int, blocks: int) -> None:
        """Make every program that runs within these bounds need, ahead of their clocks.

        Those that are there already cost nothing.
        """
        counts = sorted({bucket(count) for count in range(1, blocks + 1)})
        with self.workspace(length, size, blocks) as space, torch.inference_mode():
            reaches = sorted({extent(end, space.cache.capacity) for end in range(1, length + 1)})
            # A window padded to this many blocks is longer than ``fewer`` of them.
            windows = [
                (count * size, reach)
                for fewer, count in pairwise((0, *counts))
                for reach in reaches
                if reach > fewer * size
            ]
            bodies = {space.body_key(*window, size): window for window in windows}
            heads = {Key("head", count * size): count * size for count in counts}
            space.make_room((*bodies, *heads))
            for rows, reach in (bodies[key] for key in bodies if not space.has(key)):
                ends = torch.full((rows,), min(rows, reach))
                space.forward([0] * rows, 0, ends, size, reach)
            for rows in (heads[key] for key in heads if not space.has(key)):
                space.logits([0] * rows, size)


class Workspace:
    """What one run at a time works in: a cache, hidden states, and programs over both.

    ``states`` (1, 1 + rows, hidden_size): the last final row before the window, then the window.
    """

    def __init__(self, fixed: Fixed, capacity: int, rows: int) -> None:
        net, weight = fixed.net, fixed.net.embed_tokens.weight
        self.fixed = fixed
        self.device = weight.device
        self.cache = net.new_cache(capacity)
        shape = (1, 1 + rows, net.config.hidden_size)
        self.states = torch.zeros(shape, device=weight.device, dtype=weight.dtype)
        self._start_afresh()

    def fits(self, capacity: int, rows: int) -> bool:
        """Whether a run of these needs can have it."""
        return self.cache.capacity >= capacity and self.states.shape[1] > rows

    def body_key(self, rows: int, reach: int, size: int) -> Key:
        """A body's key. For flash, blocks are a batch: a program has their size built in."""
        return Key("body", rows, reach, size if self.fixed.net.attention == "flash" else 0)

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
        rows = bucket(-(-length // size)) * size
        # Padding rows lie behind the window's end, where no real row looks.
        table = torch.zeros(3, rows, dtype=torch.long)
        table[0, :length] = torch.tensor(ids)
        table[1] = torch.arange(start, start + rows)
        table[2, :length] = ends
        table[2, length:] = start + length
        reach = reach or extent(start + length, self.cache.capacity)
        bound = (self.fixed.net, self.cache, self.states, reach, size)
        self._run(self.body_key(rows, reach, size), self.fixed.body, bound, table)

    def logits(self, rows: Sequence[int], size: int) -> Tensor:
        """(N, V) logits from rows of the window's states; row -1 is the last final one.

        The next call overwrites them.
        """
        index = torch.zeros(bucket(-(-len(rows) // size)) * size, dtype=torch.long)
        index[: len(rows)] = torch.tensor(rows) + 1
        bound = (self.fixed.net, self.states)
        logits = self._run(Key("head", len(index)), self.fixed.head, bound, index)
        assert logits is not None
        return logits[: len(rows)]

    def _run(
        self, key: Key, function: Callable[..., Any], bound: tuple[Any, ...], values: Tensor
    ) -> Tensor | None:
        if key not in self._programs:
            self.make_room([key])
            program = self.fixed.ready(function, *bound)
            if self._capture is not None:
                program = Graph(program, values.to(self.device), self._capture)
            self._programs[key] = program
        return self._programs[key](values)

    def make_room(self, keys: Collection[Key]) -> None:
        """Drop all programs if those still to be made of these would be too many with them."""
        if len(self._programs.keys() | keys) > MOST_PROGRAMS:
            self._start_afresh()

    def _start_afresh(self) -> None:
        """Without programs. They go together: see :class:`Capture`."""
        self._programs: dict[Key, Callable[[Tensor], Tensor | None]] = {}
        self._capture = Capture(self.device) if self.device.type == "cuda" else None


class Capture:
    """What the graphs of one workspace share, and no other graph: a memory pool and a stream.

    Memory of a pool is used again only on the stream it was allocated on. And cuBLAS keeps scratch
    memory a stream, which recent torch frees with the first of the stream's graphs that goes
    (pytorch issue 193402): graphs of one stream must live and go together.
    """

    def __init__(self, device: torch.device) -> None:
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]


class Graph:
    """A function of one tensor, captured as a CUDA graph; its output is overwritten by each call.

    Run before it is captured, since compiling and kernels' own preparations cannot be captured.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor | None],
        values: Tensor,
        capture: Capture,
    ) -> None:
        self._input = values
        with torch.cuda.device(values.device):
            side = capture.stream
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    function(self._input)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Another run's thread may allocate meanwhile, or capture: torch's own stream is shared.
            with torch.cuda.graph(
                self._graph, pool=capture.pool, stream=side, capture_error_mode="thread_local"
            ):
                self._output = function(self._input)

    def __call__(self, values: Tensor) -> Tensor | None:
        self._input.copy_(values.pin_memory(), non_blocking=True)
        self._graph.replay()
        return self._output


def _compiled(function: Callable[..., T], *bound: Any) -> Callable[[Tensor], T]:
    """The function of these first arguments, compiled, and never run uncompiled.

    Compiled from a code object of its own: torch keeps what it compiled by code object, and refuses
    more than a few of one.
    """
    from torch._dynamo.eval_frame import remove_from_cache  # takes a second to load

    own = FunctionType(function.__code__.replace(), function.__globals__)
    program = torch.compile(own, fullgraph=True, dynamic=False)
    # Left alone, torch and the code object keep each other.
    finalize(program, remove_from_cache, own.__code__)
    return partial(program, *bound)


def _body(
    net: Transformer, cache: KVCache, states: Tensor, reach: int, size: int, table: Tensor
) -> None:
    """Embedding to final norm, for a (3, T) table of ids, positions and visible ends."""
    ids, positions, ends = table.unbind(0)
    hidden = net.fixed(ids[None], ends, FixedRows(cache, positions, reach), size)
    states[:, 1 : 1 + hidden.shape[1]] = hidden


def _head(net: Transformer, states: Tensor, index: Tensor) -> Tensor:
    """Logits of (N,) rows of the states."""
    return net.logits(states[0, index])
