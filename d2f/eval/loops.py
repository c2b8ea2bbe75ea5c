"""Answers that go round in circles: text that only repeats itself is no speed."""

from collections.abc import Sequence

# A loop is a unit of at most UNIT tokens, there at least TIMES times, over at least LEAST tokens.
UNIT, TIMES, LEAST = 64, 4, 32


def repeated(token_ids: Sequence[int]) -> int:
    """How many tokens at the end of an answer only repeat the unit before them; 0: no loop.

    The unit itself counts as said once. The last repetition may be cut short.
    """
    return max((_repeats(token_ids, unit) for unit in range(1, UNIT + 1)), default=0)


def _repeats(ids: Sequence[int], unit: int) -> int:
    count, last = 0, len(ids) - 1
    while count + unit <= last and ids[last - count] == ids[last - count - unit]:
        count += 1
    whole = count + unit
    return count if whole >= max(TIMES * unit, LEAST) else 0
