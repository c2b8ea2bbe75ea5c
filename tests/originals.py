"""Tiny models as LLaDA and Dream publish theirs: key names, ``config.json``, bfloat16 shards.

Names are written out here once more, so that a slip in ``d2f.checkpoints.weight_names`` cannot
hide. :class:`Llada` is a plain network under LLaDA's own module names, with its rotary embedding in
float32.
"""

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import as_transformers
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

from d2f.nn.transformer import Transformer

LLADA_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "q_proj",
    "self_attn.k_proj": "k_proj",
    "self_attn.v_proj": "v_proj",
    "self_attn.o_proj": "attn_out",
    "post_attention_layernorm": "ff_norm",
    "mlp.gate_proj": "ff_proj",
    "mlp.up_proj": "up_proj",
    "mlp.down_proj": "ff_out",
}
LLADA_REST = {
    "model.embed_tokens.weight": "model.transformer.wte.weight",
    "model.norm.weight": "model.transformer.ln_f.weight",
    "lm_head.weight": "model.transformer.ff_out.weight",
}


# config.json of the published models, cut to what decides the architecture.
LLADA_8B: dict[str, Any] = {
    "model_type": "llada",
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "mlp_hidden_size": 12288,
    "vocab_size": 126464,
    "embedding_size": 126464,
    "max_sequence_length": 4096,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "weight_tying": False,
    "include_bias": False,
    "include_qkv_bias": False,
    "mask_token_id": 126336,
}
LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
QWEN_7B: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "attention_bias": False,
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
QWEN3_0_6B = QWEN3_8B | {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "intermediate_size": 3072,
    "tie_word_embeddings": True,
}
DREAM_7B = QWEN_7B | {"model_type": "Dream", "mask_token_id": 151666}


def rounded(net: Transformer) -> Transformer:
    """Weights that bfloat16 holds exactly."""
    for parameter in net.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return net


def llada_state(net: Transformer) -> dict[str, Tensor]:
    """The weights under LLaDA's names."""
    state = {}
    for key, value in as_transformers(net).state_dict().items():
        if key in LLADA_REST:
            state[LLADA_REST[key]] = value
        else:
            _, _, layer, rest = key.split(".", 3)
            part, kind = rest.rsplit(".", 1)
            state[f"model.transformer.blocks.{layer}.{LLADA_LAYER[part]}.{kind}"] = value
    if net.config.tied_head:
        del state["model.transformer.ff_out.weight"]
    return state


def llada_json(net: Transformer, **changes: Any) -> dict[str, Any]:
    config = net.config
    return {
        "architectures": ["LLaDAModelLM"],
        "auto_map": {"AutoModel": "modeling_llada.LLaDAModelLM"},
        "model_type": "llada",
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_type": "llama",
        "d_model": config.hidden_size,
        "embedding_size": config.vocab_size,
        "eos_token_id": 4,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": config.mask_id,
        "max_sequence_length": config.max_length,
        "mlp_hidden_size": config.intermediate_size,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_kv_heads,
        "n_layers": config.num_layers,
        "pad_token_id": 4,
        "rms_norm_eps": config.norm_eps,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": config.rope_theta,
        "scale_logits": False,
        "vocab_size": config.vocab_size,
        "weight_tying": config.tied_head,
    } | changes


def dream_json(net: Transformer, **changes: Any) -> dict[str, Any]:
    config = net.config
    return {
        "architectures": ["DreamModel"],
        "auto_map": {"AutoModel": "modeling_dream.DreamModel"},
        "model_type": "Dream",
        "attention_dropout": 0.0,
        "eos_token_id": 4,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "mask_token_id": config.mask_id,
        "max_position_embeddings": config.max_length,
        "max_window_layers": 28,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "pad_token_id": 4,
        "rms_norm_eps": config.norm_eps,
        "rope_scaling": None,
        "rope_theta": config.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "use_mrope": False,
        "use_sliding_window": False,
        "vocab_size": config.vocab_size,
    } | changes


def write_folder(
    folder: Path,
    state: dict[str, Tensor],
    raw: dict[str, Any],
    tokenizer_folder: Path | None,
    shards: int = 3,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """A folder as downloaded: shards with an index, ``config.json``, a tokenizer if given one."""
    folder.mkdir(parents=True, exist_ok=True)
    if tokenizer_folder is not None:
        copytree(tokenizer_folder, folder, dirs_exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    keys, homes = sorted(state), {}
    for shard in range(shards):
        name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {key: state[key].to(dtype).contiguous() for key in keys[shard::shards]}
        save_file(part, folder / name, metadata={"format": "pt"})
        homes |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 0}, "weight_map": homes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


class LladaBlock(nn.Module):
    """One layer under LLaDA's names."""

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        config, bias = net.config, net.config.qkv_bias
        hidden, wide = config.hidden_size, config.intermediate_size
        self.heads, self.kv_heads, self.dim = config.num_heads, config.num_kv_heads, config.head_dim
        self.attn_norm = LlamaRMSNorm(hidden, config.norm_eps)
        self.ff_norm = LlamaRMSNorm(hidden, config.norm_eps)
        self.q_proj = nn.Linear(hidden, self.heads * self.dim, bias=bias)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=bias)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.dim, bias=bias)
        self.attn_out = nn.Linear(self.heads * self.dim, hidden, bias=False)
        self.ff_proj = nn.Linear(hidden, wide, bias=False)
        self.up_proj = nn.Linear(hidden, wide, bias=False)
        self.ff_out = nn.Linear(wide, hidden, bias=False)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        y = self.attn_norm(x)
        q = self._turned(self.q_proj(y), self.heads, rotary)
        k = self._turned(self.k_proj(y), self.kv_heads, rotary)
        v = self._split(self.v_proj(y), self.kv_heads)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attn_out(seen.transpose(1, 2).flatten(2))
        y = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(y)) * self.up_proj(y))

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, self.dim)).transpose(1, 2)

    def _turned(self, x: Tensor, heads: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Rotated in float32, then cast back."""
        exact = self._split(x, heads).float()
        left, right = exact.chunk(2, dim=-1)
        return (exact * rotary[0] + torch.cat((-right, left), dim=-1) * rotary[1]).to(x.dtype)


class Llada(nn.Module):
    """A network with LLaDA's modules and the weights of one of ours."""

    def __init__(self, net: Transformer) -> None:
        super().__init__()
        config = net.config
        assert not config.tied_head
        self.model = nn.Module()
        self.model.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.hidden_size),
                "blocks": nn.ModuleList(LladaBlock(net) for _ in range(config.num_layers)),
                "ln_f": LlamaRMSNorm(config.hidden_size, config.norm_eps),
                "ff_out": nn.Linear(config.hidden_size, config.vocab_size, bias=False),
            }
        )
        self.load_state_dict(llada_state(net))
        self.requires_grad_(False)
        tables = LlamaRotaryEmbedding(as_transformers(net).config)
        self.tables = tables(torch.zeros(1), torch.arange(config.max_length)[None])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits; ``mask`` is (T, T), True where a row may look."""
        parts = self.model.transformer
        rotary = tuple(table[:, None, : ids.shape[1]] for table in self.tables)
        x = parts["wte"](ids)
        for block in parts["blocks"]:
            x = block(x, rotary, mask)
        return parts["ff_out"](parts["ln_f"](x))
