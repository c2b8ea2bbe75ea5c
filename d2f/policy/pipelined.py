"""The whole D2F decoding policy on integers (arXiv 2508.09192, section 4.3 and Algorithm 2).

When a block is appended, when it is fully activated, which rows are forwarded, which become final,
and when the answer is finished. Knows nothing of tensors, models or text: a decoder asks for the
window, forwards it, and reports what was committed.

Blocks inside the prompt are born completed, so prefill is no special case. Where the grid of blocks
starts is one integer (:func:`grid_start`): at the end of the prompt, which is one block then, or
before it, and then the block that the answer begins in may hold the prompt's last tokens. They are
no part of its ratio, nor of its view. States only move forward.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, takewhile

from d2f.config import D2FConfig
from d2f.events import CACHED, COMPLETED, FULLY_ACTIVATED, SEMI_ACTIVATED, BlockView
from d2f.policy.plan import NOTHING_HELD, Held, Plan


@dataclass
class Block:
    """Positions ``[start, end)``; ``masked`` are those still undecided, in order.

    ``index`` counts from 1 those that hold a part of the answer, from ``answer_start`` on.
    """

    index: int
    start: int
    end: int
    answer_start: int
    state: str
    masked: list[int] = field(default_factory=list)

    @property
    def decoded_ratio(self) -> float:
        """The decided share of its part of the answer; of a block of the prompt, 1."""
        size = self.end - self.answer_start
        # One division of integers: 1 - 9 / 10 would fall short of a threshold of 0.1.
        return (size - len(self.masked)) / size if size else 1.0

    def view(self) -> BlockView:
        """Its part of the answer."""
        return BlockView(self.index, self.answer_start, self.end, len(self.masked), self.state)


class BlockPipeline:
    """Blocks of one answer, from birth to cache.

    One step is :meth:`plan`, which grows, promotes and caches, then :meth:`record`. A step costs
    what the uncached blocks cost, however many lie behind them.
    """

    def __init__(self, prompt_length: int, config: D2FConfig, held: Held = NOTHING_HELD) -> None:
        self.config = config
        self.held = held.positions
        self.prompt_length = prompt_length
        self.limit = prompt_length + config.max_new_tokens
        self.blocks = prompt_blocks(prompt_length, config)
        self.first_stop = min(held.stops, default=None)
        end = self.limit if self.first_stop is None else min(self.limit, self.first_stop)
        while end - 1 in self.held:
            end -= 1
        self._open_end = end  # every position from here on is held, or behind a held stop token
        self.cached = 0
        self._first = 0  # the first uncached block
        self._in_flight: list[Block] = []

    def plan(self) -> Plan:
        """The next forward: every uncached block, each row seeing its block and all before it."""
        self.grow()
        self.promote()
        window = self.window
        self._in_flight = self.uncached
        ends = [block.end for block in self._in_flight for _ in range(block.start, block.end)]
        return Plan(window, self.masked, ends, self.cache())

    @property
    def uncached(self) -> list[Block]:
        """The blocks of the window: the leading completed ones and all behind them."""
        return self.blocks[self._first :]

    @property
    def active(self) -> list[Block]:
        """The blocks from the first unfinished one on."""
        return self.blocks[self._first + len(self._leading_completed()) :]

    @property
    def window(self) -> tuple[int, int]:
        """Positions ``[start, end)`` to forward."""
        return self.blocks[self._first].start, self.blocks[-1].end

    @property
    def masked(self) -> list[int]:
        """Undecided positions, ascending."""
        return [position for block in self.uncached for position in block.masked]

    def _leading_completed(self) -> list[Block]:
        return list(takewhile(lambda block: block.state == COMPLETED, self.uncached))

    def _may_grow(self) -> bool:
        last, cap = self.blocks[-1], self.config.max_active_blocks
        return (
            max(last.end, self.prompt_length) < self._open_end
            and (self.first_stop is None or last.end <= self.first_stop)
            and last.decoded_ratio >= self.config.tau_add
            and (cap is None or len(self.active) < cap)
        )

    def grow(self) -> None:
        """Append at most one block with masks, behind any that are held whole.

        The last one may be shorter.
        """
        while self._may_grow():
            last = self.blocks[-1]
            first = max(last.end, self.prompt_length)
            end = min(last.end + self.config.block_size, self.limit)
            masked = [position for position in range(first, end) if position not in self.held]
            state = SEMI_ACTIVATED if masked else COMPLETED
            self.blocks.append(Block(last.index + 1, last.end, end, first, state, masked))
            if masked:
                return

    def promote(self) -> None:
        """Fully activate, for good, the successor of every block decoded to tau_act."""
        for block, successor in pairwise(self.blocks[max(self._first - 1, 0) :]):
            ready = block.decoded_ratio >= self.config.tau_act
            if ready and successor.state == SEMI_ACTIVATED:
                successor.state = FULLY_ACTIVATED

    def cache(self) -> int:
        """Declare the leading completed blocks cached; returns how many rows become final.

        They were completed before this step's forward, and nothing later can change them.
        """
        leading = self._leading_completed()
        for block in leading:
            block.state = CACHED
        rows = sum(block.end - block.start for block in leading)
        self._first += len(leading)
        self.cached += rows
        return rows

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        """Take in the committed positions and which of them hold a stop token."""
        committed = set(positions)
        for block in self.uncached:
            block.masked = [p for p in block.masked if p not in committed]
            if not block.masked and block.state in (SEMI_ACTIVATED, FULLY_ACTIVATED):
                block.state = COMPLETED
        known = [] if self.first_stop is None else [self.first_stop]
        self.first_stop = min([*known, *stops], default=None)
        if self.config.early_stop and self.first_stop is not None:
            # No earlier block can see what lies behind the stop token's block.
            while self.blocks[-1].start > self.first_stop:
                self.blocks.pop()
        return tuple(block.view() for block in self._in_flight if block.index)

    @property
    def finish_reason(self) -> str | None:
        """ "stop" or "length" when nothing is left to decode, else None."""
        masked = self.masked
        if self.first_stop is not None and self.config.early_stop:
            undecided = masked and masked[0] < self.first_stop
            return None if undecided or self._may_grow() else "stop"
        if masked or self._may_grow():
            return None
        return "length" if self.first_stop is None else "stop"


def grid_start(prompt_length: int, config: D2FConfig) -> int:
    """The position that blocks are counted from, in steps of their size; see ``config.GRIDS``."""
    if config.grid == "prompt":
        return prompt_length
    return 0 if config.grid == "start" else prompt_length % config.block_size


def prompt_blocks(prompt_length: int, config: D2FConfig) -> list[Block]:
    """The blocks that are all prompt, completed; the first may be empty."""
    start = grid_start(prompt_length, config)
    edges = [0, *range(start, prompt_length + 1, config.block_size)]
    return [Block(0, start, end, end, COMPLETED) for start, end in pairwise(edges)]


def window_units(config: D2FConfig) -> tuple[int, int]:
    """Rows a block, and the most blocks behind the prompt that one window can hold.

    All that were active can complete in one step, and be forwarded once more with a new block.
    """
    # A block that begins with the prompt's end takes that many rows of the answer's fewer.
    shared = config.block_size - 1 if config.grid == "start" else 0
    total = -(-(config.max_new_tokens + shared) // config.block_size)
    cap = config.max_active_blocks
    # A compiled model pads to whole blocks, of which one may be far longer than any answer.
    size = min(config.block_size, config.max_new_tokens + shared)
    return size, total if cap is None else min(total, cap + 1)
