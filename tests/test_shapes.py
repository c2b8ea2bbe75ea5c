"""The shape suite: a step's floor, what is computed of timings, and a run at tiny size."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
from torch import nn

from d2f.bench import shape_suite
from d2f.bench.__main__ import main
from d2f.bench.shapes import (
    Timing,
    caps,
    floor_ms,
    random_network,
    tiny,
    tokens_per_second,
)
from d2f.catalogue.pairs import PUBLISHED_PAIRS
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.save import save_model
from d2f.nn.compiled import uncollected
from d2f.nn.transformer import Transformer
from d2f.shape import BYTES

CPU = torch.device("cpu")
SMALL = ["--suite", "shape", "--random", "--tiny", "--device", "cpu"]
QUICK = ["--dtypes", "float32", "--contexts", "16", "--windows", "1", "8"]
PAGE = Path(__file__).parents[1] / "docs" / "gpu.md"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2f.bench.shapes.SECONDS", 0.0)


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*SMALL, *arguments]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["llada-8b-instruct", "qwen2.5-7b"])
def test_the_floor_reads_every_weight_but_the_embeddings_and_the_cache_once(
    name: str, tied: bool, dtype: str
) -> None:
    config = replace(tiny(shape_suite.shape_of(name, 128)), tied_head=tied)
    net = random_network(config, CPU, dtype)
    read = sum(weight.numel() for weight in net.parameters())
    if not tied:
        read -= net.embed_tokens.weight.numel()
    cache = net.new_cache(40)
    read += sum(rows.numel() for rows in (*cache.keys, *cache.values))
    assert floor_ms(config, dtype, 40, speed=1e9) == pytest.approx(read * BYTES[dtype] / 1e6)


def test_random_weights_are_finite_the_same_each_time_and_of_the_dtype() -> None:
    config = tiny(shape_suite.shape_of("dream", 64))
    one, other = (random_network(config, CPU, "bfloat16") for _ in range(2))
    for weight, same in zip(one.parameters(), other.parameters(), strict=True):
        assert weight.dtype == torch.bfloat16 and weight.isfinite().all()
        assert weight.equal(same)
    linear = [module for module in one.modules() if isinstance(module, nn.Linear)]
    assert all(module.weight.float().std() > 0.05 for module in linear)


def test_a_network_of_the_catalogue_has_its_shape_and_sees_what_is_measured() -> None:
    for name, model in PUBLISHED.items():
        config = shape_suite.shape_of(name, 12345)
        assert config.parameters == model.shape.parameters
        assert (config.max_length, config.causal) == (12345, model.decoder == "ar")
    for pair in PUBLISHED_PAIRS.values():
        assert shape_suite.shape_of(pair.name, 9) == shape_suite.shape_of(pair.d2f, 9)


def timing(window: int, ms: float, context: int = 512) -> Timing:
    return Timing(
        dtype="bfloat16",
        attention="sdpa",
        forward="graphs",
        context=context,
        window=window,
        ms=ms,
        host_ms=None,
        floor_ms=5.0,
        steps=5,
    )


def test_tokens_a_second_follow_from_tokens_a_forward_of_one_context() -> None:
    rows = [timing(1, 5.0), timing(2, 5.0), timing(64, 8.0), timing(64, 99.0, context=8192)]
    rows = [timing(64, 99.0, context=16), *rows]
    found = [
        (row["context"], row["window"], row["tokens_per_forward"], row["tokens_per_second"])
        for row in tokens_per_second(rows, [2.0, 4.0])
    ]
    # Two rows never give four tokens.
    assert found == [
        (512, 1, 1.0, 200.0),
        (512, 2, 2.0, 400.0),
        (512, 64, 2.0, 250.0),
        (512, 64, 4.0, 500.0),
    ]


@pytest.mark.parametrize(
    ("times", "widest", "blocks"),
    [
        ({1: 1.0, 32: 4.0, 64: 4.5, 128: 5.0, 256: 5.1}, 128, 3),
        ({32: 4.0, 64: 5.1}, 32, 1),
        ({16: 1.0, 48: 4.0, 96: 5.0}, 96, 2),
    ],
)
def test_windows_are_capped_where_wider_ones_cost_more(
    times: dict[int, float], widest: int, blocks: int
) -> None:
    rows = [timing(window, ms) for window, ms in times.items()]
    (cap,) = caps(rows, block_size=32, most=1.25)
    assert (cap["widest"], cap["max_active_blocks"]) == (widest, blocks)
    assert caps([timing(1, 1.0), timing(8, 1.0)], block_size=32, most=1.25) == []


@pytest.mark.parametrize("model", ["llada", "dream", "llama-3-8b-instruct", "mini-ar"])
def test_every_cell_is_measured_against_its_floor(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "shape.json"
    wanted = ["--forwards", "eager", "graphs", "--windows", "1", "8", "40", "--block-size", "8"]
    result = measured(capsys, *QUICK[:4], *wanted, "--model", model, "--out", str(out))
    assert json.loads(out.read_text()) == result
    cells = [(row["forward"], row["context"], row["window"]) for row in result["rows"]]
    assert cells == [(f, 16, window) for f in ("eager", "graphs") for window in (1, 8, 40)]
    assert all(row["ms"] > row["floor_ms"] > 0 and row["steps"] >= 5 for row in result["rows"])
    assert {row["host_ms"] for row in result["rows"]} == {None}
    assert (result["refused"], result["skipped"], result["weights"]) == ([], 0, "random")
    by_rows = {(r["forward"], r["window"]): r["ms"] for r in result["rows"]}
    for row in result["computed"]:
        ms = by_rows[row["forward"], row["window"]]
        assert row["tokens_per_second"] == 1000 * row["tokens_per_forward"] / ms
    assert len(result["caps"]["rows"]) == 2


def test_the_tables_mark_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *QUICK, "--model", "llada", "--tokens-per-forward", "3"]) == 0
    *told, last = capsys.readouterr().out.splitlines()
    assert shape_suite.text_of(json.loads(last)) == "\n".join(told)
    head = told.index("Computed, not measured: tokens/s at so many tokens a forward:")
    assert told[head + 2].split() == [
        *("dtype", "attention", "forward", "context", "window", "1.0", "3.0")
    ]


def test_what_has_not_begun_in_time_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured(capsys, *QUICK, "--model", "llada", "--seconds", "0.000001")
    assert (result["rows"], result["skipped"], result["computed"]) == ([], 2, [])


def test_a_network_is_gone_before_the_next_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of 8 B would not fit a GPU; programs and their workspace hold each other."""
    made: list[ref[Transformer]] = []

    def watched(*arguments: Any) -> Transformer:
        assert [net() for net in made] == [None] * len(made)
        net = random_network(*arguments)
        made.append(ref(net))
        return net

    monkeypatch.setattr(shape_suite, "random_network", watched)
    with uncollected():
        ways = ["--dtypes", "float32", "bfloat16", "--forwards", "graphs", "eager"]
        result = measured(capsys, *QUICK[2:], *ways, "--model", "llada")
    assert len(made) == 2 and len(result["rows"]) == 8


def test_what_cannot_run_here_is_told_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = measured(capsys, *QUICK, "--model", "llada", "--attentions", "flash", "sdpa")
    assert [row["attention"] for row in result["rows"]] == ["sdpa", "sdpa"]
    (refused,) = result["refused"]
    assert refused["reason"] == "attention 'flash' needs a CUDA GPU, got device 'cpu'"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--random", "--attentions", "flash"], "attention 'flash' needs a CUDA GPU"),
        (["--random", "--device", "cuda:7"], "device 'cuda:7' is not there"),
        (["--tiny"], "--tiny needs --random"),
        (["--random", "--windows", "0"], "must be an integer of 1"),
        (["--random", "--seconds", "-1"], "must be a number above 0"),
        (["--random", "--dtypes", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    known = ["--suite", "shape", "--model", "mini-ar", *QUICK]
    if "--device" not in arguments:
        known += ["--device", "cpu"]
    try:
        status = main([*known, *arguments])
    except SystemExit as error:
        status = error.code
    out, err = capsys.readouterr()
    assert (status, out) == (2, "") and told in err.splitlines()[-1]


def test_a_network_too_large_for_the_device_is_refused_before_it_is_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape_suite, "free_memory", lambda device: 8_000_000_000)
    monkeypatch.setattr(shape_suite, "random_network", None)
    asked = ["--suite", "shape", "--random", "--model", "llada", "--device", "cpu", *QUICK]
    assert main(asked) == 2
    assert "llada needs about 32 GB of memory in float32, and 8.0 GB are free" in (
        capsys.readouterr().err
    )


def test_loaded_weights_are_measured_within_their_context(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tokenizer_folder: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tokenizer_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = replace(tiny(shape_suite.shape_of("qwen2.5-7b", 64)), vocab_size=1024)
    save_model(random_network(config, CPU, "float32"), folder, [4])
    asked = ["--suite", "shape", "--device", "cpu", "--model", str(folder)]
    assert main([*asked, *QUICK, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["weights"] == "loaded" and len(result["rows"]) == 2
    assert main([*asked, *QUICK[:2], "--contexts", "60", "--windows", "8"]) == 2
    assert "reach 68 tokens, and the model's context is 64" in capsys.readouterr().err


def test_the_floors_of_the_page_are_those_computed() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    named = {"LLaDA-8B": "llada", "Llama-3-8B": "llama-3-8b-instruct", "Dream-7B": "dream"}
    for title, name in named.items():
        floor = floor_ms(shape_suite.shape_of(name, 1), "bfloat16", 0, speed=3.0e12)
        assert f"{floor:.1f} ms for {title}" in page


def test_the_page_explains_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    result = measured(capsys, *QUICK, "--model", "llada", "--block-size", "8")
    fields = {*result, *result["rows"][0], *result["computed"][0], *result["caps"]["rows"][0]}
    assert {name for name in fields if f"`{name}`" not in page} == set()
