"""Vanilla masked diffusion on integers: the whole canvas every time, the leftmost block first.

LLaDA (arXiv 2502.09992, section 2.4 and Algorithm 5): prompt and canvas see each other both ways,
so nothing is ever final. Runs to the end of the canvas, as released, wherever the answer stops.
"""

from bisect import bisect_left
from collections.abc import Iterable

from d2f.config import VanillaConfig
from d2f.events import BlockView
from d2f.policy.plan import NOTHING_HELD, Held, Plan


class Remasking:
    """Wants the undecided positions of the leftmost unfinished block."""

    cached: int = 0

    def __init__(
        self, prompt_length: int, config: VanillaConfig, held: Held = NOTHING_HELD
    ) -> None:
        self.prompt_length = prompt_length
        self.limit = prompt_length + config.max_new_tokens
        self.block_size = config.block_size or config.max_new_tokens
        positions = range(prompt_length, self.limit)
        self.masked = [position for position in positions if position not in held.positions]
        self.stopped = bool(held.stops)

    @property
    def block(self) -> tuple[int, int]:
        """Positions ``[start, end)`` of the leftmost unfinished block."""
        number = (self.masked[0] - self.prompt_length) // self.block_size
        start = self.prompt_length + number * self.block_size
        return start, min(start + self.block_size, self.limit)

    @property
    def wanted(self) -> list[int]:
        """What is undecided there."""
        return self.masked[: bisect_left(self.masked, self.block[1])]

    def plan(self) -> Plan:
        return Plan((0, self.limit), self.wanted, None, 0)

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        for position in positions:
            del self.masked[bisect_left(self.masked, position)]
        self.stopped |= any(True for _ in stops)
        return ()

    @property
    def finish_reason(self) -> str | None:
        if self.masked:
            return None
        return "stop" if self.stopped else "length"
