"""What the network computes is numbers, or the run ends in words, wherever it is told."""

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from folders import save_models
from safetensors.torch import load_file, save_file
from served import CHAT, error_of, messages
from servers import serving
from tiny import network
from transformers import AutoModelForCausalLM

from app.lanes.lane import Host
from app.lanes.transformers import Reference, generate_steps, warm_reference
from app.page.tell import SETTINGS, tell
from d2f import ARConfig, D2FConfig, DecodeConfig, Model, StepEvent, VanillaConfig, stream
from d2f.bench.__main__ import main as bench
from d2f.catalogue.pairs import PAIRS
from d2f.checkpoints.save import save_model
from d2f.errors import ComputeError
from d2f.nn.compiled import Fixed
from d2f.nn.transformer import Transformer
from d2f.run_options import RunOptions
from d2f.serve.service import Options, create_app
from d2f.tokenizer import Tokenizer

PROMPT = (40, 41, 42, 43, 44)
RUNS: list[DecodeConfig] = [
    D2FConfig(max_new_tokens=12, block_size=4),
    ARConfig(max_new_tokens=12),
    VanillaConfig(max_new_tokens=12),
]
HOT: list[DecodeConfig] = [replace(run, temperature=1.0, top_k=9, top_p=0.9) for run in RUNS]
DAMAGED = "a weight is damaged, so download the model again"
HALF = (
    "the model computed NaN or infinity in float16, so the answer ends here: load it with --dtype "
    f"bfloat16 or float32; if that does not help, {DAMAGED}"
)
WHOLE = f"the model computed NaN or infinity in float32, so the answer ends here: {DAMAGED}"


def kind(config: DecodeConfig) -> str:
    return type(config).__name__


def tiny(
    config: DecodeConfig, tokenizer: Tokenizer, *, fixed: bool = False, vocab_size: int = 0
) -> Model:
    causal = isinstance(config, ARConfig)
    shape = {"causal": causal, "mask_id": None if causal else 1, "logit_shift": True}
    net = network(vocab_size or tokenizer.vocab_size, **shape)
    return Model("tiny", net, tokenizer, Fixed(net) if fixed else None)


def overflow(net: Transformer) -> None:
    """The second layer's products exceed 65,504, float16's greatest number; float32 bears them."""
    net.layers[1].mlp.gate_up_proj.weight.mul_(3000)


def huge_head(net: Transformer) -> None:
    """Logits themselves exceed it."""
    net.lm_head.weight.mul_(10_000)


def damage(net: Transformer, value: float) -> None:
    net.layers[0].self_attn.o_proj.weight[3, 5] = value


def events_and_error(model: Model, config: DecodeConfig) -> tuple[list[StepEvent], str]:
    events: list[StepEvent] = []
    with pytest.raises(ComputeError) as raised:
        for event in stream(model, PROMPT, config):
            events.append(event)
    return events, str(raised.value)


@pytest.mark.parametrize("config", [*RUNS, *HOT], ids=kind)
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("cause", [overflow, huge_head])
def test_half_precision_that_overflows_ends_the_run_and_float32_does_not(
    config: DecodeConfig, fixed: bool, cause: Callable[[Transformer], None], tokenizer: Tokenizer
) -> None:
    model = tiny(config, tokenizer, fixed=fixed)
    cause(model.net)
    assert list(stream(model, PROMPT, config))[-1].finish_reason in ("stop", "length")
    half = tiny(config, tokenizer)
    cause(half.net)
    half.net.half()
    if fixed:
        half = replace(half, fixed=Fixed(half.net))
    assert events_and_error(half, config) == ([], HALF)


@pytest.mark.parametrize("config", [*RUNS, *HOT], ids=kind)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_damaged_weight_ends_the_run(
    config: DecodeConfig, value: float, tokenizer: Tokenizer
) -> None:
    model = tiny(config, tokenizer)
    damage(model.net, value)
    assert events_and_error(model, config) == ([], WHOLE)


@pytest.mark.parametrize("config", RUNS, ids=kind)
def test_a_damaged_row_of_the_head_matters_only_if_its_token_could_be_chosen(
    config: DecodeConfig, tokenizer: Tokenizer
) -> None:
    model = tiny(config, tokenizer, vocab_size=tokenizer.vocab_size + 7)
    commits = [event.commits for event in stream(model, PROMPT, config)]
    forbidden = [tokenizer.mask_id, tokenizer.vocab_size, tokenizer.vocab_size + 6]
    model.net.lm_head.weight[forbidden] = torch.nan
    assert [event.commits for event in stream(model, PROMPT, config)] == commits
    model.net.lm_head.weight[30] = torch.nan
    assert events_and_error(model, config) == ([], WHOLE)


@pytest.mark.parametrize("config", RUNS, ids=kind)
@pytest.mark.parametrize("fixed", [False, True])
def test_events_before_the_damage_are_those_of_a_sound_model(
    config: DecodeConfig, fixed: bool, tokenizer: Tokenizer
) -> None:
    """The run ends in the first step that looks at what is damaged."""
    sound = list(stream(tiny(config, tokenizer, fixed=fixed), PROMPT, config))
    token = sound[0].commits[0].token_id
    assert token not in PROMPT
    model = tiny(config, tokenizer, fixed=fixed)
    model.net.embed_tokens.weight[token] = torch.nan
    events, said = events_and_error(model, config)
    assert [event.commits for event in events] == [sound[0].commits] and said == WHOLE


@pytest.mark.parametrize("config", RUNS[:2], ids=kind)
def test_a_run_that_ended_so_spoils_no_later_one(
    config: DecodeConfig, tokenizer: Tokenizer
) -> None:
    """A workspace is used again, and reads rows that an earlier run wrote, at weight 0."""
    model = tiny(config, tokenizer, fixed=True)
    model.net.embed_tokens.weight[40] = torch.nan
    sound = [commit for event in stream(model, (50, 51), config) for commit in event.commits]
    for prompt in ((50,) * 30 + (40,), (40,) * 30):
        with pytest.raises(ComputeError):
            list(stream(model, prompt, config))
        again = [commit for event in stream(model, (50, 51), config) for commit in event.commits]
        assert again == sound


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Folders of models that overflow in float16, and of ones with a NaN in a weight."""
    root = tmp_path_factory.mktemp("models")
    for name in ("overflow", "nan"):
        save_models(root / name, tokenizer_folder)
        for path in (root / name).glob("*/model.safetensors"):
            weights = load_file(path)
            if name == "overflow":
                weights["model.layers.1.mlp.up_proj.weight"] *= 3000
                weights["model.layers.1.mlp.gate_proj.weight"] *= 3000
            else:
                weights["model.layers.0.self_attn.o_proj.weight"][3, 5] = torch.nan
            save_file(weights, path, metadata={"format": "pt"})
    return root


CAUSES = [("overflow", "float16", HALF), ("nan", "float32", WHOLE)]


@pytest.mark.parametrize(("cause", "dtype", "said"), CAUSES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_lane_of_transformers_ends_in_the_same_words(
    cause: str, dtype: str, said: str, temperature: float, models: Path
) -> None:
    folder = models / cause / "mini-ar"
    with pytest.raises(ComputeError) as raised:
        warm_reference(str(folder), "cpu", dtype)
    assert str(raised.value) == said
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    reference = Reference("damaged", net.eval(), Tokenizer(folder))
    config = ARConfig(max_new_tokens=4, temperature=temperature, top_k=9)
    with pytest.raises(ComputeError) as raised:
        list(generate_steps(reference, PROMPT, config))
    assert str(raised.value) == said


@pytest.mark.parametrize(("cause", "dtype", "said"), CAUSES)
def test_the_page_says_it(
    cause: str, dtype: str, said: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d2f.catalogue.pairs.EMBEDDED", models / cause)
    settings = [getattr(PAIRS["mini"].config, name) for name in SETTINGS]
    host = Host(RunOptions(dtype=dtype))
    batches = [told.messages for told in tell("Count.", "mini", settings, None, host)]
    told = [message for batch in batches for message in batch]
    assert [m for m in told if m["kind"] != "status"] == [{"kind": "error", "text": said}]


@pytest.mark.parametrize(("cause", "dtype", "said"), CAUSES)
@pytest.mark.parametrize("name", ["mini-d2f", "mini-ar", "mini-dllm"])
def test_the_command_line_says_it(
    name: str,
    cause: str,
    dtype: str,
    said: str,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    trace = tmp_path / "run.json"
    asked = ["--model", str(models / cause / name), "--prompt", "Hi", "--dtype", dtype, "--json"]
    monkeypatch.setattr(sys, "argv", ["d2f.generate", *asked, "--trace", str(trace)])
    with pytest.raises(SystemExit) as status:
        runpy.run_module("d2f.generate", run_name="__main__")
    assert (status.value.code, *capsys.readouterr()) == (2, "", f"d2f generate: {said}\n")
    assert not trace.exists()


@pytest.mark.parametrize(("cause", "dtype", "said"), CAUSES)
def test_the_benchmark_says_it(
    cause: str,
    dtype: str,
    said: str,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("d2f.catalogue.pairs.EMBEDDED", models / cause)
    assert bench(["--decoders", "ar", "--problems", "1", "--dtype", dtype]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == f"d2f bench: {said}"


@pytest.mark.parametrize("path", ["chat/completions", "completions", "events"])
@pytest.mark.parametrize("streamed", [False, True])
def test_the_service_says_it(path: str, streamed: bool, tokenizer: Tokenizer) -> None:
    config = ARConfig(max_new_tokens=8)
    model = tiny(config, tokenizer)
    overflow(model.net)
    model.net.half()
    asked: dict[str, Any] = {"model": "tiny", "messages": CHAT, "stream": streamed}
    if path == "completions":
        asked = {"model": "tiny", "prompt": "Count", "stream": streamed}
    if path == "events":
        asked = {"messages": CHAT}
    with serving(create_app(model, config, Options("tiny", max_tokens=8))) as url:
        response = httpx.post(f"{url}/{path}", json=asked, timeout=30)
        if response.status_code == 500:
            error = error_of(response)
        else:
            _, last = messages(response)[-1]
            error = last["error"]
    assert streamed or path == "events" or response.status_code == 500
    assert (error["message"], error["type"]) == (HALF, "server_error")


@pytest.mark.parametrize("value", [torch.nan, 1e6])
def test_weights_that_are_no_numbers_in_a_file_are_not_saved(
    value: float, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    net = tiny(RUNS[0], tokenizer).net
    net.layers[1].mlp.down_proj.weight[2, 2] = value
    with pytest.raises(ComputeError, match=r"layers\.1\.mlp\.down_proj\.weight holds NaN, or is"):
        save_model(net, tmp_path / "new", [2])
    assert list(tmp_path.iterdir()) == []
