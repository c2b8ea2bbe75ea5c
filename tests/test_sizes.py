"""Computed memory needs: against real tensors where they are small, by hand where they are not."""

from typing import Any

import pytest
import torch
from tiny import SHAPE

from d2f.catalogue.sizes import (
    ALLOWANCE,
    GIB,
    Need,
    gigabytes,
    needs,
    needs_table,
    pair_bytes,
)
from d2f.nn.transformer import Transformer
from d2f.shape import QUANTISED_BYTES, ModelConfig

COMMON: dict[str, Any] = {"num_heads": 32, "head_dim": 128, "num_layers": 32, "hidden_size": 4096}
QWEN = ModelConfig(
    vocab_size=152064,
    hidden_size=3584,
    intermediate_size=18944,
    num_layers=28,
    num_heads=28,
    num_kv_heads=4,
    head_dim=128,
    max_length=4096,
    qkv_bias=True,
)
LLADA = ModelConfig(
    vocab_size=126464, intermediate_size=12288, num_kv_heads=32, max_length=4096, **COMMON
)
LLAMA = ModelConfig(
    vocab_size=128256, intermediate_size=14336, num_kv_heads=8, max_length=4096, **COMMON
)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("switch", [{}, {"qkv_bias": True}, {"qk_norm": True}], ids=str)
def test_weights_are_those_of_the_network(tied: bool, switch: dict[str, bool]) -> None:
    config = ModelConfig(vocab_size=90, **SHAPE | switch | {"tied_head": tied})
    net = Transformer(config)
    assert config.layer_weights + config.other_weights == sum(p.numel() for p in net.parameters())
    products = [p.numel() for name, p in net.named_parameters() if name.endswith("proj.weight")]
    assert config.layer_weights == sum(products)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cache_is_as_large_as_computed(dtype: str) -> None:
    config = ModelConfig(vocab_size=90, **SHAPE)
    net = Transformer(config).to(getattr(torch, dtype))
    cache = net.new_cache(100)
    held = sum(t.numel() * t.element_size() for t in cache.keys + cache.values)
    assert config.run_bytes(dtype, 100) - config.run_bytes(dtype, 0) == held
    width = 4 if dtype == "float32" else 2
    angles = sum(table.numel() * table.element_size() for table in net.tables())
    assert config.run_bytes(dtype, 0) == 128 * 90 * (width + 4 + 4) + angles


@pytest.mark.parametrize(
    ("config", "billions"), [(LLADA, 8.02), (LLAMA, 8.03), (QWEN, 7.62)], ids=("8B", "Llama", "7B")
)
def test_published_sizes(config: ModelConfig, billions: float) -> None:
    weights = config.layer_weights + config.other_weights
    assert weights / 1e9 == pytest.approx(billions, abs=0.005)
    assert config.model_bytes("bfloat16") == 2 * weights
    assert config.model_bytes("float32") == 4 * weights


def test_a_cache_of_4096_tokens_of_the_published_models() -> None:
    tokens = [c.run_bytes("bfloat16") - c.run_bytes("bfloat16", 0) for c in (LLADA, QWEN)]
    assert tokens == [2 * GIB, 4096 * 2 * 28 * 4 * 128 * 2]


def test_two_lanes_fit_a_card_of_24_gb_once_quantised() -> None:
    table = needs({"LLaDA": (LLADA, LLAMA), "Dream": (QWEN, QWEN)})
    assert [(need.pair, need.weights, need.card) for need in table] == [
        ("LLaDA", "bfloat16", 40),
        ("LLaDA", "int8", 24),
        ("LLaDA", "int4", 16),
        ("Dream", "bfloat16", 32),
        ("Dream", "int8", 24),
        ("Dream", "int4", 16),
    ]
    llada = table[0]
    assert llada.lanes[0] == LLADA.memory("bfloat16")
    assert llada.lanes[0] == LLADA.model_bytes("bfloat16") + LLADA.run_bytes("bfloat16")
    assert llada.total == pair_bytes(llada.lanes) == sum(llada.lanes) + ALLOWANCE
    assert pair_bytes([]) == 0
    assert Need("x", "int8", (200 * GIB,)).card is None


def test_the_table_says_that_it_is_computed() -> None:
    text = needs_table([Need("one", "int8", (GIB, 2 * GIB)), Need("two", "int4", (90 * GIB, 0))])
    assert "| one | int8 | 1.0 GiB | 2.0 GiB | 4.0 GiB (4.3 GB) | 16 GB |" in text
    assert "| two | int4 | 90.0 GiB | 0.0 GiB | 91.0 GiB (98 GB) | no single card |" in text
    assert text.endswith("Computed, not measured; a KV cache of 4,096 tokens a lane is included.")


def test_an_unknown_kind_of_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="weights must be one of .*, got 'int2'"):
        QWEN.model_bytes("bfloat16", "int2")
    with pytest.raises(ValueError, match="dtype must be one of .*, got 'int8'"):
        QWEN.model_bytes("int8")
    assert list(QUANTISED_BYTES) == ["int8", "int4"]


def test_gigabytes_have_one_digit_below_ten() -> None:
    assert [gigabytes(size) for size in (0, 9_940_000_000, 36_200_000_000)] == [
        *("0.0 GB", "9.9 GB", "36 GB")
    ]
