"""Diffusion models by the class they name: how they are decoded, and what is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, write_family
from sight import block_causal_ends
from tiny import as_transformers

from d2f import D2FConfig, generate, load_model
from d2f.catalogue.pairs import default_config
from d2f.checkpoints.config_json import model_config
from d2f.cli.generate import main
from d2f.errors import LoadError
from d2f.nn.transformer import Transformer
from d2f.shape import Diffusion
from d2f.tokenizer import Tokenizer

LENGTH = 37


@pytest.fixture
def write(tmp_path: Path, tokenizer_folder: Path) -> Callable[..., tuple[Path, Transformer]]:
    def write(name: str, **fields: Any) -> tuple[Path, Transformer]:
        folder = tmp_path / name
        return folder, write_family(name, folder, tokenizer_folder, **fields)

    return write


Write = Callable[..., tuple[Path, Transformer]]


@pytest.mark.parametrize("name", FAMILIES)
def test_how_each_family_decodes(name: str, write: Write, tokenizer: Tokenizer) -> None:
    folder, net = write(name)
    family = FAMILIES[name]
    config = load_model(folder, diffusion=family.given).config
    assert not config.causal
    assert config.mask_id == net.config.mask_id == tokenizer.mask_id
    assert (config.logit_shift, config.grid) == (family.shift, family.grid)
    assert config.block_size == family.block_size
    settings = default_config(name, own=config)
    assert isinstance(settings, D2FConfig)
    assert (settings.grid, settings.block_size) == (family.grid, family.block_size or 32)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_transformers_with_and_without_a_cache(name: str, write: Write) -> None:
    folder, net = write(name)
    model = load_model(folder, diffusion=FAMILIES[name].given)
    ids = torch.arange(100, 100 + LENGTH)[None]
    size = 8
    ends = block_causal_ends(0, LENGTH, 0, size, LENGTH)
    mask = torch.tensor([[key < end for key in range(LENGTH)] for end in ends.tolist()])
    with torch.inference_mode():
        theirs = as_transformers(net)(
            input_ids=ids, attention_mask=mask[None, None], use_cache=False
        ).logits
        whole = model.net.logits(model.net(ids, ends))
        torch.testing.assert_close(whole, theirs, rtol=0, atol=1e-5)
        cache, found = model.net.new_cache(LENGTH), []
        for start in range(0, LENGTH, size):
            window = ids[:, start : start + size]
            rows = ends[start : start + size]
            found.append(model.net.logits(model.net(window, rows, cache, start)))
            cache.advance(window.shape[1])
    assert theirs.std() > 0.5
    torch.testing.assert_close(torch.cat(found, dim=1), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_comes_from_the_command_line(
    name: str, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = write(name)
    given = FAMILIES[name].given
    options = [] if given is None or given.grid is None else ["--grid", given.grid]
    command = ["--model", str(folder), "--prompt", "Hello", "--max-new-tokens", "9", "--json"]
    assert main([*command, *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["config"]["grid"] == FAMILIES[name].grid
    assert report["tokens"] >= 1


def test_what_nothing_says_is_refused_by_its_option(write: Write) -> None:
    """dllm's class is that of models in blocks, and of models over the whole canvas."""
    folder, _ = write("a2d-qwen3")
    with pytest.raises(LoadError, match="does not say its grid: give --grid"):
        load_model(folder)
    assert load_model(folder, diffusion=Diffusion(grid="prompt")).config.grid == "prompt"


def test_a_mask_token_that_no_file_names_is_asked_for(write: Write) -> None:
    folder, _ = write("stable-diffcoder")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        path = folder / name
        if path.is_file():
            raw = json.loads(path.read_text())
            raw.pop("mask_token", None)
            path.write_text(json.dumps(raw))
    with pytest.raises(LoadError, match="names the mask token: give its id by --mask-id"):
        load_model(folder)
    assert load_model(folder, diffusion=Diffusion(mask_id=1)).config.mask_id == 1


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("sdar", Diffusion(grid="prompt"), "grid is 'start' by its own files, and 'prompt' was"),
        ("sdar", Diffusion(mask_id=7), "mask_id is 1 by its own files, and 7 was given"),
        ("sdar", Diffusion(logit_shift=True), "logit_shift is False by its own files, and True"),
        ("fast-dllm-v2", Diffusion(logit_shift=False), "logit_shift is True by its own files"),
        ("fast-dllm-v2", Diffusion(block_size=16), "block_size is 32 by its own files, and 16"),
    ],
)
def test_what_contradicts_the_files_is_refused(
    name: str, given: Diffusion, message: str, write: Write
) -> None:
    folder, _ = write(name)
    with pytest.raises(LoadError, match=message):
        load_model(folder, diffusion=given)


def test_a_class_known_nowhere_runs_by_what_is_given(write: Write) -> None:
    folder, _ = write("sdar", architectures=["OpenDcoderModel"], auto_map=None, model_type="qwen3")
    with pytest.raises(LoadError, match="OpenDcoderModel is no class of models known here"):
        load_model(folder)
    with pytest.raises(LoadError, match="does not say its logit_shift: give --logit-shift"):
        load_model(folder, diffusion=Diffusion(grid="start"))
    given = Diffusion(mask_id=1, grid="start", logit_shift=True)
    model = load_model(folder, diffusion=given)
    assert (model.config.mask_id, model.config.grid, model.config.logit_shift) == (1, "start", True)
    config = D2FConfig(max_new_tokens=5, grid="start")
    assert generate(model, [5, 6, 7], config).tokens >= 1


def test_an_autoregressive_model_of_ours_takes_none_of_it(write: Write) -> None:
    folder, _ = write("sdar", d2f={"causal": True}, model_type="qwen3")
    assert load_model(folder).config.causal
    with pytest.raises(LoadError, match="it is autoregressive, and has no mask token or grid"):
        load_model(folder, diffusion=Diffusion(grid="start"))


@pytest.mark.parametrize("model_type", ["sdar", "Fast_dLLM_Qwen", "Dream"])
def test_a_model_type_of_its_own_needs_no_class(model_type: str, write: Write) -> None:
    name = {"sdar": "sdar", "Fast_dLLM_Qwen": "fast-dllm-v2", "Dream": "dream"}[model_type]
    folder, _ = write(name)
    raw = json.loads((folder / "config.json").read_text())
    bare = {key: value for key, value in raw.items() if key not in ("architectures", "auto_map")}
    assert model_config(bare) == model_config(raw)


@pytest.mark.parametrize("value", [0, -4, "4", 2.5, True])
def test_a_block_size_that_is_none_is_refused(value: Any, write: Write) -> None:
    folder, _ = write("sdar", block_size=value)
    with pytest.raises(LoadError, match=r"config\.json: block_size must be"):
        load_model(folder)
