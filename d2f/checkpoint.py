"""Model folders in the ecosystem's own format: names and folders in, :class:`Model` out.

A folder holds ``config.json``, ``model.safetensors`` and the tokenizer's files, with transformers'
key names (``LlamaForCausalLM`` / ``Qwen2ForCausalLM``). What transformers has no field for stands
under ``"d2f"`` in ``config.json``: ``mask_token_id``, ``logit_shift``, ``causal``. PEFT's LoRA
adapters are merged in float32 at load. Every key must be used and every parameter filled: a key
left over or missing is an error.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from d2f.model import ModelConfig, Transformer
from d2f.registry import model_folder
from d2f.tokenizer import Tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
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
# Parts of one fused product, in row order.
FUSED = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
}


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded network with its tokenizer; what every decoder takes."""

    name: str
    net: Transformer
    tokenizer: Tokenizer

    @property
    def config(self) -> ModelConfig:
        return self.net.config

    @property
    def device(self) -> torch.device:
        return self.net.embed_tokens.weight.device

    @property
    def dtype(self) -> str:
        return str(self.net.embed_tokens.weight.dtype).removeprefix("torch.")


def load_model(
    name_or_folder: str | Path,
    *,
    adapter: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str = "float32",
) -> Model:
    """Load a model of the catalogue by name, or any model folder.

    Args:
        adapter: folder of a PEFT LoRA adapter, merged in float32 before the cast to ``dtype``.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        ValueError: unknown name, unsupported architecture, missing or left-over keys.
        FileNotFoundError: a file of the folder is missing.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {sorted(DTYPES)}, got {dtype!r}")
    folder = model_folder(name_or_folder)
    raw = _read_json(folder / "config.json")
    config = model_config(raw)
    weights = _read_weights(folder)
    if adapter is not None:
        weights = merge_lora(weights, Path(adapter))
    with torch.device("meta"):
        net = Transformer(config)
    state = {key: value.to(device, DTYPES[dtype]) for key, value in fuse(weights, config).items()}
    _load_strictly(net, state, folder)
    stops = raw.get("eos_token_id")
    stops = [] if stops is None else stops
    tokenizer = Tokenizer(folder, stops if isinstance(stops, list) else [stops])
    return Model(Path(name_or_folder).name, net.eval().requires_grad_(False), tokenizer)


def save_model(net: Transformer, folder: Path | str, stop_ids: list[int]) -> None:
    """Write ``config.json`` and ``model.safetensors`` (float16) that :func:`load_model` reads.

    The weights are also transformers' ``LlamaForCausalLM`` (``Qwen2ForCausalLM`` with biases).
    Files are replaced whole, so that an interrupted save loses nothing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.half().contiguous() for key, value in split(net).items()}
    text = json.dumps(config_json(net.config, stop_ids), indent=2) + "\n"
    (folder / "config.json.part").write_text(text)
    save_file(state, folder / "model.safetensors.part", metadata={"format": "pt"})
    for name in ("model.safetensors", "config.json"):
        (folder / f"{name}.part").replace(folder / name)


def model_config(raw: dict[str, Any]) -> ModelConfig:
    """The :class:`ModelConfig` of a ``config.json``."""
    kind = raw.get("model_type")
    if kind not in ("llama", "qwen2"):
        raise ValueError(f"model_type must be 'llama' or 'qwen2', got {kind!r}")
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type must be 'default', got {rope['rope_type']!r}")
    theta = rope.get("rope_theta", raw.get("rope_theta"))
    if theta is None:
        raise ValueError("config.json names no rope_theta")
    absent = [name for name in REQUIRED if name not in raw]
    if absent:
        raise ValueError(f"config.json names no {absent[0]}")
    ours = raw.get("d2f", {})
    heads = raw["num_attention_heads"]
    return ModelConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        intermediate_size=raw["intermediate_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        max_length=raw["max_position_embeddings"],
        rope_theta=theta,
        norm_eps=raw["rms_norm_eps"],
        qkv_bias=kind == "qwen2",
        rope_in_float32=ours.get("rope_in_float32", False),
        tied_head=bool(raw.get("tie_word_embeddings", False)),
        logit_shift=ours.get("logit_shift", True),
        causal=ours.get("causal", True),
        mask_id=ours.get("mask_token_id"),
    )


def config_json(config: ModelConfig, stop_ids: list[int]) -> dict[str, Any]:
    """Inverse of :func:`model_config`, in transformers' words."""
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


def fuse(weights: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Transformers' key names to this package's: q/k/v and gate/up rows stacked."""
    state = {key.removeprefix("model."): value for key, value in weights.items()}
    for layer in range(config.num_layers):
        for whole, parts in FUSED.items():
            for kind in ("weight", "bias"):
                names = [f"layers.{layer}.{part}.{kind}" for part in parts]
                if all(name in state for name in names):
                    rows = [state.pop(name) for name in names]
                    state[f"layers.{layer}.{whole}.{kind}"] = torch.cat(rows)
    if config.tied_head and "embed_tokens.weight" in state:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    return state


def split(net: Transformer) -> dict[str, Tensor]:
    """Inverse of :func:`fuse`: the network's weights under transformers' key names."""
    config = net.config
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    sizes = {
        "self_attn.qkv_proj": [q, kv, kv],
        "mlp.gate_up_proj": [config.intermediate_size] * 2,
    }
    state: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        whole = next((name for name in FUSED if f".{name}." in key), None)
        if whole is not None:
            for part, rows in zip(FUSED[whole], value.split(sizes[whole]), strict=True):
                state["model." + key.replace(whole, part)] = rows
        elif key != "lm_head.weight":
            state["model." + key] = value
        elif not config.tied_head:
            state[key] = value
    return state


def merge_lora(weights: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Add a PEFT LoRA adapter's ``alpha / r * B @ A`` to its target weights, in float32.

    Raises:
        ValueError: an adapter key has no partner or no target in ``weights``, or the adapter is of
            a kind this merge does not cover.
    """
    raw = _read_json(folder / "adapter_config.json")
    _require_plain_lora(raw)
    rank = raw["r"]
    scale = raw["lora_alpha"] / (rank**0.5 if raw.get("use_rslora") else rank)
    adapter = load_file(folder / "adapter_model.safetensors")
    merged = dict(weights)
    for key in sorted(adapter):
        prefix, found, rest = key.removeprefix("base_model.model.").partition(".lora_")
        target = f"{prefix}.weight"
        partner = f"base_model.model.{prefix}.lora_{'B' if rest == 'A.weight' else 'A'}.weight"
        known = found and rest in ("A.weight", "B.weight")
        if not known or target not in weights or partner not in adapter:
            raise ValueError(f"adapter key {key!r} in {folder} fits no weight of the base model")
        if rest == "A.weight":
            delta = scale * (adapter[partner].float() @ adapter[key].float())
            merged[target] = weights[target].float() + delta
    return merged


def _require_plain_lora(raw: dict[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise ValueError(f"adapter peft_type must be 'LORA', got {raw.get('peft_type')!r}")
    if raw.get("alpha_pattern") or raw.get("rank_pattern"):
        raise ValueError("adapters with ranks or alphas per module are not supported")
    if raw.get("use_dora") or raw.get("bias", "none") != "none" or raw.get("fan_in_fan_out"):
        raise ValueError("only plain LoRA adapters (no DoRA, bias or fan_in_fan_out) are supported")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    return json.loads(path.read_text())


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(_read_json(index)["weight_map"].values()))
    weights: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing")
        weights.update(load_file(folder / name))
    return weights


def _load_strictly(net: Transformer, state: dict[str, Tensor], folder: Path) -> None:
    expected = set(net.state_dict())
    missing, unused = sorted(expected - set(state)), sorted(set(state) - expected)
    if missing or unused:
        raise ValueError(
            f"weights of {folder} do not fit its config.json: "
            f"missing {missing[:4]}, left over {unused[:4]}"
        )
    for key, parameter in net.state_dict().items():
        if state[key].shape != parameter.shape:
            raise ValueError(
                f"weights of {folder} do not fit its config.json: "
                f"{key} is {tuple(state[key].shape)}, not {tuple(parameter.shape)}"
            )
    net.load_state_dict(state, assign=True)
    if net.config.tied_head:
        net.lm_head.weight = net.embed_tokens.weight
