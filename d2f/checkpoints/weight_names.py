"""Names of weights in published checkpoints, one by one, and the rows of ours each one fills.

Two layouts cover all families: transformers' own (Llama, Qwen2, Qwen3, Dream) and LLaDA's, which
comes from OLMo and calls both a layer's down projection and the head ``ff_out``. A map names every
weight of a checkpoint and every row of a network exactly once, so that whatever stands in a file
and not in the map, or the other way round, is an error. Knows no files and no values.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from d2f.shape import ModelConfig


@dataclass(frozen=True)
class Layout:
    """Module names of a checkpoint.

    ``layer`` is the prefix of a layer's modules, ``{}`` its number; ``parts`` are the modules that
    make up each of ours, in row order.
    """

    embedding: str
    layer: str
    norm: str
    head: str
    parts: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Slot:
    """Where one published weight of ``shape`` goes: rows of ``key`` from ``start`` on."""

    key: str
    start: int
    shape: tuple[int, ...]

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.shape[0])


TRANSFORMERS = Layout(
    embedding="model.embed_tokens",
    layer="model.layers.{}.",
    norm="model.norm",
    head="lm_head",
    parts={
        "input_layernorm": ("input_layernorm",),
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.qk_norm": ("self_attn.q_norm", "self_attn.k_norm"),
        "self_attn.o_proj": ("self_attn.o_proj",),
        "post_attention_layernorm": ("post_attention_layernorm",),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj": ("mlp.down_proj",),
    },
)
LLADA = Layout(
    embedding="model.transformer.wte",
    layer="model.transformer.blocks.{}.",
    norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    parts={
        "input_layernorm": ("attn_norm",),
        "self_attn.qkv_proj": ("q_proj", "k_proj", "v_proj"),
        "self_attn.o_proj": ("attn_out",),
        "post_attention_layernorm": ("ff_norm",),
        # The first goes through the activation.
        "mlp.gate_up_proj": ("ff_proj", "up_proj"),
        "mlp.down_proj": ("ff_out",),
    },
)
# By config.json's model_type.
LAYOUTS = {
    "llama": TRANSFORMERS,
    "qwen2": TRANSFORMERS,
    "qwen3": TRANSFORMERS,
    "Dream": TRANSFORMERS,
    "sdar": TRANSFORMERS,
    "Fast_dLLM_Qwen": TRANSFORMERS,
    "a2d-llama": TRANSFORMERS,
    "a2d-qwen2": TRANSFORMERS,
    "a2d-qwen3": TRANSFORMERS,
    "llada": LLADA,
}


def key_map(config: ModelConfig, layout: Layout) -> dict[str, Slot]:
    """Every weight a checkpoint of this shape holds, by its published key."""
    hidden, vocab = config.hidden_size, config.vocab_size
    slots = {f"{layout.embedding}.weight": Slot("embed_tokens.weight", 0, (vocab, hidden))}
    for layer in range(config.num_layers):
        for ours, rows, inputs, kind in _layer_weights(config):
            start = 0
            for part, height in zip(layout.parts[ours], rows, strict=True):
                key = f"{layout.layer.format(layer)}{part}.{kind}"
                shape = (height, inputs) if inputs else (height,)
                slots[key] = Slot(f"layers.{layer}.{ours}.{kind}", start, shape)
                start += height
    slots[f"{layout.norm}.weight"] = Slot("norm.weight", 0, (hidden,))
    if not config.tied_head:
        slots[f"{layout.head}.weight"] = Slot("lm_head.weight", 0, (vocab, hidden))
    return slots


def _layer_weights(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...], int, str]]:
    """Our module, the rows of its parts, its inputs (0: a vector), "weight" or "bias"."""
    hidden, wide = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    yield "input_layernorm", (hidden,), 0, "weight"
    yield "self_attn.qkv_proj", (q, kv, kv), hidden, "weight"
    if config.qkv_bias:
        yield "self_attn.qkv_proj", (q, kv, kv), 0, "bias"
    if config.qk_norm:
        yield "self_attn.qk_norm", (config.head_dim, config.head_dim), 0, "weight"
    yield "self_attn.o_proj", (hidden,), q, "weight"
    yield "post_attention_layernorm", (hidden,), 0, "weight"
    yield "mlp.gate_up_proj", (wide, wide), hidden, "weight"
    yield "mlp.down_proj", (hidden,), wide, "weight"
