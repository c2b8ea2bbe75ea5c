"""What a policy asks of one forward."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """One forward, in absolute positions.

    Attributes:
        window: the rows to forward, ``[start, end)``.
        wanted: positions whose logits decide, ascending.
        ends: the end of what each row of the window sees; None: every row sees every key.
        final: how many rows from the window's start on nothing can change after this forward.
    """

    window: tuple[int, int]
    wanted: list[int]
    ends: list[int] | None
    final: int
