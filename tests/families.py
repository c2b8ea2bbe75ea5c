"""Tiny folders of the block-diffusion families, in their originals' key names and config.json.

The fields are those of the published files (SDAR's repository, Fast-dLLM v2's and
Stable-DiffCoder's hub files, dllm's conversions); the sizes and the tokenizer are ours.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from originals import dream_json, rounded, write_folder
from tiny import as_transformers, network

from d2f.nn.transformer import Transformer
from d2f.shape import Diffusion
from d2f.tokenizer import Tokenizer


@dataclass(frozen=True)
class Family:
    """What a tiny folder is made of, and what loading it must find.

    ``given``: what must be given to load it.
    """

    shape: dict[str, Any]
    raw: dict[str, Any]
    shift: bool
    grid: str
    block_size: int | None
    given: Diffusion | None = None


QWEN3 = {"qk_norm": True, "head_dim": 20}
QWEN2 = {"qkv_bias": True, "rope_theta": 1e6}
FAMILIES = {
    "sdar": Family(
        QWEN3,
        {
            "model_type": "sdar",
            "architectures": ["SDARForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration_sdar.SDARConfig",
                "AutoModel": "modeling_sdar.SDARModel",
                "AutoModelForCausalLM": "modeling_sdar.SDARForCausalLM",
            },
            "attention_bias": False,
            "block_size": 4,
            "fuse_cross_entropy": True,
            "mask_token_id": ...,
            "sliding_window": None,
        },
        shift=False,
        grid="start",
        block_size=4,
    ),
    "dream-reasoner": Family(
        QWEN3,
        {
            "model_type": "Dream",
            "architectures": ["DreamForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration_dream.DreamConfig",
                "AutoModelForCausalLM": "modeling_dream.DreamForCausalLM",
            },
            "block_size": 32,
            "mask_token_id": ...,
        },
        shift=False,
        grid="start",
        block_size=32,
    ),
    "stable-diffcoder": Family(
        {"rope_theta": 500_000.0},
        {
            "model_type": "llama",
            "architectures": ["StableDiffcoderForCausalLM"],
            "auto_map": {
                "AutoModelForCausalLM": "modeling_stable_diffcoder.StableDiffcoderForCausalLM"
            },
            "attention_bias": False,
            "mlp_bias": False,
        },
        shift=False,
        grid="start",
        block_size=4,
    ),
    "fast-dllm-v2": Family(
        QWEN2,
        {
            "model_type": "Fast_dLLM_Qwen",
            "architectures": ["Fast_dLLM_QwenForCausalLM"],
            "auto_map": {
                "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
                "AutoModel": "modeling.Fast_dLLM_QwenModel",
                "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
            },
            "bd_size": 32,
            "layer_types": ["full_attention", "full_attention"],
            "use_sliding_window": False,
        },
        shift=True,
        grid="start",
        block_size=32,
    ),
    "a2d-qwen3": Family(
        QWEN3 | {"tied_head": True},
        {
            "model_type": "a2d-qwen3",
            "architectures": ["A2DQwen3LMHeadModel"],
            "auto_map": {"AutoModelForMaskedLM": "modeling_qwen3.A2DQwen3LMHeadModel"},
            "attention_bias": False,
            "layer_types": ["full_attention", "full_attention"],
        },
        shift=False,
        grid="remainder",
        block_size=None,
        given=Diffusion(grid="remainder"),
    ),
    "a2d-qwen2": Family(
        QWEN2 | {"tied_head": True},
        {
            "model_type": "a2d-qwen2",
            "architectures": ["A2DQwen2LMHeadModel"],
            "auto_map": {"AutoModelForMaskedLM": "modeling_qwen2.A2DQwen2LMHeadModel"},
        },
        shift=False,
        grid="remainder",
        block_size=None,
        given=Diffusion(grid="remainder"),
    ),
    "dream": Family(QWEN2, {"mask_token_id": ...}, shift=True, grid="prompt", block_size=None),
}


def write_family(
    name: str,
    folder: Path,
    tokenizer_folder: Path,
    *,
    sharpness: float = 1.0,
    length: int = 128,
    **fields: Any,
) -> Transformer:
    """A random network in a folder as its original would be; ``fields`` are of its config.json."""
    family, tokenizer = FAMILIES[name], Tokenizer(tokenizer_folder)
    shape = {"logit_shift": family.shift, "grid": family.grid, "max_length": length}
    shape |= family.shape
    net = network(640, sharpness=sharpness, mask_id=tokenizer.mask_id, **shape)
    net = rounded(net)
    raw = dream_json(net) | {"mask_token_id": None} | family.raw | fields
    raw = {key: net.config.mask_id if value is ... else value for key, value in raw.items()}
    raw = {key: value for key, value in raw.items() if value is not None} | {
        "head_dim": net.config.head_dim
    }
    state = dict(as_transformers(net).state_dict())
    if net.config.tied_head:
        del state["lm_head.weight"]
        raw["tie_word_embeddings"] = True
    write_folder(folder, state, raw, tokenizer_folder)
    return net
