"""What models need of a card's memory: computed from their shapes, never measured.

Weights, the KV cache of a run, the logits of its widest step, and a flat allowance for what every
CUDA program takes. Knows no network, no card and no tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from d2f.shape import QUANTISED_BYTES, TOKENS, Shape

GIB = 2**30
# Assumed, not computed: CUDA's own memory, kernels, activations and fragmentation, a process.
ALLOWANCE = GIB
CARDS = (16, 24, 32, 40, 48, 80)


def pair_bytes(lanes: Sequence[int]) -> int:
    """Lanes that run in one process; none of them need nothing."""
    return sum(lanes) + ALLOWANCE if lanes else 0


@dataclass(frozen=True)
class Need:
    """What a pair of lanes takes, in bytes, and the smallest of :data:`CARDS` (GiB) to hold it."""

    pair: str
    weights: str
    lanes: tuple[int, ...]

    @property
    def total(self) -> int:
        """Both models at once, in one process."""
        return pair_bytes(self.lanes)

    @property
    def card(self) -> int | None:
        """None: no one card of the list."""
        return next((size for size in CARDS if self.total <= size * GIB), None)


def needs(pairs: Mapping[str, Sequence[Shape]]) -> list[Need]:
    """One :class:`Need` a pair and kind of weights: bfloat16, and each quantisation of them."""
    return [
        Need(
            name,
            quantised or "bfloat16",
            tuple(shape.memory("bfloat16", weights=quantised) for shape in shapes),
        )
        for name, shapes in pairs.items()
        for quantised in (None, *QUANTISED_BYTES)
    ]


def needs_table(table: Sequence[Need]) -> str:
    """The needs as a table of the README, marked as computed."""
    lines = ["| pair | weights | D2F lane | AR lane | both, with 1 GiB for CUDA | fits on |"]
    lines.append("| --- | --- | ---: | ---: | ---: | ---: |")
    for need in table:
        sizes = [f"{size / GIB:.1f} GiB" for size in (*need.lanes, need.total)]
        card = "no single card" if need.card is None else f"{need.card} GB"
        total = f"{' | '.join(sizes)} ({gigabytes(need.total)})"
        lines.append(f"| {need.pair} | {need.weights} | {total} | {card} |")
    lines += ["", f"Computed, not measured; a KV cache of {TOKENS:,} tokens a lane is included."]
    return "\n".join(lines)


def gigabytes(size: int) -> str:
    """Bytes for people: GB of 10^9 bytes, one digit below ten."""
    amount = size / 1e9
    return f"{amount:.1f} GB" if amount < 10 else f"{amount:.0f} GB"
