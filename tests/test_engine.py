"""A model made small and fast: what is switched on is named, what cannot be is refused in time.

Quantisation is tested where its package is installed; neither is required.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import network

from d2f import ARConfig, D2FConfig, VanillaConfig, generate, load_model
from d2f.checkpoints.plan import DTYPES
from d2f.checkpoints.resolve import find_shape
from d2f.checkpoints.save import save_model
from d2f.cli.options import add_engine_options
from d2f.decode.common import how_it_runs
from d2f.errors import TooLittleMemory
from d2f.nn.attention import BACKENDS
from d2f.nn.quantize import PACKAGES, check_quantization, quantize
from d2f.tokenizer import Tokenizer

PROMPT = (40, 41, 42)
# The packages themselves use what torch has deprecated.
quantizing = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("model")
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    vocabulary = Tokenizer(folder).vocab_size
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    save_model(network(vocabulary, causal=True, logit_shift=True, **shape), folder, [4])
    return folder


def test_what_runs_is_named(folder: Path) -> None:
    model = load_model(folder, attention="flex")
    assert model.net.attention == "flex"
    model = load_model(folder, compile=True, dtype="bfloat16")
    assert model.fixed is not None
    assert (model.net.attention, model.dtype, model.net.quantized) == ("sdpa", "bfloat16", None)


def test_a_trace_names_how_it_was_made(folder: Path) -> None:
    model = load_model(folder)
    versions = generate(model, PROMPT, ARConfig(max_new_tokens=2)).header.versions
    assert {name: versions[name] for name in ("attention", "forward", "weights")} == {
        "attention": "sdpa",
        "forward": "eager",
        "weights": "float32",
    }


def test_vanilla_is_eager_even_in_a_compiled_model(folder: Path) -> None:
    model = load_model(folder, compile=True)
    forwards = [
        how_it_runs(model, config)["forward"]
        for config in (ARConfig(), D2FConfig(), VanillaConfig())
    ]
    assert forwards == ["compiled", "compiled", "eager"]


def test_attention_that_cannot_run_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="attention 'flash' needs a CUDA GPU"):
        load_model(folder, attention="flash")
    with pytest.raises(ValueError, match="attention must be one of"):
        load_model(folder, attention="fast")


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_package_that_is_missing_is_named(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.nn.quantize.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"{kind!r} needs the {PACKAGES[kind]} package: pip"):
        load_model(folder, quantize=kind)


@pytest.mark.parametrize("kind", PACKAGES)
def test_what_quantised_does_not_fit_its_device_is_refused_before_it_is_read(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.nn.quantize.find_spec", lambda name: "installed")
    need = find_shape(folder).memory("bfloat16", weights=kind)
    assert need < find_shape(folder).memory("bfloat16")
    free = {"cuda:1": need - 1, "cpu": 0}
    monkeypatch.setattr("d2f.checkpoints.plan.free_memory", free.__getitem__)
    asked: dict[str, Any] = {"device": "cuda:1", "dtype": "bfloat16", "quantize": kind}
    with pytest.raises(TooLittleMemory, match=f"of memory in {kind}, .* are free on 'cuda:1'"):
        load_model(folder, **asked)
    with pytest.raises(TooLittleMemory, match=f"d2f-dream-7b-base needs .* of memory in {kind}"):
        load_model("d2f-dream-7b-base", **asked)
    free["cuda:1"] = need
    with pytest.raises(TooLittleMemory, match="of memory in bfloat16, .* are free on 'cpu'"):
        load_model(folder, **asked)


def test_a_gpu_that_is_not_there_is_told_before_quantising(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.nn.quantize.find_spec", lambda name: "installed")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="device 'cuda' is not there: torch sees no CUDA GPU"):
        load_model(folder, device="cuda", quantize="int8")


def test_the_options_offer_what_there_is() -> None:
    """Their names are written out, so that the options load without torch."""
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert set(choices["dtype"]) == set(DTYPES)
    assert choices["attention"] == ("auto", *BACKENDS)
    assert choices["quantize"] == tuple(PACKAGES)


def test_an_unknown_quantisation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantize must be one of \['int4', 'int8'\], got 'int2'"):
        check_quantization("int2")


@quantizing
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "error", "size"), [("int8", 0.05, 1.2), ("int4", 0.4, 0.7)], ids=("int8", "int4")
)
def test_quantised_weights_are_small_and_close(
    kind: str, error: float, size: float, dtype: torch.dtype, bias: bool
) -> None:
    if find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"{PACKAGES[kind]} is not installed")
    shape = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_layers": 1}
    net = network(90, sharpness=1, qkv_bias=bias, **shape).to(dtype)
    ids = torch.arange(2, 34)[None]
    with torch.inference_mode():
        exact = net(ids, None)
        quantize(net, kind, "cpu")
        rounded = net(ids, None)
    assert net.quantized == kind
    assert rounded.dtype == dtype
    off = (rounded - exact).float().norm() / exact.float().norm()
    assert 1e-4 < off < error
    assert type(net.lm_head) is torch.nn.Linear and net.embed_tokens.weight.dtype == dtype
    held = 0
    for layer in net.layers:
        for product in (layer.self_attn.qkv_proj, layer.mlp.down_proj):
            weight = product.weight
            parts = getattr(weight, "tensor_data_names", None) or []
            tensors = [getattr(weight, name) for name in parts] or [weight]
            held += sum(t.numel() * t.element_size() for t in tensors)
    assert held <= size * sum(
        layer.self_attn.qkv_proj.in_features * layer.self_attn.qkv_proj.out_features
        + layer.mlp.down_proj.in_features * layer.mlp.down_proj.out_features
        for layer in net.layers
    )


@quantizing
@pytest.mark.parametrize("kind", PACKAGES)
def test_a_quantised_model_decodes_and_says_so(kind: str, folder: Path) -> None:
    if find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"{PACKAGES[kind]} is not installed")
    model = load_model(folder, quantize=kind, dtype="bfloat16")
    trace = generate(model, PROMPT, ARConfig(max_new_tokens=6))
    assert trace.header.versions["weights"] == kind
    assert trace.header.dtype == "bfloat16"
    assert trace.forwards >= 1
