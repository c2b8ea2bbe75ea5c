"""What else D2F can race: each is a pair like any other, from the page's menu to a link."""

from dataclasses import replace
from pathlib import Path

import pytest
from folders import save_models

from app.conversation import Conversation
from app.lanes.lane import Host, Question, pair_lanes
from app.lanes.rivals import DRAFTED, rivals
from app.lanes.runners import trained_lanes
from app.options import with_rivals
from app.page.tell import SETTINGS, retell, tell
from app.race import merge
from app.recordings.link import from_link, to_link
from app.recordings.recording import record
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS
from d2f.config import ARConfig, decoder_name

MINI = PAIRS["mini"]
NAMES = {
    "mini-ar-lookup": ("ar", "mini-ar", "AR + lookup"),
    "mini-vanilla": ("vanilla", "mini-dllm", "vanilla diffusion"),
    "mini-fast-dllm-prefix": ("fast-dllm-prefix", "mini-dllm", "Fast-dLLM, prefix cache"),
    "mini-fast-dllm-dual": ("fast-dllm-dual", "mini-dllm", "Fast-dLLM, dual cache"),
}


def test_every_other_lane_of_a_pair_can_be_raced() -> None:
    found = {each.name: each for each in rivals(MINI)}
    assert found.keys() == NAMES.keys()
    for name, (decoder, model, _) in NAMES.items():
        pair = found[name]
        assert pair.racing == ("d2f", decoder)
        assert pair.lanes[decoder][0] == model
        assert model in pair.title
    assert list(with_rivals(PAIRS)) == ["mini", *NAMES]
    titles = [each.title for each in with_rivals(PAIRS | PUBLISHED_PAIRS).values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("name", NAMES)
def test_both_lanes_are_as_long_and_sample_alike(name: str) -> None:
    asked = replace(MINI.config, max_new_tokens=31, temperature=0.5, seed=7)
    pair = replace(with_rivals(PAIRS)[name], config=asked)
    config = pair.raced(pair.rival)
    assert decoder_name(config) == pair.rival
    shared = (config.max_new_tokens, config.temperature, config.seed)
    assert shared == (31, 0.5, 7)
    assert pair.raced("d2f") == asked
    if isinstance(config, ARConfig):
        assert config.prompt_lookup == DRAFTED


@pytest.mark.parametrize("name", NAMES)
def test_a_race_against_each_is_run_kept_and_linked(
    name: str, tmp_path: Path, tokenizer_folder: Path
) -> None:
    host = Host(models_dir=save_models(tmp_path, tokenizer_folder), pairs=with_rivals(PAIRS))
    pair = host.pair(name)
    config = replace(pair.config, max_new_tokens=24)
    lanes = pair_lanes(Question(pair, "Count.", config, Conversation(name)), host)
    moves = list(merge(lanes))
    assert {index for index, _ in moves} == {0, 1}
    assert [lane.name for lane in lanes] == ["D2F", NAMES[name][2]] == trained_lanes(pair)
    assert all(lane.finished for lane in lanes)
    recording = record("Count.", lanes, "")
    linked = from_link(to_link(recording))
    assert [lane.trace.header.config for lane in linked.lanes] == [
        lane.header.config for lane in lanes
    ]
    assert retell(linked)[0]["lanes"][1]["decoder"] == NAMES[name][0]


def test_the_page_tells_a_race_against_fast_dllm(tmp_path: Path, tokenizer_folder: Path) -> None:
    host = Host(models_dir=save_models(tmp_path, tokenizer_folder), pairs=with_rivals(PAIRS))
    values = {name: getattr(MINI.config, name) for name in SETTINGS} | {"max_new_tokens": 16}
    told = list(tell("Count.", "mini-fast-dllm-dual", list(values.values()), None, host))
    last = told[-1].messages[-1]
    assert last["kind"] == "end"
    assert "Fast-dLLM, dual cache" in last["summary"]
    assert last["link"].keys() == {"race"}
