"""A Hugging Face hub cache of tiny models under the true ids of the published ones.

What is in it is as the originals have it, as far as that is known: the layout of the cache, key
names, shards, bfloat16, every field of ``config.json``, the kind and the files of the tokenizer,
its special tokens and chat format, and code that must never run. Only sizes and weights are not.
"""

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from families import write_family
from huggingface_hub import constants
from originals import dream_json, llada_json, llada_state, rounded, write_folder
from safetensors.torch import save_file
from tiny import as_transformers, network
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from d2f.catalogue.entry import Published, Repo
from d2f.catalogue.published import PUBLISHED
from d2f.nn.transformer import Transformer

MAIN = "89abcdef0123456789abcdef0123456789abcdef"
UNKNOWN_ROWS = 37
CODE = "raise SystemExit('code of a checkpoint ran')\n"
HEADERS = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}"
    "<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
)
# As an expression: Jinja drops a newline that ends a template.
ANSWER = "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLADA_TOKENS = (
    "<|startoftext|>",
    "<|endoftext|>",
    "[CLS]",
    "[gMASK]",
    "<|reserved_token_0|>",
    "<|mdm_mask|>",
    "<role>",
    "</role>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<tool_call>")
DREAM_TOKENS = (*QWEN_TOKENS, "<|beginoftext|>", "<|mask|>")
NOT_SPECIAL = ("<tool_call>",)
# What makes random models tiny and of the right kind; contexts are the originals'.
LLADA: dict[str, Any] = {"num_kv_heads": 4, "rope_theta": 500_000.0, "max_length": 4096}
LLAMA: dict[str, Any] = {"rope_theta": 500_000.0, "max_length": 8192, "causal": True}
QWEN: dict[str, Any] = {"rope_theta": 1e6, "max_length": 131_072, "qkv_bias": True}


class Vocabulary:
    """A byte-level BPE of a few hundred words, and added tokens behind it."""

    def __init__(self, tokenizer_folder: Path, added: Sequence[str]) -> None:
        raw = json.loads((tokenizer_folder / "tokenizer.json").read_text())
        special = {token["content"] for token in raw["added_tokens"]}
        words = [word for word in raw["model"]["vocab"] if word not in special]
        self.words = {word: index for index, word in enumerate(words)}
        self.merges = [
            tuple(merge.split(" ") if isinstance(merge, str) else merge)
            for merge in raw["model"]["merges"]
        ]
        self.added = {token: len(words) + index for index, token in enumerate(added)}

    def __len__(self) -> int:
        return len(self.words) + len(self.added)

    def decoder(self) -> dict[str, Any]:
        """``added_tokens_decoder`` of a tokenizer_config.json."""
        flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        return {
            str(index): {"content": token, **flags, "special": token not in NOT_SPECIAL}
            for token, index in self.added.items()
        }

    def write_fast(self, folder: Path) -> None:
        """``tokenizer.json``."""
        fast = Tokenizer(BPE(self.words, self.merges))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        for token in self.added:
            (fast.add_tokens if token in NOT_SPECIAL else fast.add_special_tokens)([token])
        fast.save(str(folder / "tokenizer.json"))

    def write_slow(self, folder: Path) -> None:
        """``vocab.json`` and ``merges.txt``."""
        (folder / "vocab.json").write_text(json.dumps(self.words))
        lines = [" ".join(merge) for merge in self.merges]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n")


def write_json(folder: Path, **files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def random_network(words: Vocabulary, stops: Sequence[str], mask: str | None, **shape: Any):
    """A random network in bfloat16 that stops now and then.

    Its mask token and rows without a token are by far what it likes most: they must be forbidden.
    """
    mask_id = None if mask is None else words.added[mask]
    net = network(len(words) + UNKNOWN_ROWS, mask_id=mask_id, norm_eps=1e-5, **shape)
    # One number of the hidden state is the same everywhere, and the head reads it.
    net.embed_tokens.weight.data[:, 0] = 1
    for layer in net.layers:
        layer.self_attn.o_proj.weight.data[0] = 0
        layer.mlp.down_proj.weight.data[0] = 0
    head = net.lm_head.weight.data
    for token in stops:
        head[words.added[token], 0] += 40
    head[len(words) :, 0] += 1000
    if mask_id is not None:
        head[mask_id, 0] += 1000
    return rounded(net)


def write_llada(folder: Path, tokenizer_folder: Path) -> Transformer:
    words = Vocabulary(tokenizer_folder, LLADA_TOKENS)
    net = random_network(words, ["<|eot_id|>"], "<|mdm_mask|>", **LLADA)
    ends = words.added["<|endoftext|>"]
    raw = llada_json(net, eos_token_id=ends, pad_token_id=ends) | {
        "alibi_bias_max": 8.0,
        "attention_layer_norm_with_affine": True,
        "block_group_size": 1,
        "embedding_dropout": 0.0,
        "init_cutoff_factor": None,
        "init_device": "meta",
        "init_fn": "mitchell",
        "init_std": 0.02,
        "precision": "amp_bf16",
        "residual_dropout": 0.0,
        "transformers_version": "4.46.3",
        "use_cache": False,
    }
    write_folder(folder, llada_state(net), raw, None, shards=6)
    words.write_fast(folder)
    named = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "cls_token": "[CLS]"}
    write_json(
        folder,
        special_tokens_map=named | {"gmask_token": "[gMASK]", "pad_token": "<|endoftext|>"},
        tokenizer_config=named
        | {
            "add_bos_token": False,
            "add_eos_token": False,
            "added_tokens_decoder": words.decoder(),
            "additional_special_tokens": ["<role>", "</role>"],
            # With an open answer whether it is asked for or not.
            "chat_template": HEADERS + ANSWER,
            "clean_up_tokenization_spaces": False,
            "fast_tokenizer": True,
            "gmask_token": "[gMASK]",
            "merges_file": None,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 10**30,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
            "trust_remote_code": True,
            "vocab_file": None,
        },
    )
    for name in ("configuration_llada.py", "modeling_llada.py"):
        (folder / name).write_text(CODE)
    return net


def write_dream(folder: Path, tokenizer_folder: Path) -> Transformer:
    words = Vocabulary(tokenizer_folder, DREAM_TOKENS)
    net = random_network(words, ["<|im_end|>"], "<|mask|>", **QWEN, logit_shift=True)
    ends, begins = words.added["<|endoftext|>"], words.added["<|beginoftext|>"]
    raw = dream_json(net, eos_token_id=ends, pad_token_id=ends) | {
        "auto_map": {
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        },
        "bos_token_id": begins,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.2",
        "use_cache": True,
    }
    write_folder(folder, dict(as_transformers(net).state_dict()), raw, None, shards=4)
    words.write_slow(folder)
    named = {
        "bos_token": "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "mask_token": "<|mask|>",
        "pad_token": "<|endoftext|>",
    }
    write_json(
        folder,
        added_tokens=words.added,
        special_tokens_map=named | {"additional_special_tokens": ["<|beginoftext|>", "<|mask|>"]},
        tokenizer_config=named
        | {
            "add_prefix_space": False,
            "added_tokens_decoder": words.decoder(),
            "additional_special_tokens": ["<|beginoftext|>", "<|mask|>"],
            "auto_map": {"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]},
            "chat_template": CHATML,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "model_max_length": 131072,
            "split_special_tokens": False,
            "tokenizer_class": "DreamTokenizer",
            "unk_token": None,
        },
    )
    for name in ("configuration_dream.py", "modeling_dream.py", "tokenization_dream.py"):
        (folder / name).write_text(CODE)
    return net


def causal_json(net: Transformer, kind: str, **changes: Any) -> dict[str, Any]:
    """``config.json`` as transformers wrote it for Llama and Qwen2."""
    config = net.config
    return {
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_length,
        "model_type": kind,
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "num_key_value_heads": config.num_kv_heads,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": config.vocab_size,
    } | changes


def write_llama(folder: Path, tokenizer_folder: Path) -> None:
    words = Vocabulary(tokenizer_folder, LLAMA_TOKENS)
    net = random_network(words, ["<|eot_id|>"], None, **LLAMA, logit_shift=True)
    begins, ends, turn = (words.added[LLAMA_TOKENS[index]] for index in (0, 1, 5))
    raw = causal_json(net, "llama", bos_token_id=begins, eos_token_id=turn) | {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "transformers_version": "4.40.0.dev0",
    }
    write_folder(folder, dict(as_transformers(net).state_dict()), raw, None, shards=4)
    words.write_fast(folder)
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    write_json(
        folder,
        generation_config={"bos_token_id": begins, "eos_token_id": [ends, turn], "top_p": 0.9},
        special_tokens_map=named,
        tokenizer_config=named
        | {
            "added_tokens_decoder": words.decoder(),
            "chat_template": f"{HEADERS}{{% if add_generation_prompt %}}{ANSWER}{{% endif %}}",
            "clean_up_tokenization_spaces": True,
            "model_input_names": ["input_ids", "attention_mask"],
            "model_max_length": 10**30,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def write_qwen(folder: Path, tokenizer_folder: Path, end: str) -> None:
    words = Vocabulary(tokenizer_folder, QWEN_TOKENS)
    net = random_network(words, ["<|im_end|>"], None, **QWEN, logit_shift=True, causal=True)
    text = words.added["<|endoftext|>"]
    raw = causal_json(net, "qwen2", bos_token_id=text, eos_token_id=words.added[end]) | {
        "architectures": ["Qwen2ForCausalLM"],
        "max_window_layers": 28,
        "sliding_window": 131072,
        "transformers_version": "4.40.1",
        "use_mrope": False,
        "use_sliding_window": False,
    }
    write_folder(folder, dict(as_transformers(net).state_dict()), raw, None, shards=4)
    words.write_fast(folder)
    words.write_slow(folder)
    write_json(
        folder,
        generation_config={"bos_token_id": text, "do_sample": False, "eos_token_id": text},
        tokenizer_config={
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": words.decoder(),
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|object_ref_start|>"],
            "bos_token": None,
            "chat_template": CHATML,
            "clean_up_tokenization_spaces": False,
            "eos_token": end,
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def write_adapter(
    folder: Path, net: Transformer, base: str, layer: str, targets: list[str]
) -> None:
    """A random LoRA adapter of rank 32; ``targets`` are q, k, v and the attention's output."""
    folder.mkdir()
    config, hidden = net.config, net.config.hidden_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes = dict(zip(targets, ((q, hidden), (kv, hidden), (kv, hidden), (hidden, q)), strict=True))
    generator = torch.Generator().manual_seed(9)
    state = {}
    for index in range(config.num_layers):
        for target, (rows, columns) in shapes.items():
            module = f"base_model.model.{layer.format(index)}{target}"
            for side, shape in (("A", (32, columns)), ("B", (rows, 32))):
                value = torch.randn(shape, generator=generator) * 0.05
                state[f"{module}.lora_{side}.weight"] = value
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(
        folder,
        adapter_config={
            "alpha_pattern": {},
            "auto_mapping": None,
            "base_model_name_or_path": base,
            "bias": "none",
            "exclude_modules": None,
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "layer_replication": None,
            "layers_pattern": None,
            "layers_to_transform": None,
            "loftq_config": {},
            "lora_alpha": 32,
            "lora_bias": False,
            "lora_dropout": 0.1,
            "megatron_core": "megatron.core",
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": 32,
            "rank_pattern": {},
            "revision": None,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": False,
        },
    )


def put(cache: Path, repo: Repo, folder: Path) -> None:
    """A folder as a downloaded snapshot of a repository."""
    home = cache / f"models--{repo.id.replace('/', '--')}"
    commit = MAIN if repo.revision == "main" else repo.revision
    for place in (home / "blobs", home / "refs", home / "snapshots" / commit):
        place.mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    for path in folder.iterdir():
        blob = home / "blobs" / sha256(path.read_bytes()).hexdigest()
        path.rename(blob)
        link = home / "snapshots" / commit / path.name
        link.symlink_to(os.path.relpath(blob, link.parent))


def write_cache(root: Path, tokenizer_folder: Path) -> Path:
    """All repositories of the published pairs; the cache's folder."""
    cache, work = root / "hub", root / "work"

    def model(name: str) -> tuple[Published, Path]:
        return PUBLISHED[name], work / name

    work.mkdir()
    for name, write, layer, out in (
        ("d2f-llada-8b-instruct", write_llada, "model.transformer.blocks.{}.", "attn_out"),
        ("d2f-dream-7b-base", write_dream, "model.layers.{}.self_attn.", "o_proj"),
        ("d2f-dream-7b-instruct", write_dream, "model.layers.{}.self_attn.", "o_proj"),
    ):
        known, folder = model(name)
        net = write(folder, tokenizer_folder)
        assert known.adapter is not None
        targets = ["q_proj", "k_proj", "v_proj", out]
        write_adapter(work / f"{name}-lora", net, known.repo.id, layer, targets)
        put(cache, known.repo, folder)
        put(cache, known.adapter.repo, work / f"{name}-lora")
    known, folder = model("llama-3-8b-instruct")
    write_llama(folder, tokenizer_folder)
    put(cache, known.repo, folder)
    for name, end in (("qwen2.5-7b", "<|endoftext|>"), ("qwen2.5-7b-instruct", "<|im_end|>")):
        known, folder = model(name)
        write_qwen(folder, tokenizer_folder, end)
        put(cache, known.repo, folder)
    write_block_models(cache, work, tokenizer_folder)
    return cache


# Models of blocks that the cache has, by the families of tests/families.py, and their partners'
# switches.
BLOCK_MODELS = {
    "qwen2.5-coder-0.5b-bd3lm": ("a2d-qwen2", {"qkv_bias": True}),
    "qwen3-0.6b-bd3lm": ("a2d-qwen3", {"qk_norm": True}),
    "sdar-1.7b-chat": ("sdar", {"qk_norm": True}),
}


def write_block_models(cache: Path, work: Path, tokenizer_folder: Path) -> None:
    """Models of blocks and their partners, with the embedded models' tokenizer."""
    for name, (family, switches) in BLOCK_MODELS.items():
        known = PUBLISHED[name]
        write_family(family, work / name, tokenizer_folder, sharpness=5, length=1024)
        put(cache, known.repo, work / name)
        assert known.partner is not None
        partner = network(640, causal=True, logit_shift=True, max_length=1024, **switches)
        kind = "qwen3" if "qk_norm" in switches else "qwen2"
        raw = causal_json(partner, kind, head_dim=partner.config.head_dim)
        raw["architectures"] = [f"{kind.title()}ForCausalLM"]
        state = dict(as_transformers(partner).state_dict())
        write_folder(work / known.partner, state, raw, tokenizer_folder)
        put(cache, PUBLISHED[known.partner].repo, work / known.partner)


def use_cache(patch: pytest.MonkeyPatch, cache: Path) -> None:
    """What HF_HUB_CACHE and HF_HUB_OFFLINE=1 do; the library reads them when it is imported."""
    patch.setattr(constants, "HF_HUB_CACHE", str(cache))
    patch.setattr(constants, "HF_HUB_OFFLINE", True)
    patch.setattr("d2f.checkpoints.hub.get_token", lambda: None)
