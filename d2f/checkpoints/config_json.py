"""``config.json`` in and out: what Llama, Qwen2, LLaDA and Dream call the same few numbers.

A setting this package's transformer does not have is refused, never skipped. What transformers has
no field for stands under ``"d2f"``. Knows no files and no weights.
"""

from typing import Any

from d2f.errors import LoadError
from d2f.shape import ModelConfig

# What no architecture goes without.
REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
REQUIRED_LLADA = (
    "d_model",
    "mlp_hidden_size",
    "n_layers",
    "n_heads",
    "max_sequence_length",
    "rms_norm_eps",
    "rope_theta",
    "mask_token_id",
)
# The only values covered, of fields that change what is computed; absent fields have them.
FIXED = {"hidden_act": "silu", "use_sliding_window": False, "use_mrope": False}
FIXED_LLADA = {
    "block_type": "llama",
    "activation_type": "silu",
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "bias_for_layer_norm": False,
    "attention_layer_norm": False,
    "include_bias": False,
    "rope": True,
    "alibi": False,
    "scale_logits": False,
    "input_emb_norm": False,
    "clip_qkv": None,
}
# Dream's config.json keeps Qwen2.5's 131,072 positions; its training went to 2,048.
DREAM_CONTEXT = 2048


def model_config(raw: dict[str, Any]) -> ModelConfig:
    """The :class:`ModelConfig` of a ``config.json``."""
    kind = raw.get("model_type")
    if kind == "llada":
        return _llada_config(raw)
    if kind not in ("llama", "qwen2", "Dream"):
        raise LoadError(f"model_type must be 'llama', 'qwen2', 'llada' or 'Dream', got {kind!r}")
    _require(raw, REQUIRED, FIXED)
    ours = raw.get("d2f", {})
    dream = kind == "Dream"
    if dream and "mask_token_id" not in raw:
        raise LoadError("config.json names no mask_token_id")
    heads, length = raw["num_attention_heads"], raw["max_position_embeddings"]
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        max_length=min(length, DREAM_CONTEXT) if dream else length,
        rope_theta=_rope_theta(raw),
        norm_eps=raw["rms_norm_eps"],
        qkv_bias=kind in ("qwen2", "Dream"),
        rope_in_float32=ours.get("rope_in_float32", False),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        logit_shift=ours.get("logit_shift", True),
        causal=ours.get("causal", not dream),
        mask_id=raw["mask_token_id"] if dream else ours.get("mask_token_id"),
    )


def _llada_config(raw: dict[str, Any]) -> ModelConfig:
    _require(raw, REQUIRED_LLADA, FIXED_LLADA)
    heads = raw["n_heads"]
    # Rows of the tables; the vocabulary itself may be smaller.
    rows = raw.get("embedding_size") or raw.get("vocab_size")
    if not rows:
        raise LoadError("config.json names no embedding_size")
    return ModelConfig(
        vocab_size=rows,
        hidden_size=raw["d_model"],
        intermediate_size=raw["mlp_hidden_size"],
        num_layers=raw["n_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("n_kv_heads") or (1 if raw.get("multi_query_attention") else heads),
        head_dim=raw["d_model"] // heads,
        max_length=raw["max_sequence_length"],
        rope_theta=raw["rope_theta"],
        norm_eps=raw["rms_norm_eps"],
        qkv_bias=bool(raw.get("include_qkv_bias", False)),
        rope_in_float32=bool(raw.get("rope_full_precision", True)),
        tied_head=bool(raw.get("weight_tying", False)),
        logit_shift=False,
        causal=False,
        mask_id=raw["mask_token_id"],
    )


def _rope_theta(raw: dict[str, Any]) -> float:
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    # Older files say "type".
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise LoadError(f"rope_type must be 'default', got {kind!r}")
    theta = rope.get("rope_theta", raw.get("rope_theta"))
    if theta is None:
        raise LoadError("config.json names no rope_theta")
    return theta


def _require(raw: dict[str, Any], names: tuple[str, ...], fixed: dict[str, Any]) -> None:
    absent = [name for name in names if raw.get(name) is None]
    if absent:
        raise LoadError(f"config.json names no {absent[0]}")
    for name, value in fixed.items():
        if raw.get(name, value) != value:
            raise LoadError(f"config.json: {name} must be {value!r}, got {raw[name]!r}")


def config_json(config: ModelConfig, stop_ids: list[int]) -> dict[str, Any]:
    """A ``config.json`` in transformers' words that :func:`model_config` reads back."""
    qwen = config.qkv_bias
    return {
        "architectures": ["Qwen2ForCausalLM" if qwen else "LlamaForCausalLM"],
        "model_type": "qwen2" if qwen else "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        "hidden_act": "silu",
        "torch_dtype": "float16",
        "eos_token_id": stop_ids,
        "d2f": {
            "mask_token_id": config.mask_id,
            "logit_shift": config.logit_shift,
            "causal": config.causal,
            "rope_in_float32": config.rope_in_float32,
        },
    }
