"""``config.json`` in and out: what Llama, Qwen, LLaDA and Dream call the same few numbers.

A setting this package's transformer does not have is refused, never skipped. What transformers has
no field for stands under ``"d2f"``. Knows no files and no weights.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from d2f.checkpoints.weight_names import LAYOUTS
from d2f.errors import InvalidInput, LoadError, one_line
from d2f.model_files import Fields, read_fields
from d2f.shape import Llama3Rope, ModelConfig

# Dream's config.json keeps Qwen2.5's 131,072 positions; its training went to 2,048.
DREAM_CONTEXT = 2048
# What transformers takes where config.json of Llama 2 and its kin names none.
ROPE_THETA = 10000.0
# Classes of transformers that see only what stands before a token. A checkpoint of any other class,
# such as a diffusion model's, would load all the same, and answer nonsense.
CAUSAL_CLASSES = {
    f"{family}{part}" for family in ("Llama", "Qwen2", "Qwen3") for part in ("ForCausalLM", "Model")
}

# Bounds far above any model: they keep what is computed of these numbers within machine numbers.
Size = Annotated[int, Field(ge=1, lt=2**31)]
Layers = Annotated[int, Field(ge=1, le=2**14)]
Length = Annotated[int, Field(ge=1, le=2**24)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Theta = Annotated[float, Field(ge=1, le=1e30)]
Epsilon = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1e9)]
Off = Literal[False] | None


class _Rope(Fields):
    """``rope_parameters``, older: ``rope_scaling``; of fields unknown here the meaning is too."""

    model_config = ConfigDict(extra="forbid")

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Theta | None = None
    factor: Factor | None = None
    low_freq_factor: Factor | None = None
    high_freq_factor: Factor | None = None
    original_max_position_embeddings: Length | None = None
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] | None = None


class _Llama3(Fields):
    """What ``rope_type: llama3`` does not go without."""

    factor: Factor
    low_freq_factor: Factor
    high_freq_factor: Factor


class _Ours(Fields):
    """The section ``"d2f"``."""

    mask_token_id: TokenId | None = None
    logit_shift: bool = True
    causal: bool | None = None
    rope_in_float32: bool = False


class _Transformers(Fields):
    """Llama, Qwen and Dream. A field of one value is one of whose other values none is covered."""

    model_type: Literal["llama", "qwen2", "qwen3", "Dream"]
    architectures: list[str] | None = None
    auto_map: dict[str, Any] | None = None
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Length
    rms_norm_eps: Epsilon
    tie_word_embeddings: bool | None = None
    rope_theta: Theta | None = None
    rope_parameters: dict[str, Any] | None = None
    rope_scaling: dict[str, Any] | None = None
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] | None = None
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: Literal[False] = False
    use_mrope: Literal[False] = False
    mlp_bias: Off = None
    is_causal: bool | None = None
    layer_types: list[Literal["full_attention"]] | None = None
    mask_token_id: TokenId | None = None
    d2f: _Ours | None = None


class _Unbiased(_Transformers):
    """Llama and Qwen3, where this field is of the attention's output as well."""

    attention_bias: Off = None


class _Llada(Fields):
    """LLaDA, in OLMo's words."""

    d_model: Size
    mlp_hidden_size: Size
    n_layers: Layers
    n_heads: Size
    n_kv_heads: Size | None = None
    multi_query_attention: bool | None = None
    embedding_size: Size | None = None
    vocab_size: Size | None = None
    max_sequence_length: Length
    rms_norm_eps: Epsilon
    rope_theta: Theta
    rope_full_precision: bool = True
    include_qkv_bias: bool | None = None
    weight_tying: bool | None = None
    mask_token_id: TokenId
    block_type: Literal["llama"] = "llama"
    activation_type: Literal["silu"] = "silu"
    layer_norm_type: Literal["rms"] = "rms"
    layer_norm_with_affine: Literal[True] = True
    bias_for_layer_norm: Literal[False] = False
    attention_layer_norm: Literal[False] = False
    include_bias: Literal[False] = False
    rope: Literal[True] = True
    alibi: Literal[False] = False
    scale_logits: Literal[False] = False
    input_emb_norm: Literal[False] = False
    clip_qkv: None = None


def model_config(raw: dict[str, Any]) -> ModelConfig:
    """The :class:`ModelConfig` of a ``config.json``.

    Raises:
        LoadError: a field is missing, of another type, or asks for what is not covered.
    """
    kind = raw.get("model_type")
    try:
        if kind == "llada":
            return _llada_config(read_fields(_Llada, raw, "config.json"))
        if kind in ("llama", "qwen2", "qwen3", "Dream"):
            fields = _Unbiased if kind in ("llama", "qwen3") else _Transformers
            return _transformers_config(read_fields(fields, raw, "config.json"))
    except InvalidInput as error:
        raise LoadError(f"config.json: {error}") from error
    got = one_line(repr(kind))
    raise LoadError(f"model_type must be one of {sorted(LAYOUTS)}, got {got}")


def _transformers_config(read: _Transformers) -> ModelConfig:
    dream = read.model_type == "Dream"
    if dream and read.mask_token_id is None:
        raise LoadError("config.json names no mask_token_id")
    ours, heads = read.d2f or _Ours(), read.num_attention_heads
    if not dream and ours.causal is None:
        _require_causal(read)
    theta, scaling = _rope(read)
    length = read.max_position_embeddings
    return ModelConfig(
        vocab_size=read.vocab_size,
        hidden_size=read.hidden_size,
        intermediate_size=read.intermediate_size,
        num_layers=read.num_hidden_layers,
        num_heads=heads,
        num_kv_heads=read.num_key_value_heads or heads,
        head_dim=read.head_dim or read.hidden_size // heads,
        max_length=min(length, DREAM_CONTEXT) if dream else length,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=read.rms_norm_eps,
        qkv_bias=read.model_type in ("qwen2", "Dream"),
        qk_norm=read.model_type == "qwen3",
        rope_in_float32=ours.rope_in_float32,
        tied_head=bool(read.tie_word_embeddings),
        logit_shift=ours.logit_shift,
        causal=not dream if ours.causal is None else ours.causal,
        mask_id=read.mask_token_id if dream else ours.mask_token_id,
    )


def _require_causal(read: _Transformers) -> None:
    """``LoadError`` if the checkpoint is of a class that is not known to be autoregressive."""
    # An entry is "module.Class", or a list of these.
    named = [name for key, name in (read.auto_map or {}).items() if key.startswith("AutoModel")]
    classes = [one_line(str(name).rpartition(".")[2]) for name in named]
    for name in (*(read.architectures or ()), *classes):
        if name not in CAUSAL_CLASSES:
            raise LoadError(
                f"config.json: {one_line(name)} is no class of autoregressive models known here "
                f"({', '.join(sorted(CAUSAL_CLASSES))}); model_type {read.model_type!r} alone does "
                "not say how it decodes"
            )
    if read.is_causal is False:
        raise LoadError("config.json: is_causal must be True, got False")


def _llada_config(read: _Llada) -> ModelConfig:
    # Rows of the tables; the vocabulary itself may be smaller.
    rows = read.embedding_size or read.vocab_size
    if rows is None:
        raise LoadError("config.json names no embedding_size")
    return ModelConfig(
        vocab_size=rows,
        hidden_size=read.d_model,
        intermediate_size=read.mlp_hidden_size,
        num_layers=read.n_layers,
        num_heads=read.n_heads,
        num_kv_heads=read.n_kv_heads or (1 if read.multi_query_attention else read.n_heads),
        head_dim=read.d_model // read.n_heads,
        max_length=read.max_sequence_length,
        rope_theta=read.rope_theta,
        norm_eps=read.rms_norm_eps,
        qkv_bias=bool(read.include_qkv_bias),
        rope_in_float32=read.rope_full_precision,
        tied_head=bool(read.weight_tying),
        logit_shift=False,
        causal=False,
        mask_id=read.mask_token_id,
    )


def _rope(read: _Transformers) -> tuple[float, Llama3Rope | None]:
    """Base and scaling of the rotary embedding."""
    name = "rope_parameters" if read.rope_parameters else "rope_scaling"
    raw = getattr(read, name) or {}
    # Older files say "type".
    kind = raw.get("rope_type", raw.get("type")) or "default"
    if kind not in ("default", "llama3"):
        got = one_line(repr(kind))
        raise LoadError(f"config.json: rope_type must be 'default' or 'llama3', got {got}")
    what = f"config.json: {name}"
    rope = read_fields(_Rope, raw, what)
    theta = rope.rope_theta or read.rope_theta
    if theta is None and read.model_type == "Dream":
        raise LoadError("config.json names no rope_theta")
    if kind == "default":
        return theta or ROPE_THETA, None
    scaled = read_fields(_Llama3, raw, what)
    length = rope.original_max_position_embeddings or read.max_position_embeddings
    return theta or ROPE_THETA, Llama3Rope(**scaled.model_dump(), original_length=length)


def config_json(config: ModelConfig, stop_ids: list[int]) -> dict[str, Any]:
    """A ``config.json`` in transformers' words that :func:`model_config` reads back.

    Raises:
        InvalidInput: no class of transformers has both q/k/v biases and norms of heads.
    """
    if config.qkv_bias and config.qk_norm:
        raise InvalidInput("a model with both qkv_bias and qk_norm cannot be saved")
    family = "Qwen2" if config.qkv_bias else "Qwen3" if config.qk_norm else "Llama"
    return {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_theta": config.rope_theta,
        **_scaling_json(config.rope_scaling),
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


def _scaling_json(rope: Llama3Rope | None) -> dict[str, Any]:
    if rope is None:
        return {}
    scaling = {
        "rope_type": "llama3",
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_length,
    }
    return {"rope_scaling": scaling}
