"""Autoregressive decoding on integers: the prompt at once, then one token a forward."""

from collections.abc import Iterable

from d2f.config import ARConfig
from d2f.errors import InvalidInput
from d2f.events import BlockView
from d2f.policy.plan import NOTHING_HELD, Held, Plan


class OneByOne:
    """Each forward holds what is not cached yet, caches it, and decides the position behind it."""

    def __init__(self, prompt_length: int, config: ARConfig, held: Held = NOTHING_HELD) -> None:
        self.cached, self.end = 0, prompt_length + len(held.positions)
        if held.positions != frozenset(range(prompt_length, self.end)):
            raise InvalidInput(
                "an autoregressive model decides from left to right, so it can hold the beginning "
                "of an answer, and no token behind a gap"
            )
        self.limit = prompt_length + config.max_new_tokens
        self.finish_reason: str | None = None

    def plan(self) -> Plan:
        start, end = self.cached, self.end
        self.cached = end
        # A single row sees every key: no mask to build.
        ends = list(range(1, end + 1)) if start == 0 else None
        return Plan((start, end), [end], ends, end - start)

    def record(self, positions: Iterable[int], stops: Iterable[int]) -> tuple[BlockView, ...]:
        self.end += 1
        if any(True for _ in stops):
            self.finish_reason = "stop"
        elif self.end == self.limit:
            self.finish_reason = "length"
        return ()
