"""Adapters fit their base or are refused, at full size from the shapes alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from originals import DREAM_7B, LLADA_8B

from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.config_json import model_config
from d2f.checkpoints.lora import Lora, LoraConfig, adapter_pairs
from d2f.checkpoints.weight_names import LLADA, TRANSFORMERS, key_map
from d2f.errors import LoadError

Shapes = dict[str, tuple[int, ...]]
HERE = Path("adapter")
RAW: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 32,
    "lora_alpha": 32,
    "target_modules": ["q_proj", "k_proj", "v_proj", "attn_out"],
}
RAW_DREAM = RAW | {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}


def base(name: str) -> Shapes:
    raw, layout = (LLADA_8B, LLADA) if name == "llada" else (DREAM_7B, TRANSFORMERS)
    return {key: slot.shape for key, slot in key_map(model_config(raw), layout).items()}


def adapter(name: str, rank: int = 32) -> Shapes:
    """As published: r = 32 on q, k, v and the attention's output of every layer."""
    if name == "llada":
        modules = {
            f"model.transformer.blocks.{layer}.{part}": (4096, 4096)
            for layer in range(32)
            for part in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
    else:
        rows = {"q_proj": 3584, "k_proj": 512, "v_proj": 512, "o_proj": 3584}
        modules = {
            f"model.layers.{layer}.self_attn.{part}": (height, 3584)
            for layer in range(28)
            for part, height in rows.items()
        }
    shapes: Shapes = {}
    for module, (height, width) in modules.items():
        shapes[f"base_model.model.{module}.lora_A.weight"] = (rank, width)
        shapes[f"base_model.model.{module}.lora_B.weight"] = (height, rank)
    return shapes


@pytest.mark.parametrize(
    ("name", "raw", "modules", "parameters"),
    [("llada", RAW, 128, 33_554_432), ("dream", RAW_DREAM, 112, 20_185_088)],
)
def test_the_published_shapes_fit(
    name: str, raw: dict[str, Any], modules: int, parameters: int
) -> None:
    shapes = adapter(name)
    assert len(adapter_pairs(LoraConfig(**raw), shapes, base(name), HERE)) == modules
    assert sum(rows * columns for rows, columns in shapes.values()) == parameters
    published = PUBLISHED["d2f-llada-8b-instruct" if name == "llada" else "d2f-dream-7b-base"]
    assert published.adapter is not None
    assert published.shape.lora_parameters(published.adapter.rank) == parameters


@pytest.mark.parametrize("begun", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_an_adapter_that_changed_its_base_is_refused(begun: str, tmp_path: Path) -> None:
    raw = RAW | {"init_lora_weights": begun}
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=f"init_lora_weights must be .*, got '{begun}'"):
        Lora(tmp_path, {})


@pytest.mark.parametrize("begun", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_an_adapter_that_left_its_base_alone_is_read_on(begun: object, tmp_path: Path) -> None:
    raw = RAW | {"init_lora_weights": begun}
    (tmp_path / "adapter_config.json").write_text(json.dumps(raw))
    with pytest.raises(LoadError, match=r"adapter_model\.safetensors is missing"):
        Lora(tmp_path, {})


def test_an_adapter_for_the_other_model_is_refused() -> None:
    with pytest.raises(ValueError, match="fits no weight of the base model"):
        adapter_pairs(LoraConfig(**RAW_DREAM), adapter("dream"), base("llada"), HERE)
    with pytest.raises(ValueError, match="fits no weight of the base model"):
        adapter_pairs(LoraConfig(**RAW), adapter("llada"), base("dream"), HERE)


def test_an_adapter_of_another_width_or_rank_is_refused() -> None:
    narrow = {key: tuple(min(n, 2048) for n in shape) for key, shape in adapter("llada").items()}
    with pytest.raises(ValueError, match=r"are \(32, 2048\) and \(2048, 32\), not \(32, 4096\)"):
        adapter_pairs(LoraConfig(**RAW), narrow, base("llada"), HERE)
    with pytest.raises(ValueError, match=r"are \(16, 4096\) and \(4096, 16\), not \(32, 4096\)"):
        adapter_pairs(LoraConfig(**RAW), adapter("llada", rank=16), base("llada"), HERE)


@pytest.mark.parametrize("targets", [RAW["target_modules"], r".*\.(q_proj|k_proj|v_proj|attn_out)"])
def test_a_target_without_an_adapter_is_refused(targets: str | list[str]) -> None:
    """What silently lost LLaDA's attn_out elsewhere."""
    raw = RAW | {"target_modules": targets}
    shapes = adapter("llada")
    assert len(adapter_pairs(LoraConfig(**raw), shapes, base("llada"), HERE)) == 128
    rest = {key: shape for key, shape in shapes.items() if "31.attn_out" not in key}
    with pytest.raises(ValueError, match="targets 'model.transformer.blocks.31.attn_out.weight'"):
        adapter_pairs(LoraConfig(**raw), rest, base("llada"), HERE)


def test_a_target_is_a_whole_part_of_a_name() -> None:
    """``ff_out`` is the head too; ``out`` is no module at all."""
    raw = RAW | {"target_modules": ["ff_out"]}
    with pytest.raises(ValueError, match="targets 'model.transformer.blocks.0.ff_out.weight'"):
        adapter_pairs(LoraConfig(**raw), {}, base("llada"), HERE)
    part = LoraConfig(**RAW | {"target_modules": ["out"]})
    assert adapter_pairs(part, {}, base("llada"), HERE) == {}
    layers = [f"model.transformer.blocks.{layer}.ff_out" for layer in range(32)]
    shapes: Shapes = {}
    for module in layers:
        shapes[f"base_model.model.{module}.lora_A.weight"] = (32, 12288)
        shapes[f"base_model.model.{module}.lora_B.weight"] = (4096, 32)
    with pytest.raises(ValueError, match="targets 'model.transformer.ff_out.weight'"):
        adapter_pairs(LoraConfig(**raw), shapes, base("llada"), HERE)
