"""Model folders: transformers' own format both ways, exact LoRA merges, nothing left over."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from folders import save_folder
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sight import causal_ends
from tiny import as_transformers, network
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from d2f import load_model
from d2f.checkpoints.config_json import config_json, model_config
from d2f.checkpoints.save import save_model, split
from d2f.errors import InvalidInput, LoadError
from d2f.nn.transformer import Transformer

VOCAB = 640
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"mask_id": 1, "rope_theta": 20_000.0},
    "llama, tied": {"tied_head": True, "norm_eps": 1e-5},
    "qwen2, shifted": {"qkv_bias": True, "logit_shift": True, "mask_id": 1},
    "qwen3": {"qk_norm": True, "head_dim": 20, "mask_id": 1},
    "causal": {"causal": True, "logit_shift": True, "num_kv_heads": 4},
    "rope in float32": {"rope_in_float32": True, "mask_id": 1, "head_dim": 16},
}
IDS = torch.arange(100, 120)[None]


@pytest.fixture
def copy_tokenizer(tokenizer_folder: Path) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        for file in tokenizer_folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())

    return copy


@pytest.fixture
def folder(tmp_path: Path, copy_tokenizer: Callable[[Path], None]) -> Path:
    """A saved model of the plainest kind, to be spoilt."""
    save_model(halved(network(VOCAB, **SHAPES["llama"])), tmp_path, [4])
    copy_tokenizer(tmp_path)
    return tmp_path


def halved(net: Transformer) -> Transformer:
    """Weights that float16 holds exactly."""
    for parameter in net.parameters():
        parameter.data = parameter.data.half().float()
    return net


def ours(net: Transformer) -> Tensor:
    with torch.inference_mode():
        return net.logits(net(IDS, causal_ends(IDS.shape[1])))


def theirs(model: PreTrainedModel) -> Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def edit_config(folder: Path, **changes: Any) -> None:
    """``...`` removes a field."""
    path = folder / "config.json"
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in raw.items() if value is not ...}))


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_saved_is_what_is_loaded(
    shape: str, tmp_path: Path, copy_tokenizer: Callable[[Path], None]
) -> None:
    net = halved(network(VOCAB, **SHAPES[shape]))
    folder = tmp_path / "my-model"
    save_model(net, folder, [4, 0])
    copy_tokenizer(folder)
    model = load_model(folder)
    assert model.name == "my-model"
    assert model.config == net.config
    assert model.tokenizer.stop_ids == (0, 4)
    assert model.dtype == "float32"
    assert model.device == torch.device("cpu")
    assert not model.net.training
    assert not any(parameter.requires_grad for parameter in model.net.parameters())
    assert model.net.state_dict().keys() == net.state_dict().keys()
    for key, value in net.state_dict().items():
        assert torch.equal(model.net.state_dict()[key], value), key
    assert sorted(path.name for path in folder.glob("model*")) == ["model.safetensors"]


def test_what_no_class_of_transformers_has_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="both qkv_bias and qk_norm cannot be saved"):
        save_model(network(VOCAB, qkv_bias=True, qk_norm=True), tmp_path, [4])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", ["llama", "llama, tied", "qwen2, shifted", "qwen3", "causal"])
def test_transformers_loads_what_is_saved(shape: str, tmp_path: Path) -> None:
    net = halved(network(VOCAB, sharpness=1, **SHAPES[shape]))
    save_model(net, tmp_path, [4])
    reference, info = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    family = {"qwen2, shifted": "Qwen2", "qwen3": "Qwen3"}.get(shape, "Llama")
    assert type(reference).__name__ == f"{family}ForCausalLM"
    torch.testing.assert_close(ours(net), theirs(reference.eval()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", ["llama", "llama, tied", "qwen2, shifted", "qwen3"])
def test_what_transformers_saves_is_loaded(
    shape: str, tmp_path: Path, copy_tokenizer: Callable[[Path], None]
) -> None:
    reference = as_transformers(network(VOCAB, sharpness=1, **SHAPES[shape]))
    reference.save_pretrained(tmp_path)
    copy_tokenizer(tmp_path)
    model = load_model(tmp_path)
    assert model.config.causal
    assert model.config.logit_shift
    assert model.config.mask_id is None
    torch.testing.assert_close(ours(model.net), theirs(reference), rtol=0, atol=1e-5)


def test_sharded_weights_are_loaded(tmp_path: Path, copy_tokenizer: Callable[[Path], None]) -> None:
    reference = as_transformers(network(VOCAB, sharpness=1))
    reference.save_pretrained(tmp_path, max_shard_size="60KB")
    copy_tokenizer(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    torch.testing.assert_close(ours(load_model(tmp_path).net), theirs(reference), rtol=0, atol=1e-5)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(LoadError, match=r"safetensors is missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_split_gives_transformers_names(shape: str) -> None:
    net = network(VOCAB, **SHAPES[shape])
    reference = as_transformers(net).state_dict()
    state = split(net)
    if net.config.tied_head:
        del reference["lm_head.weight"]
    assert state.keys() == reference.keys()
    for key, value in reference.items():
        assert torch.equal(state[key], value), key


@pytest.mark.parametrize("shape", SHAPES)
def test_a_config_survives_its_json(shape: str) -> None:
    config = network(VOCAB, **SHAPES[shape]).config
    raw = json.loads(json.dumps(config_json(config, [4])))
    assert model_config(raw) == config
    assert raw["eos_token_id"] == [4]


def test_a_half_precision_network_is_saved_as_it_is(folder: Path, tmp_path: Path) -> None:
    net = network(VOCAB, **SHAPES["llama"]).half()
    save_model(net, folder, [4])
    for key, value in load_model(folder, dtype="float16").net.state_dict().items():
        assert torch.equal(value, net.state_dict()[key]), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_are_cast_once_to_the_dtype_asked_for(dtype: str, folder: Path) -> None:
    exact = load_model(folder).net.state_dict()
    model = load_model(folder, dtype=dtype)
    assert model.dtype == dtype
    for key, value in model.net.state_dict().items():
        assert torch.equal(value, exact[key].to(getattr(torch, dtype))), key


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be one of .*, got 'int8'"):
        load_model(folder, dtype="int8")


def test_a_tied_head_stays_tied_when_loaded(
    tmp_path: Path, copy_tokenizer: Callable[[Path], None]
) -> None:
    save_model(network(VOCAB, **SHAPES["llama, tied"]), tmp_path, [4])
    copy_tokenizer(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    net = load_model(tmp_path, dtype="bfloat16").net
    assert net.lm_head.weight is net.embed_tokens.weight


def test_an_unknown_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model 'mini-gpt'"):
        load_model("mini-gpt")
    with pytest.raises(ValueError, match="not a folder with a config.json"):
        load_model(tmp_path)


def rename(old: str, new: str) -> Callable[[dict[str, Tensor]], None]:
    def edit(weights: dict[str, Tensor]) -> None:
        weights[new] = weights.pop(old)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda w: w.pop("model.norm.weight"),
            r"missing \['model.norm.weight'\], left over \[\]",
        ),
        (
            lambda w: w.pop("model.layers.1.self_attn.k_proj.weight"),
            r"missing \['model.layers.1.self_attn.k_proj.weight'\], left over \[\]",
        ),
        (
            lambda w: w.update({"model.layers.2.input_layernorm.weight": torch.ones(48)}),
            r"missing \[\], left over \['model.layers.2.input_layernorm.weight'\]",
        ),
        (
            lambda w: w.update({"model.layers.0.self_attn.o_proj.bias": torch.ones(48)}),
            r"left over \['model.layers.0.self_attn.o_proj.bias'\]",
        ),
        (
            lambda w: w.update(
                {f"model.layers.0.self_attn.{p}_proj.bias": torch.ones(24) for p in "qkv"}
            ),
            r"missing \[\], left over \['model.layers.0.self_attn.k_proj.bias', "
            r"'model.layers.0.self_attn.q_proj.bias', 'model.layers.0.self_attn.v_proj.bias'\]",
        ),
        (
            rename("lm_head.weight", "head.weight"),
            r"missing \['lm_head.weight'\], left over \['head.weight'\]",
        ),
        (
            rename("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.upproj.weight"),
            r"missing \['model.layers.0.mlp.up_proj.weight'\], "
            r"left over \['model.layers.0.mlp.upproj.weight'\]",
        ),
    ],
    ids=["missing", "part missing", "layer more", "bias", "biases", "misnamed", "part misnamed"],
)
def test_missing_left_over_and_misnamed_keys_are_refused(
    edit: Callable[[dict[str, Tensor]], None], message: str, folder: Path
) -> None:
    edit_weights(folder, edit)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_weights_of_the_wrong_shape_are_refused(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.norm.weight": torch.ones(47)}))
    with pytest.raises(ValueError, match=r"model\.norm\.weight is \(47,\), not \(48,\)"):
        load_model(folder)


def test_a_config_of_another_shape_than_the_weights_is_refused(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"missing \['model.layers.2.input_layernorm.weight'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "gpt2"},
            "model_type must be one of .*'llada', 'llama', 'qwen2', 'qwen3'.*, got 'gpt2'",
        ),
        ({"model_type": ...}, "model_type must be one of .*, got None"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 8}},
            "rope_type must be .*'llama3'.*, got 'linear'",
        ),
        ({"hidden_size": ...}, "config.json .*hidden_size"),
        ({"vocab_size": ...}, "config.json .*vocab_size"),
    ],
)
def test_an_unsupported_config_is_refused_and_says_why(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


def test_fields_transformers_may_leave_out_have_its_defaults(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    exact = model_config(raw)
    del raw["tie_word_embeddings"]
    raw["head_dim"] = None
    assert model_config(raw) == exact
    assert exact.head_dim == 12
    raw["num_key_value_heads"] = None
    assert model_config(raw) == replace(exact, num_kv_heads=4)


@pytest.mark.parametrize("stops", [4, [4], [], None, ...])
def test_one_stop_id_a_list_or_none_are_all_read(stops: Any, folder: Path) -> None:
    edit_config(folder, eos_token_id=stops)
    assert load_model(folder).tokenizer.stop_ids == (4,)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_an_error(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError):
        load_model(folder)


def adapter(reference: PreTrainedModel, folder: Path, **settings: Any) -> PreTrainedModel:
    """Save a random PEFT adapter of ``reference`` to ``folder``; returns the unmerged model."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    options = {"r": 4, "lora_alpha": 6, "target_modules": targets} | settings
    with warnings.catch_warnings():
        # peft reads an attribute that transformers is about to drop.
        warnings.simplefilter("ignore", FutureWarning)
        with_adapter = get_peft_model(reference, LoraConfig(**options))
    generator = torch.Generator().manual_seed(9)
    for name, parameter in with_adapter.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.15, generator=generator)
    with_adapter.save_pretrained(folder, save_embedding_layers=False)
    return with_adapter.eval()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": ["gate_proj", "up_proj", "down_proj", "v_proj"], "r": 7},
        {"target_modules": ["lm_head"]},
    ],
    ids=["plain", "rslora", "feed-forward", "head"],
)
@pytest.mark.parametrize("shape", ["llama", "qwen2, shifted", "qwen3"])
def test_a_merged_adapter_equals_pefts_unmerged_model(
    shape: str,
    settings: dict[str, Any],
    tmp_path: Path,
    copy_tokenizer: Callable[[Path], None],
) -> None:
    net = halved(network(VOCAB, sharpness=1, **SHAPES[shape]))
    save_model(net, tmp_path / "base", [4])
    copy_tokenizer(tmp_path / "base")
    expected = theirs(adapter(as_transformers(net), tmp_path / "lora", **settings))
    merged = ours(load_model(tmp_path / "base", adapter=tmp_path / "lora").net)
    assert (expected - ours(net)).abs().max() > 0.1
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)


def test_an_adapter_is_merged_in_float32_before_the_cast(folder: Path, tmp_path: Path) -> None:
    adapter(as_transformers(load_model(folder).net), tmp_path / "lora")
    exact = load_model(folder, adapter=tmp_path / "lora").net.state_dict()
    cast = load_model(folder, adapter=tmp_path / "lora", dtype="bfloat16").net.state_dict()
    for key, value in exact.items():
        assert torch.equal(cast[key], value.bfloat16()), key


@pytest.fixture
def lora(folder: Path, tmp_path: Path) -> Path:
    adapter(as_transformers(load_model(folder).net), tmp_path / "lora")
    return tmp_path / "lora"


PREFIX = "base_model.model.model.layers.0.self_attn"


@pytest.mark.parametrize(
    "edit",
    [
        lambda w: w.pop(f"{PREFIX}.q_proj.lora_A.weight"),
        lambda w: w.pop(f"{PREFIX}.q_proj.lora_B.weight"),
        rename(f"{PREFIX}.q_proj.lora_A.weight", f"{PREFIX}.query.lora_A.weight"),
        rename(f"{PREFIX}.q_proj.lora_A.weight", f"{PREFIX}.q_proj.lora_magnitude.weight"),
        lambda w: w.update({f"{PREFIX}.q_proj.bias": torch.ones(48)}),
        lambda w: w.update({"base_model.model.lm_head.weight": torch.ones(640, 48)}),
        lambda w: w.update(
            {f"base_model.model.wte.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}
        ),
    ],
    ids=["no A", "no B", "misnamed", "another kind", "bias", "whole module", "no such weight"],
)
def test_adapter_keys_that_fit_nothing_are_refused(
    edit: Callable[[dict[str, Tensor]], None], folder: Path, lora: Path
) -> None:
    weights = load_file(lora / "adapter_model.safetensors")
    edit(weights)
    save_file(weights, lora / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="fits no weight of the base model"):
        load_model(folder, adapter=lora)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "adapter_config.json: peft_type must be 'LORA', got 'IA3'"),
        ({"use_dora": True}, "only plain LoRA"),
        ({"bias": "all"}, "only plain LoRA"),
        ({"fan_in_fan_out": True}, "only plain LoRA"),
        ({"rank_pattern": {"q_proj": 8}}, "ranks or alphas per module"),
        ({"alpha_pattern": {"q_proj": 8}}, "ranks or alphas per module"),
    ],
)
def test_adapters_of_other_kinds_are_refused(
    changes: dict[str, Any], message: str, folder: Path, lora: Path
) -> None:
    path = lora / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_model(folder, adapter=lora)


def test_an_adapter_folder_that_is_not_there_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"adapter_config\.json is missing"):
        load_model(folder, adapter=tmp_path / "nowhere")


def test_a_tokenizer_with_another_mask_token_is_refused(
    tmp_path: Path, tokenizer_folder: Path
) -> None:
    """As when added_tokens.json is missing: tokens then get ids of their own."""
    save_folder(tmp_path / "model", tokenizer_folder, [4], mask_id=2)
    with pytest.raises(ValueError, match=r"mask token is 2 in config.json and 1 in the tokenizer"):
        load_model(tmp_path / "model")
