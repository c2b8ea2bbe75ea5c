"""Fast-dLLM's caches on integers: a forward of the whole canvas a block, then less than that.

Fast-dLLM (arXiv 2505.22618, section 3.2) takes keys and values for final that are not: prompt and
canvas see each other both ways, so every decision changes all of them a little. The first forward
for each block refreshes what is kept. The prefix cache keeps all rows before the block, and the
forwards after it hold the block and all behind it; the dual cache keeps the rows behind the block
as well, and they hold the block alone. Runs to the end of the canvas, as released.
"""

from d2f.config import VanillaConfig
from d2f.policy.plan import NOTHING_HELD, Held, Plan
from d2f.policy.remasking import Remasking


class PrefixCache(Remasking):
    """Wants what vanilla diffusion wants; ``cached`` counts the rows before the block."""

    def __init__(
        self, prompt_length: int, config: VanillaConfig, held: Held = NOTHING_HELD
    ) -> None:
        super().__init__(prompt_length, config, held)
        self.cached = 0

    def plan(self) -> Plan:
        start, end = self.block
        if start == self.cached:
            return self.again(start, end)
        self.cached = start
        return Plan((0, self.limit), self.wanted, None, start)

    def again(self, start: int, end: int) -> Plan:
        """A forward of the block ``[start, end)`` after its first."""
        return Plan((start, self.limit), self.wanted, None, 0)


class DualCache(PrefixCache):
    """The same, with the rows behind the block kept from its first forward."""

    def again(self, start: int, end: int) -> Plan:
        return Plan((start, end), self.wanted, [self.limit] * (end - start), 0)
