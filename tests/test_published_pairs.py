"""The published pairs as a user meets them, on a hub cache of tiny models under their ids."""

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hubcache import MAIN, use_cache, write_cache

from app.conversation import Conversation
from app.lanes.lane import Host, Lane, Question, forget_models, pair_lanes
from app.page.form import form
from app.page.tell import Told, tell
from app.recordings.link import from_link, to_link
from d2f import D2FConfig, Trace, load_model
from d2f.catalogue.choices import RUNS
from d2f.catalogue.pairs import PUBLISHED_PAIRS, READY, against, pair_memory, pair_state
from d2f.catalogue.published import PUBLISHED
from d2f.checkpoints.resolve import known_shape
from d2f.cli.models import found_here, main
from d2f.config import config_to_dict
from d2f.run_options import RunOptions

PROMPT, NEXT = "Tom has 3 apples and buys 4 more. How many?", " And twice that? "
HOST = Host(RunOptions(dtype="bfloat16"), pairs=PUBLISHED_PAIRS)
BLOCK_PAIRS = ["coder-0.5b", "a2d-0.6b", "sdar-1.7b"]
LLADA, LLADA_LORA = "GSAI-ML/LLaDA-8B-Instruct", "SJTU-Deng-Lab/D2F_LLaDA_Instruct_8B_Lora"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        cache = write_cache(tmp_path_factory.mktemp("machine"), tokenizer_folder)
        use_cache(patch, cache)
        yield cache
    forget_models()


def settings_of_page(pair: str) -> dict[str, Any]:
    """The settings that the page's form begins with."""
    pairs = form("mini", HOST, {}, [])["pairs"]
    return next(each["settings"] for each in pairs if each["name"] == pair)


def run(pair: str, prompt: str, past: Any = None) -> tuple[list[dict[str, Any]], Told]:
    """All messages of a race with the page's own settings, and what it keeps of it."""
    settings = list(settings_of_page(pair).values())
    told = list(tell(prompt, pair, settings, None, HOST, past))
    return [m for each in told for m in each.messages], told[-1]


def lanes_of(pair: str) -> list[Lane]:
    """The lanes of a race that is not run, for their tokenizers."""
    chosen = PUBLISHED_PAIRS[pair]
    return pair_lanes(Question(chosen, PROMPT, chosen.config, Conversation(pair)), HOST)


def test_the_catalogue_finds_them_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    states = {row["name"]: (row["state"], row["group"]) for row in found["pairs"]}
    whole = ["mini", "llada", "dream-base", "dream", *BLOCK_PAIRS]
    assert {name: states[name] for name in whole} == dict.fromkeys(whole, ("ready", RUNS))
    here = {row["name"] for row in found["published"] if row["downloaded"]}
    assert {PUBLISHED_PAIRS[name].d2f for name in whole[1:]} <= here
    assert main(["--device", "cpu"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["llada"].split()[1:9] == [
        *("1.1", "GB", "d2f-llada-8b-instruct", "against", "llama-3-8b-instruct"),
        *("ready", "on", "the"),
    ]


def test_the_files_at_hand_decide_the_size() -> None:
    tiny = known_shape(PUBLISHED["d2f-llada-8b-instruct"])
    assert (tiny.num_layers, tiny.hidden_size) == (2, 48)
    assert found_here("cpu").shapes["dream-7b-base"].num_layers == 2
    model = load_model("llama-3-8b-instruct", dtype="bfloat16")
    assert (model.config.num_layers, model.config.max_length) == (2, 8192)


def test_the_settings_of_the_paper_are_those_of_the_page() -> None:
    """Table 8: MATH for LLaDA, GSM8K for Dream."""
    for pair, length, shared in (("llada", 512, 32), ("dream-base", 256, 32), ("dream", 256, 32)):
        shown = settings_of_page(pair)
        config = D2FConfig(max_new_tokens=length, block_size=shared, tau_add=0.1, tau_conf=0.9)
        assert shown == {name: getattr(config, name) for name in shown}
        assert {"max_new_tokens", "block_size", "tau_add", "tau_conf"} <= shown.keys()


CHATS = {
    "llada": (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "dream": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{0}"
        "<|im_end|>\n<|im_start|>assistant\n",
    )
    * 2,
}
CHATS["dream-base"] = CHATS["dream"]
STOPS = {
    "llada": [{"<|endoftext|>", "<|eot_id|>"}, {"<|end_of_text|>", "<|eot_id|>"}],
    "dream-base": [{"<|endoftext|>", "<|im_end|>"}] * 2,
    "dream": [{"<|endoftext|>", "<|im_end|>"}] * 2,
}


@pytest.mark.parametrize("pair", CHATS)
def test_both_lanes_are_asked_in_their_models_own_words(pair: str) -> None:
    for lane, name, chat, stops in zip(
        lanes_of(pair),
        (PUBLISHED_PAIRS[pair].d2f, PUBLISHED_PAIRS[pair].ar),
        CHATS[pair],
        STOPS[pair],
        strict=True,
    ):
        assert (lane.header.model, lane.header.dtype) == (name, "bfloat16")
        assert "".join(map(lane.token_text, lane.header.prompt_ids)) == chat.format(PROMPT)
        assert set(map(lane.token_text, lane.header.stop_ids)) == stops
        lane.close()


@pytest.mark.parametrize("pair", ["llada", "dream"])
def test_a_race_and_a_follow_up_are_told_to_their_ends(pair: str) -> None:
    messages, told = run(pair, PROMPT)
    kinds = [message["kind"] for message in messages]
    assert "error" not in kinds and kinds[-1] == "end"
    assert kinds.count("start") == kinds.count("end") == 1
    assert told.recording is not None
    first = [lane.trace for lane in told.recording.lanes]
    answers = [lane.get("spoken", lane["text"]) for lane in messages[-1]["lanes"]]
    again, follow = run(pair, NEXT, Conversation(pair).with_turn(PROMPT, answers))
    assert again[-1]["kind"] == "end" and follow.recording is not None
    second = [lane.trace for lane in follow.recording.lanes]
    for one, two, answer, lane in zip(first, second, answers, lanes_of(pair), strict=True):
        check_answer(one, lane)
        check_answer(two, lane)
        begun = len(one.header.prompt_ids)
        assert two.header.prompt_ids[:begun] == one.header.prompt_ids
        rest = lane.decode(two.header.prompt_ids[begun:]).strip()
        assert rest.startswith(answer.strip()) and NEXT.strip() in rest
        lane.close()
    steps = [message for message in messages if message["kind"] == "step"]
    assert len(steps) == sum(trace.forwards for trace in first)


@pytest.mark.parametrize("pair", BLOCK_PAIRS)
def test_models_of_blocks_race_to_the_end(pair: str) -> None:
    """On their own grid: SDAR's answers begin inside a block, of which the page draws its part."""
    known = PUBLISHED_PAIRS[pair]
    messages, told = run(pair, PROMPT)
    assert not [message for message in messages if message["kind"] == "error"]
    assert messages[-1]["kind"] == "end" and told.recording is not None
    lanes = told.recording.lanes
    assert [lane.trace.header.model for lane in lanes] == [known.d2f, known.ar]
    trace = lanes[0].trace
    assert trace.header.config == known.config and trace.finish_reason in ("stop", "length")
    model = load_model(known.d2f, dtype="bfloat16")
    committed = {commit.token_id for event in trace.events for commit in event.commits}
    assert model.config.mask_id == model.tokenizer.mask_id not in committed
    length, size = len(trace.header.prompt_ids), known.config.block_size
    (start,) = [message for message in messages if message["kind"] == "start"]
    expected = length % size if known.config.grid == "start" else 0
    assert start["lanes"][0].get("shared", 0) == expected
    assert all(view.start >= length for event in trace.events for view in event.blocks)
    link = to_link(told.recording)
    assert [lane.trace.text for lane in from_link(link).lanes] == [x.trace.text for x in lanes]


def check_answer(trace: Trace, lane: Lane) -> None:
    """Every token is one of the tokenizer's, none the mask, and the first stop ends the answer."""
    committed = [commit.token_id for event in trace.events for commit in event.commits]
    model = load_model(trace.header.model, dtype="bfloat16")
    assert max(committed) < model.tokenizer.vocab_size < model.config.vocab_size
    assert model.config.mask_id not in committed
    assert not {"<|mdm_mask|>", "<|mask|>"} & set(map(lane.token_text, committed))
    assert trace.finish_reason == "stop" and trace.token_ids[-1] in trace.header.stop_ids
    assert not set(trace.token_ids[:-1]) & set(trace.header.stop_ids)
    # A recording shows control characters as U+FFFD.
    written = zip(trace.text, lane.decode(trace.token_ids[:-1]), strict=True)
    assert all(shown in (character, "\ufffd") for shown, character in written)
    assert 0 < trace.tokens < trace.header.config.max_new_tokens


def test_a_model_and_its_adapter_are_loaded_by_their_ids(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = []
    for choice in (
        ("--model", "d2f-llada-8b-instruct"),
        ("--model", LLADA, "--adapter", LLADA_LORA, "--max-new-tokens", "512"),
        ("--model", f"{LLADA}@main", "--adapter", f"{LLADA_LORA}@{MAIN}"),
        ("--model", LLADA),
    ):
        given = (*choice, "--prompt", PROMPT, "--dtype", "bfloat16", "--json")
        monkeypatch.setattr(sys, "argv", ["d2f.generate", *given])
        with pytest.raises(SystemExit) as status:
            runpy.run_module("d2f.generate", run_name="__main__")
        assert not status.value.code
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0]["config"] == config_to_dict(D2FConfig(max_new_tokens=512, tau_add=0.1))
    assert answers[0]["token_ids"] == answers[1]["token_ids"] == answers[2]["token_ids"]
    assert answers[0]["token_ids"] != answers[3]["token_ids"]


def test_an_adapter_that_is_nowhere_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--model", LLADA, "--adapter", "nobody/lora", "--prompt", PROMPT)
    monkeypatch.setattr(sys, "argv", ["d2f.generate", *given])
    with pytest.raises(SystemExit):
        runpy.run_module("d2f.generate", run_name="__main__")
    said = capsys.readouterr().err
    assert "no adapter folder 'nobody/lora'; on the hub: nobody/lora is not (all)" in said


def test_another_partner_and_a_folder_of_its_own(cache: Path, tmp_path: Path) -> None:
    pair = against(PUBLISHED_PAIRS["llada"], "qwen2.5-7b-instruct")
    here = found_here("cpu")
    assert pair_state(pair, here).kind == READY
    snapshots = cache / "models--meta-llama--Meta-Llama-3-8B-Instruct" / "snapshots"
    (tmp_path / "llama-3-8b-instruct").symlink_to(next(snapshots.iterdir()))
    here = found_here("cpu", tmp_path)
    assert list(here.folders) == ["llama-3-8b-instruct"]
    assert pair_memory(pair, shapes=here.shapes) < pair_memory(pair)


def test_a_damaged_file_bars_no_other_model(tmp_path: Path) -> None:
    folder = tmp_path / "llama-3-8b-instruct"
    folder.mkdir()
    (folder / "config.json").write_text("{")
    here = found_here("cpu", tmp_path)
    assert "llama-3-8b-instruct" not in here.shapes and len(here.shapes) == len(PUBLISHED) - 1
    assert pair_state(PUBLISHED_PAIRS["dream"], here).kind == READY
