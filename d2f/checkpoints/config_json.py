"""``config.json`` in and out: what Llama, Qwen, LLaDA and Dream call the same few numbers.

A setting this package's transformer does not have is refused, never skipped. What transformers has
no field for stands under ``"d2f"``. Knows no files and no weights.
"""

from dataclasses import replace
from math import log
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from d2f.checkpoints.families import CAUSAL_CLASSES, Family, family_of
from d2f.checkpoints.weight_names import LAYOUTS
from d2f.errors import InvalidInput, LoadError, one_line
from d2f.model_files import Fields, read_fields
from d2f.shape import Diffusion, Llama3Rope, ModelConfig, YarnRope

# Dream's config.json keeps Qwen2.5's 131,072 positions; its training went to 2,048.
DREAM_CONTEXT = 2048
NOTHING_GIVEN = Diffusion()
# What transformers takes where config.json of Llama 2 and its kin names none.
ROPE_THETA = 10000.0

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
    beta_fast: Factor | None = None
    beta_slow: Factor | None = None
    attention_factor: Factor | None = None
    truncate: Literal[True] | None = None
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
    grid: Literal["prompt", "start", "remainder"] = "prompt"
    block_size: Size | None = None


class _Transformers(Fields):
    """Llama, Qwen and Dream. A field of one value is one of whose other values none is covered."""

    model_type: str
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
    block_size: Size | None = None
    bd_size: Size | None = None
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


def model_config(raw: dict[str, Any], given: Diffusion = NOTHING_GIVEN) -> ModelConfig:
    """The :class:`ModelConfig` of a ``config.json``.

    Args:
        given: what the catalogue or options say of a diffusion model. A mask token that neither
            they nor the file name is None: the tokenizer may know it.

    Raises:
        LoadError: a field is missing, of another type, or asks for what is not covered; or what is
            given contradicts the file.
    """
    kind = raw.get("model_type")
    try:
        if kind == "llada":
            return _llada_config(read_fields(_Llada, raw, "config.json"), given)
        if isinstance(kind, str) and kind in LAYOUTS:
            return _transformers_config(raw, given)
    except InvalidInput as error:
        raise LoadError(f"config.json: {error}") from error
    got = one_line(repr(kind))
    raise LoadError(f"model_type must be one of {sorted(LAYOUTS)}, got {got}")


def _transformers_config(raw: dict[str, Any], given: Diffusion) -> ModelConfig:
    read = read_fields(_Transformers, raw, "config.json")
    family = family_of(read.model_type, _classes(read))
    layers = read.model_type if family is None else family.layers
    if layers in ("llama", "qwen3"):
        read_fields(_Unbiased, raw, "config.json")
    causal, decoding = _decoding(read, family, given)
    ours, heads = read.d2f or _Ours(), read.num_attention_heads
    theta, scaling = _rope(read)
    length = read.max_position_embeddings
    short = family is not None and family.classes[0] == "DreamModel"
    return ModelConfig(
        vocab_size=read.vocab_size,
        hidden_size=read.hidden_size,
        intermediate_size=read.intermediate_size,
        num_layers=read.num_hidden_layers,
        num_heads=heads,
        num_kv_heads=read.num_key_value_heads or heads,
        head_dim=read.head_dim or read.hidden_size // heads,
        max_length=min(length, DREAM_CONTEXT) if short else length,
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=read.rms_norm_eps,
        qkv_bias=layers == "qwen2",
        qk_norm=layers == "qwen3",
        rope_in_float32=ours.rope_in_float32,
        tied_head=bool(read.tie_word_embeddings),
        logit_shift=bool(decoding.logit_shift),
        causal=causal,
        mask_id=decoding.mask_id,
        grid=decoding.grid or "prompt",
        block_size=decoding.block_size,
    )


def _decoding(
    read: _Transformers, family: Family | None, given: Diffusion
) -> tuple[bool, Diffusion]:
    """Whether it is autoregressive, and how it is decoded."""
    ours = read.d2f or _Ours()
    told = {name: getattr(ours, name) for name in ("logit_shift", "grid", "block_size")}
    own = Diffusion(mask_id=ours.mask_token_id, **told)
    if family is not None and ours.causal is None:
        block = getattr(read, family.block_field) if family.block_field else None
        own = replace(family.decoding, mask_id=read.mask_token_id)
        own = own if block is None else replace(own, block_size=block)
    elif ours.causal or (ours.causal is None and given == NOTHING_GIVEN):
        if ours.causal is None:
            _require_causal(read)
        elif given != NOTHING_GIVEN:
            raise InvalidInput("it is autoregressive, and has no mask token or grid to be given")
        return True, own
    elif ours.causal is None:
        own = Diffusion(mask_id=read.mask_token_id)
    decoding = own.merged(given)
    for name, option in (("logit_shift", "--logit-shift"), ("grid", "--grid")):
        if getattr(decoding, name) is None:
            raise InvalidInput(f"a diffusion model, and it does not say its {name}: give {option}")
    return False, decoding


def _classes(read: _Transformers) -> list[str]:
    """The classes of models that a checkpoint names."""
    # An entry of auto_map is "module.Class", or a list of these.
    mapped = [name for key, name in (read.auto_map or {}).items() if key.startswith("AutoModel")]
    mapped = [name[0] if isinstance(name, list) and name else name for name in mapped]
    return [*(read.architectures or ()), *(str(name).rpartition(".")[2] for name in mapped)]


def _require_causal(read: _Transformers) -> None:
    """``LoadError`` if the checkpoint is of a class that is not known to be autoregressive."""
    for name in _classes(read):
        if name not in CAUSAL_CLASSES:
            raise LoadError(
                f"config.json: {one_line(name)} is no class of models known here, and model_type "
                f"{read.model_type!r} alone does not say how it decodes; of a diffusion model give "
                "the mask token, the logit shift and the grid"
            )
    if read.is_causal is False:
        raise LoadError("config.json: is_causal must be True, got False")


def _llada_config(read: _Llada, given: Diffusion) -> ModelConfig:
    # Rows of the tables; the vocabulary itself may be smaller.
    rows = read.embedding_size or read.vocab_size
    if rows is None:
        raise LoadError("config.json names no embedding_size")
    Diffusion(mask_id=read.mask_token_id, logit_shift=False, grid="prompt").merged(given)
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


def _rope(read: _Transformers) -> tuple[float, Llama3Rope | YarnRope | None]:
    """Base and scaling of the rotary embedding."""
    name = "rope_parameters" if read.rope_parameters else "rope_scaling"
    raw = getattr(read, name) or {}
    # Older files say "type".
    kind = raw.get("rope_type", raw.get("type")) or "default"
    if kind not in ("default", "llama3", "yarn"):
        got = one_line(repr(kind))
        raise LoadError(f"config.json: rope_type must be 'default', 'llama3' or 'yarn', got {got}")
    what = f"config.json: {name}"
    rope = read_fields(_Rope, raw, what)
    theta = rope.rope_theta or read.rope_theta
    if theta is None and read.model_type == "Dream":
        raise LoadError("config.json names no rope_theta")
    if kind == "default":
        return theta or ROPE_THETA, None
    if kind == "yarn":
        return theta or ROPE_THETA, _yarn(rope, what)
    scaled = read_fields(_Llama3, raw, what)
    length = rope.original_max_position_embeddings or read.max_position_embeddings
    return theta or ROPE_THETA, Llama3Rope(**scaled.model_dump(), original_length=length)


def _yarn(rope: _Rope, what: str) -> YarnRope:
    """YaRN's numbers, those left out as in its paper."""
    if rope.factor is None or rope.original_max_position_embeddings is None:
        missing = "factor" if rope.factor is None else "original_max_position_embeddings"
        raise LoadError(f"{what} names no {missing}")
    usual = 0.1 * log(rope.factor) + 1 if rope.factor > 1 else 1.0
    return YarnRope(
        factor=rope.factor,
        beta_fast=rope.beta_fast or 32,
        beta_slow=rope.beta_slow or 1,
        attention_factor=rope.attention_factor or usual,
        original_length=rope.original_max_position_embeddings,
    )


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
            "grid": config.grid,
            "block_size": config.block_size,
        },
    }


def _scaling_json(rope: Llama3Rope | YarnRope | None) -> dict[str, Any]:
    if rope is None:
        return {}
    if isinstance(rope, YarnRope):
        scaling = {name: value for name, value in vars(rope).items() if name != "original_length"}
        scaling["original_max_position_embeddings"] = rope.original_length
        return {"rope_scaling": {"rope_type": "yarn", **scaling}}
    scaling = {
        "rope_type": "llama3",
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor,
        "high_freq_factor": rope.high_freq_factor,
        "original_max_position_embeddings": rope.original_length,
    }
    return {"rope_scaling": scaling}
