"""The shape of a transformer and what follows from it alone: weights and bytes, computed.

Knows no tensors: published models are described and measured against a card's memory before
anything of them is here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from d2f.errors import InvalidInput

TOKENS = 4096
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes a quantised weight takes, scales included: int8 has one bfloat16 scale an output row (less
# than a thousandth, left out), NF4 a byte per 64 weights and a float32 per 256 of those.
QUANTISED_BYTES = {"int8": 1.0, "int4": 0.5 + 1 / 64 + 4 / (64 * 256)}
# Said beside every ratio of such lanes.
NOT_FOR_RACING = (
    "Weights of {} are for memory, not for racing: they make narrow and wide steps faster or "
    "slower by different amounts, so this ratio says nothing about the decoders."
)
# Rows of the widest step's logits; beside the logits as they come, they are held in float32 and as
# probabilities.
LOGIT_ROWS, FLOAT_LOGIT_BYTES = 128, 4 + 4


def not_for_racing(kinds: Iterable[str | None]) -> str | None:
    """What to say beside a ratio of lanes with weights of these kinds; None: nothing."""
    quantised = sorted({kind for kind in kinds if kind in QUANTISED_BYTES})
    return NOT_FOR_RACING.format(" and ".join(quantised)) if quantised else None


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What decides a transformer's size."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    qkv_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = False

    @property
    def layer_weights(self) -> int:
        """Weights of all layers' products: what quantisation makes smaller."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        attention = self.hidden_size * (q + 2 * kv) + q * self.hidden_size
        return self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    @property
    def other_weights(self) -> int:
        """Weights of embedding, head, norms and biases, which keep their dtype."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        norms = (2 * self.num_layers + 1) * self.hidden_size
        norms += 2 * self.num_layers * self.head_dim if self.qk_norm else 0
        biases = self.num_layers * (q + 2 * kv) if self.qkv_bias else 0
        tables = 1 if self.tied_head else 2
        return tables * self.vocab_size * self.hidden_size + norms + biases

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.layer_weights + self.other_weights

    @property
    def step_weights(self) -> int:
        """Weights that a forward of one row reads: the layers' and the head's."""
        return self.layer_weights + self.vocab_size * self.hidden_size

    def lora_parameters(self, rank: int) -> int:
        """Number of weights of a LoRA adapter on q, k, v and the attention's output."""
        q, kv = self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
        return self.num_layers * rank * (4 * self.hidden_size + 2 * q + 2 * kv)

    def model_bytes(self, dtype: str, weights: str | None = None) -> int:
        """The weights in memory; ``weights`` is a key of :data:`QUANTISED_BYTES`, for the layers'.

        Raises:
            InvalidInput: no such dtype or quantisation.
        """
        if dtype not in BYTES:
            raise InvalidInput(f"dtype must be one of {sorted(BYTES)}, got {dtype!r}")
        if weights is not None and weights not in QUANTISED_BYTES:
            raise InvalidInput(f"weights must be one of {sorted(QUANTISED_BYTES)}, got {weights!r}")
        each = BYTES[dtype] if weights is None else QUANTISED_BYTES[weights]
        return round(self.layer_weights * each) + self.other_weights * BYTES[dtype]

    def run_bytes(self, dtype: str, tokens: int = TOKENS) -> int:
        """A run: the KV cache of ``tokens``, and its widest step's logits."""
        cache = 2 * self.num_layers * self.num_kv_heads * self.head_dim * tokens
        logits = LOGIT_ROWS * self.vocab_size
        return (cache + logits) * BYTES[dtype] + logits * FLOAT_LOGIT_BYTES

    def memory(self, dtype: str, tokens: int = TOKENS, weights: str | None = None) -> int:
        """Bytes of a model and a run of it."""
        return self.model_bytes(dtype, weights) + self.run_bytes(dtype, tokens)


@dataclass(frozen=True, kw_only=True)
class Llama3Rope:
    """Rotary frequencies stretched for a context longer than the model was first trained on.

    Waves shorter than ``original_length / high_freq_factor`` stay, those longer than
    ``original_length / low_freq_factor`` get ``factor`` times as long; between, both are mixed.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def __post_init__(self) -> None:
        if self.high_freq_factor <= self.low_freq_factor:
            raise InvalidInput(
                "high_freq_factor must be above low_freq_factor, "
                f"got {self.high_freq_factor} and {self.low_freq_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class YarnRope:
    """Rotary frequencies stretched as YaRN does (arXiv 2309.00071).

    Of the pairs of a head, those that turn more than ``beta_fast`` times in ``original_length``
    positions stay, those that turn less than ``beta_slow`` times get ``factor`` times as long;
    between, by their place, both are mixed. cos and sin are multiplied by ``attention_factor``.
    """

    factor: float
    beta_fast: float
    beta_slow: float
    attention_factor: float
    original_length: int


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """How a diffusion model is decoded, as its file, the catalogue or options say; None: not said.

    The fields are those of :class:`ModelConfig`.
    """

    mask_id: int | None = None
    logit_shift: bool | None = None
    grid: str | None = None
    block_size: int | None = None

    def merged(self, other: "Diffusion") -> "Diffusion":
        """What either says.

        Raises:
            InvalidInput: they say different things, whose names and values the message has.
        """
        values = {}
        for name in ("mask_id", "logit_shift", "grid", "block_size"):
            own, given = getattr(self, name), getattr(other, name)
            if None not in (own, given) and own != given:
                raise InvalidInput(f"{name} is {own!r} by its own files, and {given!r} was given")
            values[name] = given if own is None else own
        return Diffusion(**values)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Shape):
    """A transformer's shape, its switches, and the ids decoding must know.

    ``logit_shift``: position i is predicted from the hidden state at i - 1 (Dream, and every
    autoregressive model) rather than at i (LLaDA). ``mask_id`` is None for models without one.
    ``grid``, of :data:`d2f.config.GRIDS`, is where the blocks that it was trained on start, and
    ``block_size`` how long they are; None: not said.
    """

    max_length: int
    rope_theta: float = 10000.0
    rope_scaling: Llama3Rope | YarnRope | None = None
    norm_eps: float = 1e-6
    rope_in_float32: bool = False
    logit_shift: bool = False
    causal: bool = False
    mask_id: int | None = None
    grid: str = "prompt"
    block_size: int | None = None

    def run_bytes(self, dtype: str, tokens: int = TOKENS) -> int:
        """A run, with cos and sin of every position there is, in float32."""
        return super().run_bytes(dtype, tokens) + 2 * 4 * self.max_length * self.head_dim

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise InvalidInput(
                f"num_heads must be a multiple of num_kv_heads, "
                f"got {self.num_heads} and {self.num_kv_heads}"
            )
        if self.head_dim < 2 or self.head_dim % 2:
            raise InvalidInput(f"head_dim must be even and at least 2, got {self.head_dim}")
        if self.mask_id is not None and not 0 <= self.mask_id < self.vocab_size:
            raise InvalidInput(
                f"the mask token must be one of the {self.vocab_size} ids of the model, "
                f"got {self.mask_id}"
            )
