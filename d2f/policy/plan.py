"""What a policy is given, and what it asks of one forward."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Held:
    """Positions that are decided before the first forward, and those of them with a stop token."""

    positions: frozenset[int] = frozenset()
    stops: frozenset[int] = frozenset()


NOTHING_HELD = Held()


@dataclass(frozen=True)
class Plan:
    """One forward, in absolute positions.

    Attributes:
        window: the rows to forward, ``[start, end)``.
        wanted: positions whose logits decide, ascending.
        ends: the end of what each row of the window sees; None: every row sees every key.
        final: how many rows from the window's start on nothing can change after this forward.
        drafted: how many of the window's last rows hold tokens that are yet to be checked.
    """

    window: tuple[int, int]
    wanted: list[int]
    ends: list[int] | None
    final: int
    drafted: int = 0
