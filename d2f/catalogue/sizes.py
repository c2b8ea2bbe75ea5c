"""What models need of a card's memory: computed from their shapes, never measured.

Weights, the KV cache of a run, the logits of its widest step, and a flat allowance for what every
CUDA program takes. Knows no network, no card and no tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from d2f.errors import InvalidInput

GIB = 2**30
TOKENS = 4096
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes a quantised weight takes, scales included: int8 has one bfloat16 scale an output row (less
# than a thousandth, left out), NF4 a byte per 64 weights and a float32 per 256 of those.
QUANTISED_BYTES = {"int8": 1.0, "int4": 0.5 + 1 / 64 + 4 / (64 * 256)}
# Assumed, not computed: CUDA's own memory, kernels, activations and fragmentation, a process.
ALLOWANCE = GIB
# Rows of the widest step's logits; beside the logits as they come, they are held in float32 and as
# probabilities.
LOGIT_ROWS, FLOAT_LOGIT_BYTES = 128, 4 + 4
CARDS = (16, 24, 32, 40, 48, 80)


class Shape(Protocol):
    """What decides a transformer's size; :class:`d2f.nn.transformer.ModelConfig` has it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool
    tied_head: bool


def layer_weights(shape: Shape) -> int:
    """Weights of all layers' products: what quantisation makes smaller."""
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    attention = shape.hidden_size * (q + 2 * kv) + q * shape.hidden_size
    return shape.num_layers * (attention + 3 * shape.hidden_size * shape.intermediate_size)


def other_weights(shape: Shape) -> int:
    """Weights of embedding, head, norms and biases, which keep their dtype."""
    q, kv = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    norms = (2 * shape.num_layers + 1) * shape.hidden_size
    biases = shape.num_layers * (q + 2 * kv) if shape.qkv_bias else 0
    tables = 1 if shape.tied_head else 2
    return tables * shape.vocab_size * shape.hidden_size + norms + biases


def model_bytes(shape: Shape, dtype: str, quantised: str | None = None) -> int:
    """A model's weights in memory; ``quantised`` is a key of :data:`QUANTISED_BYTES`."""
    if dtype not in BYTES:
        raise InvalidInput(f"dtype must be one of {sorted(BYTES)}, got {dtype!r}")
    if quantised is not None and quantised not in QUANTISED_BYTES:
        raise InvalidInput(f"quantised must be one of {sorted(QUANTISED_BYTES)}, got {quantised!r}")
    each = BYTES[dtype] if quantised is None else QUANTISED_BYTES[quantised]
    return round(layer_weights(shape) * each) + other_weights(shape) * BYTES[dtype]


def run_bytes(shape: Shape, dtype: str, tokens: int = TOKENS) -> int:
    """A run of one model: the KV cache of ``tokens``, and its widest step's logits."""
    cache = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * tokens
    logits = LOGIT_ROWS * shape.vocab_size
    return (cache + logits) * BYTES[dtype] + logits * FLOAT_LOGIT_BYTES


def lane_bytes(shape: Shape, dtype: str, tokens: int = TOKENS, quantised: str | None = None) -> int:
    """A model and a run of it."""
    return model_bytes(shape, dtype, quantised) + run_bytes(shape, dtype, tokens)


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
            tuple(lane_bytes(shape, "bfloat16", quantised=quantised) for shape in shapes),
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
