"""Held tokens: decoding around them is exact, and what cannot be held is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_decode_d2f import MASK, Case, cases, check, model_of
from tiny import network

from d2f import ARConfig, D2FConfig, DecodeConfig, Model, Trace, VanillaConfig, generate, stream
from d2f.errors import InvalidInput
from d2f.nn.compiled import Fixed
from d2f.policy import Held
from d2f.policy.pipelined import BlockPipeline
from d2f.tokenizer import Tokenizer

PROMPT = (40, 41, 42)


@st.composite
def held_cases(draw: st.DrawFn) -> Case:
    """Any case with some tokens held: single ones, whole blocks, the beginning, the end."""
    case = draw(cases())
    last = case.config.max_new_tokens - 1
    assume(last > 1)
    single = draw(st.sets(st.integers(0, last), max_size=6))
    start = draw(st.integers(0, last))
    run = range(start, min(start + draw(st.integers(0, 40)), last + 1))
    places = sorted(single | set(run))
    assume(len(places) <= last)
    ids = draw(st.lists(st.integers(2, 260), min_size=len(places), max_size=len(places)))
    return replace(case, hold=tuple(zip(places, ids, strict=True)))


@settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
@given(case=held_cases())
def test_decoding_around_held_tokens_equals_full_recomputation(
    case: Case, tokenizer_folder: Path
) -> None:
    model, _ = model_of(case, tokenizer_folder)
    stops = [place for place, token in case.hold if token in model.tokenizer.stop_ids]
    end = min(stops, default=case.config.max_new_tokens)
    assume(not {place for place, _ in case.hold} >= set(range(end)))
    events = check(case, tokenizer_folder)
    held = {len(case.prompt) + place for place, _ in case.hold}
    assert not held & {commit.position for event in events for commit in event.commits}


@pytest.fixture
def diffusion(tokenizer: Tokenizer) -> Model:
    net = network(tokenizer.vocab_size, mask_id=MASK, logit_shift=True, sharpness=6)
    return Model("tiny", net, tokenizer)


@pytest.fixture
def causal(tokenizer: Tokenizer) -> Model:
    return Model("tiny-ar", network(tokenizer.vocab_size, causal=True), tokenizer)


def pipeline(*held: int, stops: tuple[int, ...] = (), **changes: Any) -> BlockPipeline:
    """Prompt 0..4; blocks of four: [5, 9), [9, 13), [13, 17)."""
    values = {"block_size": 4, "max_new_tokens": 12, "tau_add": 0.5, "tau_act": 0.75} | changes
    return BlockPipeline(5, D2FConfig(**values), Held(frozenset(held), frozenset(stops)))


def test_blocks_that_are_held_whole_join_at_once_and_are_cached_by_the_first_forward() -> None:
    blocks = pipeline(5, 6, 7, 8, 9)
    plan = blocks.plan()
    assert (plan.window, plan.wanted, plan.final) == ((0, 13), [10, 11, 12], 9)
    assert plan.ends == [5] * 5 + [9] * 4 + [13] * 4


def test_held_tokens_count_as_decided() -> None:
    """Two of four decided: tau_add = .5 lets the next block join in the next step."""
    blocks = pipeline(6, 7)
    assert blocks.plan().window == (0, 9)
    blocks.record([], [])
    assert blocks.plan().wanted == [5, 8, 9, 10, 11, 12]


def test_a_held_stop_ends_the_answer_once_all_before_it_is_decided() -> None:
    blocks = pipeline(10, stops=(10,), tau_add=1.0)
    assert blocks.plan().wanted == [5, 6, 7, 8]
    blocks.record([5, 6, 7, 8], [])
    assert blocks.finish_reason is None
    assert blocks.plan().wanted == [9, 11, 12]
    blocks.record([9], [])
    assert blocks.finish_reason == "stop"


@pytest.mark.parametrize("size", [1, 4, 8])
def test_what_if_of_a_whole_beginning_decodes_the_same_end(diffusion: Model, size: int) -> None:
    """One block at a time, later blocks know all earlier tokens: held ones change nothing."""
    config = D2FConfig(
        max_new_tokens=32, block_size=size, tau_conf=0.5, max_active_blocks=1, tau_add=1.0
    )
    whole = generate(diffusion, PROMPT, config)
    hold = dict(enumerate(whole.token_ids[:16]))
    branch = generate(diffusion, PROMPT, config, hold=hold)
    assert branch.token_ids == whole.token_ids
    assert branch.forwards < whole.forwards
    assert branch.tokens == whole.tokens - 16


def test_ar_goes_on_from_a_held_beginning_as_from_a_longer_prompt(causal: Model) -> None:
    config = ARConfig(max_new_tokens=24)
    hold = {0: 50, 1: 51, 2: 52}
    branch = generate(causal, PROMPT, config, hold=hold)
    longer = generate(causal, (*PROMPT, 50, 51, 52), replace(config, max_new_tokens=21))
    assert branch.token_ids == (50, 51, 52, *longer.token_ids)
    assert branch.tokens == longer.tokens


def test_ar_cannot_hold_behind_a_gap(causal: Model) -> None:
    with pytest.raises(InvalidInput, match="from left to right"):
        stream(causal, PROMPT, ARConfig(max_new_tokens=8), hold={0: 50, 2: 51})


def test_vanilla_fills_the_gaps(diffusion: Model) -> None:
    config = VanillaConfig(max_new_tokens=6, block_size=3)
    trace = generate(diffusion, PROMPT, config, hold={0: 50, 3: 51, 4: 52, 5: 53})
    assert [c.position for e in trace.events for c in e.commits] in ([4, 5], [5, 4])
    assert trace.forwards == trace.tokens == 2
    assert (trace.token_ids[0], *trace.token_ids[3:]) == (50, 51, 52, 53)


CONFIGS: list[DecodeConfig] = [
    D2FConfig(max_new_tokens=20, block_size=4, tau_conf=0.6),
    VanillaConfig(max_new_tokens=20),
]


@pytest.mark.parametrize("config", CONFIGS, ids=("d2f", "vanilla"))
def test_no_stop_token_is_decided_before_the_last_held_token(
    config: DecodeConfig, tokenizer_folder: Path
) -> None:
    """A third of all ids stops: without care, nearly every gap would end the answer."""
    tokenizer = Tokenizer(tokenizer_folder, range(5, 5000, 3))
    net = network(tokenizer.vocab_size, mask_id=MASK, logit_shift=True)
    trace = generate(Model("tiny", net, tokenizer), PROMPT, config, hold={15: 51})
    assert trace.token_ids[15] == 51
    assert not set(trace.token_ids[:15]) & set(tokenizer.stop_ids)


def test_fixed_shapes_decode_the_same_around_held_tokens(diffusion: Model) -> None:
    """Gaps far apart: the windows between are longer than any without held tokens."""
    fixed = replace(diffusion, fixed=Fixed(diffusion.net))
    config = D2FConfig(max_new_tokens=64, block_size=4, tau_conf=0.5, max_active_blocks=1)
    hold = {place: 50 + place for place in range(64) if place not in (2, 3, 33, 60, 61)}
    eager, padded = (generate(model, PROMPT, config, hold=hold) for model in (diffusion, fixed))
    assert max(event.window[1] - event.window[0] for event in eager.events[1:]) > 8
    assert padded.token_ids == eager.token_ids
    assert [e.commits for e in padded.events] != []


@pytest.mark.parametrize(
    ("hold", "message"),
    [
        ({-1: 50}, "places from 0 to max_new_tokens - 1 = 7, got -1"),
        ({8: 50}, "places from 0 to max_new_tokens - 1 = 7, got 8"),
        ({True: 50}, "got True"),
        ({0: -1}, "token ids of the model, got -1 at 0"),
        ({0: 10**6}, "token ids of the model, got 1000000 at 0"),
        ({0: MASK}, "token ids of the model, got 1 at 0"),
        (dict.fromkeys(range(8), 50), "leave a place to decode"),
    ],
)
def test_what_cannot_be_held_is_refused(
    hold: dict[int, int], message: str, diffusion: Model
) -> None:
    with pytest.raises(InvalidInput, match=message):
        stream(diffusion, PROMPT, D2FConfig(max_new_tokens=8), hold=hold)


def test_all_held_before_a_held_stop_leaves_nothing(diffusion: Model) -> None:
    stop = diffusion.tokenizer.stop_ids[0]
    with pytest.raises(InvalidInput, match="leave a place to decode"):
        stream(diffusion, PROMPT, D2FConfig(max_new_tokens=8), hold={0: 50, 1: stop})


ALL = [D2FConfig(max_new_tokens=24, block_size=4, tau_conf=0.5), VanillaConfig(max_new_tokens=12)]


@pytest.mark.parametrize("config", ALL, ids=("d2f", "vanilla"))
def test_an_inspected_run_decides_the_same(diffusion: Model, config: DecodeConfig) -> None:
    plain = generate(diffusion, PROMPT, config)
    inspected = generate(diffusion, PROMPT, config, inspect=True)
    for ours, theirs in zip(plain.events, inspected.events, strict=True):
        assert ours.commits == tuple(replace(c, candidates=()) for c in theirs.commits)
        assert ours.guesses == ()
    assert any(event.guesses for event in inspected.events)


def test_guesses_and_candidates_are_the_models_own_probabilities(diffusion: Model) -> None:
    """The first step of vanilla decoding, against one forward over the whole canvas."""
    config = VanillaConfig(max_new_tokens=4)
    [first, *_] = stream(diffusion, PROMPT, config, inspect=True)
    with torch.inference_mode():
        hidden = diffusion.net(torch.tensor([[*PROMPT, MASK, MASK, MASK, MASK]]), None)
        logits = diffusion.net.logits(hidden[0, 2:6])
        logits[:, diffusion.forbidden] = -torch.inf
        best = logits.softmax(-1).topk(5)
    told = {g.position: (g.token_id, g.confidence) for g in first.guesses}
    [commit] = first.commits
    for row, position in enumerate(range(3, 7)):
        ids, values = best.indices[row].tolist(), best.values[row].tolist()
        if position == commit.position:
            assert [i for i, _ in commit.candidates] == ids
            assert [p for _, p in commit.candidates] == pytest.approx(values, abs=1e-6)
            assert commit.candidates[0] == (commit.token_id, commit.confidence)
        else:
            assert told.pop(position) == (ids[0], pytest.approx(values[0], abs=1e-6))
    assert not told


def test_a_trace_keeps_what_was_held_and_inspected(diffusion: Model) -> None:
    config = D2FConfig(max_new_tokens=12, block_size=4, tau_conf=0.6)
    trace = generate(diffusion, PROMPT, config, hold={5: 60, 2: 61}, inspect=True)
    assert trace.header.held == ((2, 61), (5, 60))
    assert (trace.token_ids[2], trace.token_ids[5]) == (61, 60)
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize("held", ("[[2]]", "[[2,true]]", "7"))
def test_a_trace_with_damaged_held_tokens_is_refused(diffusion: Model, held: str) -> None:
    config = D2FConfig(max_new_tokens=12, block_size=4, tau_conf=0.6)
    text = generate(diffusion, PROMPT, config, hold={2: 61}).to_json()
    assert text.count('"held":[[2,61]]') == 1
    with pytest.raises(InvalidInput):
        Trace.from_json(text.replace('"held":[[2,61]]', f'"held":{held}'))


@pytest.mark.parametrize("guess", ('["a",1,0.5]', "[1,1]", "[1,1,1.5]", "7"))
def test_a_trace_with_a_damaged_guess_is_refused(diffusion: Model, guess: str) -> None:
    text = generate(diffusion, PROMPT, VanillaConfig(max_new_tokens=3), inspect=True).to_json()
    assert '"guesses":[[' in text
    with pytest.raises(InvalidInput):
        Trace.from_json(text.replace('"guesses":[', f'"guesses":[{guess},', 1))
