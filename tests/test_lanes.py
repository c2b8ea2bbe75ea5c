"""A lane: live or recorded, the same to its reader."""

from pathlib import Path

import pytest
from folders import CONTEXT, save_folder, save_models, save_pair
from races import ar_trace, d2f_trace, decode, header, token_text

import app.lanes.lane
from app.lanes.folders import models_in
from app.lanes.lane import Host, Lane, loaded_model, recorded_lane, warm_model
from d2f import ARConfig, D2FConfig, StepEvent
from d2f.errors import TooLittleMemory
from d2f.tokenizer import Tokenizer


@pytest.mark.parametrize("trace", [d2f_trace(), ar_trace()], ids=["d2f", "ar"])
def test_a_recorded_lane_repeats_its_trace(trace):
    lane = recorded_lane("lane", trace, token_text)
    events = []
    while (event := lane.advance()) is not None:
        events.append(event)
        assert lane.seconds == sum(each.seconds for each in events)
    assert lane.trace == trace
    assert lane.advance() is None


def test_closing_a_lane_closes_its_decoder_and_keeps_the_partial_answer():
    closed = []

    def decoder():
        try:
            yield from ar_trace().events
        finally:
            closed.append(True)

    lane = Lane("AR", header(ARConfig(), "small-ar"), decoder(), token_text, decode)
    lane.advance()
    lane.advance()
    lane.close()
    assert closed == [True]
    assert lane.advance() is None
    assert lane.trace.text == "one two"
    assert lane.trace.finish_reason is None


def test_a_checkpoint_that_does_not_load_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="does not load"):
        warm_model(str(tmp_path), "ar", Host())
    with pytest.raises(ValueError, match="no model 'nowhere'"):
        warm_model("nowhere", "ar", Host())


def test_a_folder_of_models_goes_before_the_catalogue(
    tmp_path: Path, tokenizer_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "d2f.catalogue.pairs.EMBEDDED", save_models(tmp_path / "shipped", tokenizer_folder)
    )
    own = tmp_path / "own"
    stops = tokenizer.stop_ids
    save_folder(own / "mini-ar", tokenizer_folder, stops, causal=True, max_length=256)
    save_folder(own / "stranger", tokenizer_folder, stops, max_length=256)
    assert models_in(own) == ["mini-ar"]
    assert models_in(tmp_path) == []
    monkeypatch.chdir(own)
    folders = ((own, 256), (Path(), 256), (tmp_path, CONTEXT), (None, CONTEXT))
    for models_dir, context in folders:
        model = warm_model("mini-ar", "ar", Host(models_dir=models_dir))
        assert (model.name, model.config.max_length) == ("mini-ar", context)
    warm_model.cache_clear()


def test_a_lane_starts_with_a_clock_at_zero():
    lane = recorded_lane("lane", ar_trace(), token_text)
    assert (lane.seconds, lane.events) == (0.0, [])
    assert isinstance(lane.advance(), StepEvent)
    assert lane.seconds == 0.25


def test_models_that_are_in_the_way_go(tmp_path, tokenizer_folder, monkeypatch):
    pair = save_pair(tmp_path, tokenizer_folder, D2FConfig(max_new_tokens=8, block_size=4))
    loaded_model(pair.d2f, Host())
    held = [loaded_model.cache_info().currsize]
    load = app.lanes.lane.load_tuned

    def full_once(*request, **options):
        held.append(loaded_model.cache_info().currsize)
        if held[-1]:
            raise TooLittleMemory("it needs 2 GB, and 1 GB are free")
        return load(*request, **options)

    monkeypatch.setattr(app.lanes.lane, "load_tuned", full_once)
    assert loaded_model(pair.ar, Host()).config.causal
    assert held[0] >= 1 and held[1] >= 1 and held[2] == 0
