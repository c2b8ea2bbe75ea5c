"""The smallest real models: two layers, random weights, confidences anywhere from 0.05 to 1."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from d2f.nn.cache import KVCache
from d2f.nn.transformer import HeadNorm, RMSNorm, Transformer
from d2f.shape import ModelConfig

SHAPE: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 12,
    "max_length": 128,
    "rope_theta": 500.0,
}


class Watched(Transformer):
    """A network that keeps its caches and the windows it forwards, for tests to see."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.caches: list[KVCache] = []
        self.windows: list[tuple[int, int]] = []

    def new_cache(self, capacity: int) -> KVCache:
        self.caches.append(super().new_cache(capacity))
        return self.caches[-1]

    def forward(
        self,
        ids: Tensor,
        visible_end: Tensor | None,
        cache: KVCache | None = None,
        start: int = 0,
        wanted: Tensor | None = None,
    ) -> Tensor:
        self.windows.append((start, start + ids.shape[1]))
        return super().forward(ids, visible_end, cache, start, wanted)


def network(vocab_size: int, *, seed: int = 0, sharpness: float = 5.0, **changes: Any) -> Watched:
    """A random network; ``sharpness`` is the standard deviation of its logits."""
    net = Watched(ModelConfig(vocab_size=vocab_size, **SHAPE | changes))
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0, module.in_features**-0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.5, generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.data.normal_(0, 1, generator=generator)
        elif isinstance(module, (RMSNorm, HeadNorm)):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    for layer in net.layers:
        # Attention that tells positions apart and outweighs a row's own token: masks differ.
        layer.self_attn.qkv_proj.weight.data.mul_(1.5)
        layer.self_attn.o_proj.weight.data.mul_(3)
    net.lm_head.weight.data.mul_(sharpness)
    return net.eval().requires_grad_(False)


def as_transformers(net: Transformer) -> PreTrainedModel:
    """The same weights, copied one by one into transformers' Llama, Qwen2 or Qwen3 class."""
    config = net.config
    settings = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": "sdpa",
    }
    if config.qkv_bias:
        other: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**settings))
    elif config.qk_norm:
        other = Qwen3ForCausalLM(Qwen3Config(**settings))
    else:
        other = LlamaForCausalLM(LlamaConfig(**settings))
    other = other.eval().requires_grad_(False)
    other.model.embed_tokens.weight.copy_(net.embed_tokens.weight)
    other.model.norm.weight.copy_(net.norm.weight)
    other.lm_head.weight.copy_(net.lm_head.weight)
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    for ours, theirs in zip(net.layers, other.model.layers, strict=True):
        attention, fused = theirs.self_attn, ours.self_attn.qkv_proj
        for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
            rows = getattr(fused, kind)
            getattr(attention.q_proj, kind).copy_(rows[:q])
            getattr(attention.k_proj, kind).copy_(rows[q : q + kv])
            getattr(attention.v_proj, kind).copy_(rows[q + kv :])
        if config.qk_norm:
            norms = ours.self_attn.qk_norm.weight
            attention.q_norm.weight.copy_(norms[: config.head_dim])
            attention.k_norm.weight.copy_(norms[config.head_dim :])
        attention.o_proj.weight.copy_(ours.self_attn.o_proj.weight)
        gate_up = ours.mlp.gate_up_proj.weight
        theirs.mlp.gate_proj.weight.copy_(gate_up[: config.intermediate_size])
        theirs.mlp.up_proj.weight.copy_(gate_up[config.intermediate_size :])
        theirs.mlp.down_proj.weight.copy_(ours.mlp.down_proj.weight)
        theirs.input_layernorm.weight.copy_(ours.input_layernorm.weight)
        theirs.post_attention_layernorm.weight.copy_(ours.post_attention_layernorm.weight)
    return other
