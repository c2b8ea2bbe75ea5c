"""The API endpoints, called as clients call them, on the smallest real models."""

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from tiny import network

from app.api import _generate, _race
from app.lanes import warm_model
from d2f import D2FConfig
from d2f.checkpoint import save_model
from d2f.registry import PAIRS, Pair
from d2f.tokenizer import Tokenizer


@pytest.fixture
def pair(tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    tokenizer = Tokenizer(tokenizer_folder)
    for name, changes in {
        "small-d2f": {"mask_id": tokenizer.mask_id},
        "small-ar": {"causal": True, "logit_shift": True},
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in tokenizer_folder.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        net = network(tokenizer.vocab_size, max_length=256, **changes)
        save_model(net, folder, list(tokenizer.stop_ids))
    config = D2FConfig(max_new_tokens=24, block_size=8, max_active_blocks=2)
    small = Pair("small", "small", str(tmp_path / "small-d2f"), str(tmp_path / "small-ar"), config)
    monkeypatch.setitem(PAIRS, "small", small)
    yield small
    warm_model.cache_clear()


def test_a_race_streams_its_messages(pair: Pair):
    messages = list(_race("Hello", "small", {"tau_conf": 0.5}, "cpu", "float32"))
    kinds = [message["kind"] for message in messages if message["kind"] != "status"]
    assert kinds[0] == "start" and kinds[-1] == "end" and set(kinds[1:-1]) == {"step"}
    start = next(message for message in messages if message["kind"] == "start")
    assert [lane["decoder"] for lane in start["lanes"]] == ["d2f", "ar"]


def test_generating_streams_text_and_figures(pair: Pair):
    told = list(_generate("Hello", pair.ar, {"max_new_tokens": 8}, "cpu", "float32"))
    tokens = [each["tokens"] for each in told]
    assert tokens == sorted(tokens) and 1 <= tokens[-1] <= 8
    assert told[-1]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _race("Hello", "none", {}, "cpu", "float32"), "pair must be one of"),
        (lambda: _race("Hello", "mini", {"tau": 1}, "cpu", "float32"), "unknown settings"),
        (lambda: _race(" ", "mini", {}, "cpu", "float32"), "prompt is empty"),
        (lambda: _race("Hello", "mini", {"tau_conf": 7}, "cpu", "float32"), "tau_conf must be in"),
        (lambda: _generate("Hello", "gpt", {}, "cpu", "float32"), "one of the catalogue"),
        (lambda: _generate("\x07", "mini-ar", {}, "cpu", "float32"), "control character"),
        (
            lambda: _generate("Hello", "mini-ar", {"seed": -1}, "cpu", "float32"),
            "seed must be an integer",
        ),
    ],
)
def test_bad_requests_are_told_what_is_wrong(call, message: str):
    with pytest.raises(gr.Error, match=message):
        list(call())
