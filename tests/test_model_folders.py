"""Folders as other programs write them: what they leave over, leave out, or mean differently."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from originals import llada_json, llada_state, rounded, write_folder
from safetensors.torch import load_file, save_file
from sight import causal_ends
from tiny import as_transformers, network
from torch import Tensor
from transformers import AutoModelForCausalLM

from d2f import load_model
from d2f.checkpoints.config_json import config_json, model_config
from d2f.errors import LoadError
from d2f.model_files import read_json
from d2f.nn.transformer import Transformer, stretched
from d2f.shape import Llama3Rope

VOCAB = 640
IDS = torch.arange(100, 190)
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
COMPUTED = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(6.0),
    "model.rotary_emb.inv_freq": torch.arange(6.0),
    "model.layers.1.self_attn.rotary_emb.cos_cached": torch.ones(1, 1, 8, 12),
    "model.layers.1.self_attn.rotary_emb.sin_cached": torch.ones(1, 1, 8, 12),
    "model.layers.0.attn.masked_bias": torch.tensor(-1e4),
    "model.layers.0.self_attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool),
    "model.embeddings.position_ids": torch.arange(8),
}


@pytest.fixture
def make(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., Path]:
    """Writes a folder as transformers does; ``...`` takes a field out of its config.json."""

    def make(shape: dict[str, Any] | None = None, **fields: Any) -> Path:
        folder = tmp_path / "model"
        as_transformers(network(VOCAB, sharpness=1, **shape or {})).save_pretrained(folder)
        copytree(tokenizer_folder, folder, dirs_exist_ok=True)
        path = folder / "config.json"
        raw = json.loads(path.read_text()) | fields
        raw = {name: value for name, value in raw.items() if value is not ...}
        path.write_text(json.dumps(raw))
        return folder

    return make


def edit_weights(folder: Path, **changes: Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | changes, path, metadata={"format": "pt"})


def theirs(folder: Path) -> Tensor:
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return net(input_ids=IDS[None], use_cache=False).logits


def ours(net: Transformer, parts: int = 1) -> Tensor:
    """Logits of a prefill in so many windows over a cache."""
    found, cache = [], net.new_cache(len(IDS))
    with torch.inference_mode():
        for window in IDS.chunk(parts):
            start = cache.length
            ends = causal_ends(len(window)) + start
            found.append(net.logits(net(window[None], ends, cache, start)))
            cache.advance(len(window))
    return torch.cat(found, dim=1)


def agree(folder: Path, expected: Tensor | None = None) -> None:
    """Our logits are those of transformers, with and without a cache."""
    net, expected = load_model(folder).net, theirs(folder) if expected is None else expected
    for parts in (1, 7):
        torch.testing.assert_close(ours(net, parts), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_of_qwen3s_loads_as_transformers_loads_it(
    tied: bool, make: Callable[..., Path]
) -> None:
    folder = make({"qk_norm": True, "head_dim": 20, "tied_head": tied})
    raw = read_json(folder / "config.json")
    assert (raw["architectures"], raw["model_type"]) == (["Qwen3ForCausalLM"], "qwen3")
    assert load_model(folder).config.qk_norm
    agree(folder)


def test_what_a_model_computes_itself_is_dropped(make: Callable[..., Path]) -> None:
    folder = make()
    edit_weights(folder, **COMPUTED)
    agree(folder)


def test_what_a_model_computes_itself_is_dropped_from_an_index(make: Callable[..., Path]) -> None:
    folder = make()
    expected, weights = theirs(folder), load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights | COMPUTED, folder / "one.safetensors", metadata={"format": "pt"})
    keys = [*weights, *COMPUTED, "model.layers.9.attn.masked_bias"]
    homes = dict.fromkeys(keys, "one.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    agree(folder, expected)


def test_a_name_that_only_ends_like_one_is_left_over(make: Callable[..., Path]) -> None:
    folder = make()
    edit_weights(folder, **{"model.layers.0.self_attn.my_rotary_emb.inv_freq2": torch.ones(6)})
    with pytest.raises(LoadError, match="left over .*my_rotary_emb"):
        load_model(folder)


@pytest.mark.parametrize("biased", [False, True])
def test_a_rope_theta_that_is_not_named_is_transformers_own(
    biased: bool, make: Callable[..., Path]
) -> None:
    folder = make({"qkv_bias": biased}, rope_parameters=..., rope_theta=...)
    assert load_model(folder).config.rope_theta == 10000.0
    agree(folder)


@pytest.mark.parametrize("biased", [False, True])
def test_llama_3_1_stretches_its_rotary_embedding(biased: bool, make: Callable[..., Path]) -> None:
    folder = make({"qkv_bias": biased}, rope_parameters=LLAMA3 | {"rope_theta": 500.0})
    agree(folder)
    stretched_logits = theirs(folder)
    # The oracle itself sees a difference.
    assert (theirs(make({"qkv_bias": biased})) - stretched_logits).abs().max() > 0.01


@pytest.mark.parametrize(
    "more", [{}, {"beta_fast": 8.0, "beta_slow": 2.0}, {"attention_factor": 1.2}], ids=str
)
@pytest.mark.parametrize("shape", [{}, {"qk_norm": True, "head_dim": 20}], ids=str)
def test_yarn_stretches_as_transformers_does(
    shape: dict[str, Any], more: dict[str, Any], make: Callable[..., Path]
) -> None:
    folder = make(shape, rope_parameters=YARN | {"rope_theta": 500.0} | more)
    agree(folder)
    config = load_model(folder).config
    assert model_config(config_json(config, [4])) == config
    stretched_logits = theirs(folder)
    assert (theirs(make(shape)) - stretched_logits).abs().max() > 0.01


def test_llama_3_1_as_older_files_have_it(make: Callable[..., Path]) -> None:
    """Without the original length, transformers takes the whole one."""
    old = {name: value for name, value in LLAMA3.items() if "original" not in name}
    agree(make(None, rope_parameters=..., rope_theta=500.0, rope_scaling=LLAMA3))
    folder = make(None, rope_parameters=..., rope_theta=500.0, rope_scaling=old)
    assert load_model(folder).config.rope_scaling == Llama3Rope(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=128
    )
    agree(folder)


def test_a_stretched_rotary_embedding_is_saved(tmp_path: Path) -> None:
    rope = Llama3Rope(factor=4.0, low_freq_factor=1.0, high_freq_factor=2.0, original_length=64)
    config = network(VOCAB, rope_scaling=rope).config
    assert model_config(config_json(config, [4])) == config


def test_short_waves_stay_and_long_ones_are_stretched() -> None:
    rope = Llama3Rope(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_length=8192)
    waves = torch.tensor([2000.0, 2048.0, 8192 / 2.5, 8192.0, 9000.0])
    frequencies = 2 * torch.pi / waves
    scale = stretched(frequencies, rope) / frequencies
    assert scale.tolist() == pytest.approx([1, 1, 0.5 + 0.5 / 8, 1 / 8, 1 / 8])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_type": "yarn"}, "rope_scaling names no factor"),
        ({"rope_type": "yarn", "factor": 4.0}, "names no original_max_position_embeddings"),
        (YARN | {"mscale": 1.0}, "rope_scaling: mscale is not supported"),
        (YARN | {"truncate": False}, "truncate must be True"),
        ({"type": "linear"}, "rope_type must be 'default', 'llama3' or 'yarn', got 'linear'"),
        ({"rope_type": ["x"]}, r"rope_type must be 'default', .* got \['x'\]"),
        (LLAMA3 | {"factor": None}, "rope_scaling names no factor"),
        (LLAMA3 | {"factor": "8"}, "rope_scaling: factor must be a valid number, got '8'"),
        (LLAMA3 | {"low_freq_factor": 4.0}, "high_freq_factor must be above low_freq_factor"),
        ({"mrope_section": [1]}, "rope_scaling: mrope_section is not supported"),
        ({"full_attention": {}}, "rope_scaling: full_attention is not supported"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor must be greater than or equal to"),
    ],
)
def test_other_rotary_embeddings_are_refused_by_name(
    fields: dict[str, Any], message: str, make: Callable[..., Path]
) -> None:
    folder = make(None, rope_parameters=..., rope_theta=500.0, rope_scaling=fields)
    with pytest.raises(LoadError, match=message):
        load_model(folder)


def test_a_tied_model_may_hold_its_head_twice(make: Callable[..., Path]) -> None:
    folder = make({"tied_head": True})
    embedding = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    edit_weights(folder, **{"lm_head.weight": embedding.clone()})
    agree(folder)
    other = embedding.clone()
    other[-1, -1] += 1
    edit_weights(folder, **{"lm_head.weight": other})
    with pytest.raises(LoadError, match=r"lm_head\.weight is another matrix: set tie_word_embed"):
        load_model(folder)
    edit_weights(folder, **{"lm_head.weight": embedding[:-1].clone()})
    with pytest.raises(LoadError, match=r"lm_head\.weight is another matrix"):
        load_model(folder)


def test_lladas_head_may_be_there_twice_as_well(tmp_path: Path, tokenizer_folder: Path) -> None:
    net = rounded(network(VOCAB, mask_id=1, tied_head=True))
    state = llada_state(net)
    state["model.transformer.ff_out.weight"] = state["model.transformer.wte.weight"].clone()
    folder = write_folder(tmp_path / "m", state, llada_json(net), tokenizer_folder)
    assert load_model(folder).config.tied_head


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_bias": True}, "attention_bias must be False, got True"),
        ({"mlp_bias": True}, "mlp_bias must be False, got True"),
        ({"is_causal": False}, "is_causal must be True, got False"),
        ({"layer_types": ["full_attention", "sliding"]}, "layer_types.1 must be 'full_attention'"),
    ],
)
def test_what_would_change_the_numbers_is_refused_by_name(
    normed: bool, fields: dict[str, Any], message: str, make: Callable[..., Path]
) -> None:
    with pytest.raises(LoadError, match=f"config.json: {message}"):
        load_model(make({"qk_norm": normed}, **fields))


DIFFUSION = [
    {"architectures": ["LLaDAModelLM"]},
    {"architectures": ["LlamaForCausalLM", "OpenDcoderForCausalLM"]},
    {"architectures": ["LlamaForSequenceClassification"]},
    {"auto_map": {"AutoModelForCausalLM": "modeling_rnd.RND1LM"}},
    {"auto_map": {"AutoModel": ["modeling.Qwen2DiffusionModel", None]}},
]


@pytest.mark.parametrize("switch", [{}, {"qkv_bias": True}, {"qk_norm": True}], ids=str)
@pytest.mark.parametrize("fields", DIFFUSION, ids=str)
def test_a_diffusion_model_that_calls_itself_llama_is_not_loaded_as_causal(
    fields: dict[str, Any], switch: dict[str, bool], make: Callable[..., Path]
) -> None:
    with pytest.raises(LoadError, match="is no class of models known here"):
        load_model(make(switch, **fields))


@pytest.mark.parametrize("fields", DIFFUSION, ids=str)
def test_our_own_section_says_how_it_decodes(
    fields: dict[str, Any], make: Callable[..., Path]
) -> None:
    ours = {"causal": False, "mask_token_id": 1, "logit_shift": False}
    config = load_model(make(None, **fields, d2f=ours)).config
    assert (config.causal, config.mask_id, config.logit_shift) == (False, 1, False)
    with pytest.raises(LoadError, match="is no class of models known here"):
        load_model(make(None, **fields, d2f={"mask_token_id": 1}))


@pytest.mark.parametrize(
    "fields",
    [
        {"architectures": None},
        {"architectures": []},
        {"architectures": ...},
        {"auto_map": {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}},
        {"auto_map": {"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}},
    ],
    ids=str,
)
def test_a_causal_model_need_not_name_its_class(
    fields: dict[str, Any], make: Callable[..., Path]
) -> None:
    assert load_model(make(None, **fields)).config.causal


@pytest.mark.parametrize("kind", ["pytorch_model.bin", "model-00001-of-00002.bin", "model.gguf"])
def test_weights_of_another_kind_are_named_with_the_way_out(
    kind: str, make: Callable[..., Path]
) -> None:
    folder = make()
    (folder / "model.safetensors").rename(folder / kind)
    with pytest.raises(LoadError, match=f"holds {kind} and no model.safetensors: only safetensors"):
        load_model(folder)
    (folder / kind).unlink()
    with pytest.raises(LoadError, match=r"model\.safetensors is missing: .* convert it once, by"):
        load_model(folder)


def test_an_adapter_of_another_kind_is_named_too(make: Callable[..., Path], tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    raw = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (lora / "adapter_config.json").write_text(json.dumps(raw))
    (lora / "adapter_model.bin").write_bytes(b"")
    message = r"holds adapter_model\.bin and no adapter_model\.safetensors: .* or peft"
    with pytest.raises(LoadError, match=message):
        load_model(make(), adapter=lora)


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..\\x.safetensors", "x", ""]
)
def test_an_index_opens_nothing_outside_its_folder(
    name: str, make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make()
    homes = {"model.norm.weight": name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    (folder.parent / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    monkeypatch.setattr("d2f.checkpoints.shards.safe_open", None)
    with pytest.raises(LoadError, match="weight_map.model.norm.weight must match pattern|should"):
        load_model(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(make: Callable[..., Path]) -> None:
    folder = make()
    (folder / "config.json").chmod(0)
    with pytest.raises(LoadError, match=r"config\.json cannot be read: Permission denied"):
        load_model(folder)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_config_json_in_the_encodings_of_other_systems(
    encoding: str, make: Callable[..., Path]
) -> None:
    folder = make()
    path = folder / "config.json"
    text = path.read_text()
    path.write_bytes(text.encode(encoding))
    assert read_json(path) == json.loads(text)
