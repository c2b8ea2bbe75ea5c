"""Autoregressive decoding on integers: the prompt at once, then one token a forward, or a few."""

from collections.abc import Iterable, Sequence

from d2f.config import ARConfig
from d2f.errors import InvalidInput
from d2f.events import BlockView
from d2f.policy.plan import NOTHING_HELD, Held, Plan


class OneByOne:
    """Each forward holds what is not cached yet, caches it, and decides the position behind it.

    Behind drafted tokens it decides as well, as far as they prove right: their rows stay cached.
    """

    def __init__(self, prompt_length: int, config: ARConfig, held: Held = NOTHING_HELD) -> None:
        self.cached, self.end = 0, prompt_length + len(held.positions)
        if held.positions != frozenset(range(prompt_length, self.end)):
            raise InvalidInput(
                "an autoregressive model decides from left to right, so it can hold the beginning "
                "of an answer, and no token behind a gap"
            )
        self.limit = prompt_length + config.max_new_tokens
        self.most_drafted = config.prompt_lookup
        self.drafts: Sequence[int] = ()
        self.finish_reason: str | None = None

    @property
    def room(self) -> int:
        """How many tokens may be drafted for the next forward, which decides one more itself."""
        return min(self.most_drafted, self.limit - self.end - 1)

    def draft(self, tokens: Sequence[int]) -> None:
        """Have the next forward check these tokens, for the positions from ``end`` on."""
        assert len(tokens) <= self.room
        self.drafts = tokens

    def plan(self) -> Plan:
        start, end = self.cached, self.end
        last = end + len(self.drafts)
        self.cached = end
        # A single row sees every key: no mask to build.
        ends = list(range(start + 1, last + 1)) if start == 0 or self.drafts else None
        return Plan((start, last), list(range(end, last + 1)), ends, end - start, last - end)

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        """Take in the decided positions: the first wanted ones."""
        decided = sum(1 for _ in positions)
        self.end += decided
        self.cached = self.end - 1
        self.drafts = ()
        if any(True for _ in stops):
            self.finish_reason = "stop"
        elif self.end == self.limit:
            self.finish_reason = "length"
        return ()
