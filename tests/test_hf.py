"""transformers' own generate as a lane: the same tokens as the engine's AR, step by step."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from folders import save_models

from app.lanes.lane import reference_lane
from app.lanes.runners import Transformers, rival_pair
from app.lanes.transformers import Reference, generate_steps, warm_reference
from app.race import merge
from d2f import ARConfig, generate, load_model
from d2f.catalogue.pairs import PAIRS

CHAT = [{"role": "user", "content": "Count."}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return save_models(tmp_path_factory.mktemp("models"), tokenizer_folder) / "mini-ar"


@pytest.fixture(scope="module")
def reference(folder: Path) -> Iterator[Reference]:
    yield warm_reference(str(folder), "cpu", "float32")
    warm_reference.cache_clear()


def test_tokens_windows_and_confidences_are_those_of_the_engine(folder: Path, reference: Reference):
    config = ARConfig(max_new_tokens=40)
    model = load_model(folder)
    ours = generate(model, model.tokenizer.encode_chat(CHAT), config)
    lane = reference_lane("AR", reference, CHAT, config)
    list(merge([lane]))
    assert lane.trace.token_ids == ours.token_ids
    assert lane.trace.text == ours.text
    assert lane.trace.header.model == "mini-ar, transformers generate"
    assert lane.trace.header.prompt_ids == ours.header.prompt_ids
    for theirs, event in zip(lane.trace.events, ours.events, strict=True):
        assert (theirs.step, theirs.window, theirs.cache_length, theirs.finish_reason) == (
            event.step,
            event.window,
            event.cache_length,
            event.finish_reason,
        )
        assert theirs.seconds > 0
        assert theirs.commits[0].confidence == pytest.approx(event.commits[0].confidence, abs=1e-4)


def test_chance_is_repeatable(reference: Reference):
    ids = reference.tokenizer.encode_chat(CHAT)

    def tokens(seed: int) -> list[int]:
        config = ARConfig(max_new_tokens=12, temperature=1.0, top_k=40, top_p=0.9, seed=seed)
        return [event.commits[0].token_id for event in generate_steps(reference, ids, config)]

    assert tokens(1) == tokens(1) != tokens(2)


def test_a_stopped_run_ends_its_thread(reference: Reference):
    before = threading.active_count()
    steps = generate_steps(reference, [5], ARConfig(max_new_tokens=500))
    next(steps)
    next(steps)
    assert threading.active_count() == before + 1
    steps.close()
    assert threading.active_count() == before


def test_a_run_that_cannot_fit_is_refused(reference: Reference):
    with pytest.raises(ValueError, match="exceed the model's context of 768 tokens"):
        generate_steps(reference, [5] * 760, ARConfig(max_new_tokens=9))


def test_a_failure_inside_generate_is_raised_in_the_lane(reference: Reference):
    steps = generate_steps(reference, [10**6], ARConfig(max_new_tokens=4))
    with pytest.raises(IndexError):
        next(steps)


def test_a_folder_that_is_no_model_says_so(tmp_path: Path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="transformers cannot load"):
        warm_reference(str(tmp_path), "cpu", "float32")


def test_the_pair_says_what_decodes_it():
    pair = rival_pair(PAIRS["mini"], {"ar": Transformers()})
    assert (pair.name, pair.title) == (
        "mini-transformers",
        "mini, with AR by transformers generate",
    )
    assert (pair.d2f, pair.ar, pair.config) == ("mini-d2f", "mini-ar", PAIRS["mini"].config)
