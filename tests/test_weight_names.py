"""Key maps name every weight of the published checkpoints, and every row of ours, exactly once."""

from typing import Any

import pytest
import torch
from originals import DREAM_7B, LLADA_8B, LLAMA_3_8B, QWEN3_0_6B, QWEN3_8B, QWEN_7B, llada_state
from tiny import as_transformers, network

from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.config_json import model_config
from d2f.checkpoints.weight_names import LAYOUTS, LLADA, TRANSFORMERS, Layout, key_map
from d2f.nn.transformer import Transformer
from d2f.shape import ModelConfig

FULL = {
    "d2f-llada-8b-instruct": (LLADA_8B, 8_015_581_184, 291),
    "llama-3-8b-instruct": (LLAMA_3_8B, 8_030_261_248, 291),
    "d2f-dream-7b-base": (DREAM_7B, 7_615_616_512, 339),
    "qwen2.5-7b": (QWEN_7B, 7_615_616_512, 339),
}


# The published numbers of weights and of keys, embedding counted once where the head is tied.
UNLISTED = {
    "qwen3-0.6b": (QWEN3_0_6B, 596_049_920, 310),
    "qwen3-8b": (QWEN3_8B, 8_190_735_360, 399),
}


CHANGES: list[dict[str, Any]] = [
    {},
    {"tied_head": True},
    {"qkv_bias": True},
    {"num_kv_heads": 1, "head_dim": 20},
    {"qk_norm": True, "head_dim": 20},
]


def on_meta(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


def filled(config: ModelConfig, layout: Layout) -> dict[str, list[slice]]:
    rows: dict[str, list[slice]] = {}
    for slot in key_map(config, layout).values():
        rows.setdefault(slot.key, []).append(slot.rows)
    return rows


@pytest.mark.parametrize("name", FULL)
def test_full_size_models_have_the_published_sizes_and_consume_every_key(name: str) -> None:
    raw, parameters, keys = FULL[name]
    config = model_config(raw)
    net, slots = on_meta(config), key_map(config, LAYOUTS[raw["model_type"]])
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert len(slots) == keys
    assert sum(torch.Size(slot.shape).numel() for slot in slots.values()) == parameters
    published = PUBLISHED[name]
    assert published.shape.parameters == parameters
    assert all(getattr(config, field) == value for field, value in vars(published.shape).items())
    assert config.causal == (published.decoder == "ar")


@pytest.mark.parametrize("name", UNLISTED)
def test_qwen3_has_the_published_sizes(name: str) -> None:
    raw, parameters, keys = UNLISTED[name]
    config = model_config(raw)
    slots = key_map(config, LAYOUTS["qwen3"])
    assert config.parameters == parameters
    assert sum(torch.Size(slot.shape).numel() for slot in slots.values()) == parameters
    assert len(slots) == keys
    assert slots["model.layers.7.self_attn.k_norm.weight"].rows == slice(128, 256)


@pytest.mark.parametrize("name", ["d2f-llada-8b-instruct", "d2f-dream-7b-base"])
def test_full_size_keys_are_the_published_ones(name: str) -> None:
    raw = FULL[name][0]
    kind = raw["model_type"]
    if kind == "llada":
        rest = ["wte", "ln_f", "ff_out"]
        parts = "attn_norm ff_norm q_proj k_proj v_proj attn_out ff_proj up_proj ff_out".split()
        expected = {f"model.transformer.{part}.weight" for part in rest} | {
            f"model.transformer.blocks.{layer}.{part}.weight"
            for layer in range(32)
            for part in parts
        }
    else:
        expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
        parts = [f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
        parts += [f"self_attn.{part}_proj.{kind}" for part in "qkv" for kind in ("weight", "bias")]
        parts += ["self_attn.o_proj.weight", "input_layernorm.weight"]
        parts += ["post_attention_layernorm.weight"]
        expected |= {f"model.layers.{layer}.{part}" for layer in range(28) for part in parts}
    assert key_map(model_config(raw), LAYOUTS[kind]).keys() == expected


@pytest.mark.parametrize(
    ("layout", "changes"),
    # No model of LLaDA's layout has norms of heads.
    [
        (layout, changes)
        for layout in (TRANSFORMERS, LLADA)
        for changes in CHANGES
        if layout is TRANSFORMERS or "qk_norm" not in changes
    ],
)
def test_every_row_of_every_parameter_is_filled_once(
    layout: Layout, changes: dict[str, Any]
) -> None:
    net = network(90, **changes)
    rows = filled(net.config, layout)
    state = net.state_dict()
    if net.config.tied_head:
        del state["lm_head.weight"]
    assert rows.keys() == state.keys()
    for key, parameter in state.items():
        ends = [0, *(part.stop for part in rows[key])]
        assert [part.start for part in rows[key]] == ends[:-1]
        assert ends[-1] == len(parameter)


@pytest.mark.parametrize("changes", CHANGES)
def test_shapes_are_those_of_the_originals(changes: dict[str, Any]) -> None:
    net = network(90, **changes)
    transformers = dict(as_transformers(net).state_dict())
    if net.config.tied_head:
        del transformers["lm_head.weight"]
    both = [(TRANSFORMERS, transformers)]
    if "qk_norm" not in changes:
        both.append((LLADA, llada_state(net)))
    for layout, state in both:
        shapes = {key: slot.shape for key, slot in key_map(net.config, layout).items()}
        assert shapes == {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("changes", CHANGES)
def test_a_shape_counts_as_the_network_does(changes: dict[str, Any]) -> None:
    net = network(90, **changes)
    shape = net.config
    assert shape.parameters == sum(parameter.numel() for parameter in net.parameters())
    cache = net.new_cache(7)
    held = sum(part.numel() for part in cache.keys + cache.values)
    assert shape.memory("float32", 7) - shape.memory("float32", 0) == 4 * held


def test_one_name_two_things() -> None:
    """LLaDA's ``ff_out``: the head, and each layer's down projection."""
    slots = key_map(model_config(LLADA_8B), LLADA)
    assert slots["model.transformer.ff_out.weight"].key == "lm_head.weight"
    assert slots["model.transformer.ff_out.weight"].shape == (126464, 4096)
    down = slots["model.transformer.blocks.7.ff_out.weight"]
    assert (down.key, down.shape) == ("layers.7.mlp.down_proj.weight", (4096, 12288))
    up = slots["model.transformer.blocks.7.up_proj.weight"]
    assert (up.key, up.rows) == ("layers.7.mlp.gate_up_proj.weight", slice(12288, 24576))
