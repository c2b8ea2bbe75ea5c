"""Pipelined decoding: the schedule of a slow oracle, an exact cache, progress, cancelling."""

import time
from dataclasses import dataclass, replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import oracle
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sight import block_causal_ends
from tiny import Watched, as_transformers, network
from transformers import PreTrainedModel

from d2f import D2FConfig, Model, StepEvent, VanillaConfig, generate, stream
from d2f.config import GRIDS
from d2f.errors import InvalidInput
from d2f.tokenizer import Tokenizer

MASK = 1
CONTEXT = 128


@cache
def tokenizers(folder: Path) -> dict[str, Tokenizer]:
    """One that nearly never stops, one where a thirtieth of all ids does."""
    return {"rare": Tokenizer(folder), "frequent": Tokenizer(folder, range(5, 5000, 30))}


@cache
def models(vocab_size: int, shift: bool, seed: int, grid: str) -> tuple[Watched, PreTrainedModel]:
    """A random network, and its weights in transformers' class for the oracle."""
    # The head has more rows than the tokenizer has ids, as published checkpoints do.
    net = network(
        vocab_size + 16,
        seed=seed,
        sharpness=(4, 6, 8)[seed % 3],
        logit_shift=shift,
        mask_id=MASK,
        qkv_bias=shift,
        num_kv_heads=(1, 2, 4)[seed % 3],
        grid=grid,
    )
    return net, as_transformers(net)


@dataclass(frozen=True)
class Case:
    prompt: tuple[int, ...]
    config: D2FConfig
    shift: bool
    seed: int
    stops: str
    hold: tuple[tuple[int, int], ...] = ()


RATIOS = st.sampled_from([0.05, 0.1, 0.25, 1 / 3, 0.5, 2 / 3, 0.9, 0.95, 1.0])
CONFIDENCES = st.sampled_from([0.0, 0.2, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8, 0.95, 1.0])


@st.composite
def cases(draw: st.DrawFn, **fixed: Any) -> Case:
    # Ids 2 .. 260 hold stop tokens too: those of the prompt must not count.
    prompt = draw(st.lists(st.integers(2, 260), min_size=1, max_size=40))
    config = {
        "block_size": draw(st.integers(2, 6) | st.integers(1, 17)),
        "max_new_tokens": draw(st.integers(1, 80) | st.integers(30, 80)),
        "tau_add": draw(RATIOS),
        "tau_act": draw(RATIOS),
        "tau_conf": draw(CONFIDENCES),
        "max_active_blocks": draw(st.sampled_from([None, 1, 2, 3])),
        "early_stop": draw(st.booleans()),
        "grid": draw(st.sampled_from(GRIDS)),
    }
    return Case(
        prompt=tuple(prompt),
        config=D2FConfig(**config | fixed),
        shift=draw(st.booleans()),
        seed=draw(st.integers(0, 5)),
        stops=draw(st.sampled_from(["rare", "frequent"])),
    )


def model_of(case: Case, folder: Path) -> tuple[Model, PreTrainedModel]:
    tokenizer = tokenizers(folder)[case.stops]
    net, reference = models(tokenizer.vocab_size, case.shift, case.seed, case.config.grid)
    return Model("tiny", net, tokenizer), reference


def slow_run(case: Case, model: Model, reference: PreTrainedModel) -> oracle.Run:
    config = case.config
    return oracle.decode(
        reference,
        list(case.prompt),
        logit_shift=case.shift,
        mask_id=MASK,
        stop_ids=set(model.tokenizer.stop_ids),
        vocab_size=model.tokenizer.vocab_size,
        block_size=config.block_size,
        max_new_tokens=config.max_new_tokens,
        tau_add=config.tau_add,
        tau_act=config.tau_act,
        tau_conf=config.tau_conf,
        max_active_blocks=config.max_active_blocks,
        early_stop=config.early_stop,
        held=dict(case.hold),
        grid=config.grid,
    )


def assert_same_schedule(events: list[StepEvent], run: oracle.Run) -> None:
    """Every step: window, cache, blocks with their states, commits; and the end."""
    assert [event.step for event in events] == list(range(len(run.steps)))
    seen = 0
    for event, step in zip(events, run.steps, strict=True):
        assert event.window == step["window"]
        assert event.cache_length == step["cache_length"]
        assert event.finish_reason == step["finish"]
        blocks = {
            block.index: {
                "start": block.start,
                "end": block.end,
                "masked": block.num_masked,
                "state": block.state,
            }
            for block in event.blocks
        }
        assert blocks == step["blocks"]
        added = [index for index in blocks if index > seen]
        assert added == step["added"]
        seen = max(seen, *blocks)
        commits = {c.position: (c.token_id, c.forced) for c in event.commits}
        assert commits == {p: (t, forced) for p, (t, _, forced) in step["committed"].items()}
        for commit in event.commits:
            confidence = step["committed"][commit.position][1]
            assert commit.confidence == pytest.approx(confidence, abs=2e-5)


def assert_final_rows(case: Case, net: Watched, events: list[StepEvent]) -> None:
    """The cache holds what one forward over the final tokens computes, to rounding error."""
    kept = net.caches[-1]
    prompt, size = len(case.prompt), case.config.block_size
    whole = prompt - (prompt % size if case.config.grid == "start" else 0)
    assert kept.length == events[-1].cache_length >= whole
    if kept.length == 0:  # the answer ended in the first block
        return
    tokens = dict(enumerate(case.prompt))
    tokens |= {len(case.prompt) + place: token for place, token in case.hold}
    tokens |= {c.position: c.token_id for event in events for c in event.commits}
    ids = torch.tensor([[tokens[position] for position in range(kept.length)]])
    origin = {"prompt": prompt, "start": 0, "remainder": prompt % size}[case.config.grid]
    total = prompt + case.config.max_new_tokens
    ends = block_causal_ends(0, kept.length, origin, size, total)
    fresh = Watched.new_cache(net, kept.length)
    with torch.inference_mode():
        net(ids, ends, fresh)
    for ours, exact in zip(kept.keys + kept.values, fresh.keys + fresh.values, strict=True):
        torch.testing.assert_close(ours[:, :, : kept.length], exact, rtol=0, atol=1e-5)


def assert_progress(case: Case, model: Model, events: list[StepEvent]) -> None:
    """Every step commits, each position at most once, real tokens only, inside the window."""
    positions = [c.position for event in events for c in event.commits]
    assert len(positions) == len(set(positions))
    for event in events:
        assert event.commits
        assert event.seconds > 0
        for commit in event.commits:
            assert event.window[0] <= commit.position < event.window[1]
            assert commit.position >= len(case.prompt)
            assert commit.token_id != MASK
            assert 0 <= commit.token_id < model.tokenizer.vocab_size
            assert 0 < commit.confidence <= 1
    assert [e.finish_reason for e in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1].finish_reason in ("stop", "length")


def check(case: Case, folder: Path) -> list[StepEvent]:
    model, reference = model_of(case, folder)
    net = model.net
    run = slow_run(case, model, reference)
    # A tie within rounding error may fall either way in a correct implementation.
    assume(run.margin > 1e-4)
    net.windows.clear()
    events = list(stream(model, case.prompt, case.config, hold=dict(case.hold)))
    assert net.windows == [event.window for event in events]
    assert_same_schedule(events, run)
    assert_progress(case, model, events)
    assert_final_rows(case, net, events)
    return events


@settings(max_examples=30)
@given(case=cases(max_active_blocks=None, early_stop=False))
def test_the_released_schedule_is_algorithm_2_step_for_step(
    case: Case, tokenizer_folder: Path
) -> None:
    check(case, tokenizer_folder)


@settings(max_examples=50)
@given(case=cases())
def test_cached_decoding_equals_full_recomputation(case: Case, tokenizer_folder: Path) -> None:
    check(case, tokenizer_folder)


@settings(max_examples=15)
@given(
    case=cases(block_size=5, max_new_tokens=83, tau_add=0.2, tau_act=0.8, max_active_blocks=None),
    tau_conf=st.sampled_from([0.4, 0.5]),
)
def test_deep_pipelines_are_exact_too(case: Case, tau_conf: float, tokenizer_folder: Path) -> None:
    config = replace(case.config, tau_conf=tau_conf)
    check(replace(case, config=config), tokenizer_folder)


def test_the_random_models_do_reach_deep_pipelines(tokenizer_folder: Path) -> None:
    """Else the tests above would compare little: four blocks at once, two cached by one step."""
    config = D2FConfig(
        block_size=5, max_new_tokens=83, tau_add=0.2, tau_act=0.8, tau_conf=0.4, early_stop=False
    )
    most_blocks, most_cached, overtaken = 0, 0, 0
    for seed in range(6):
        model, _ = model_of(Case((7, 8, 9), config, True, seed, "rare"), tokenizer_folder)
        for event in stream(model, (7, 8, 9), config):
            states = [block.state for block in event.blocks]
            most_blocks = max(most_blocks, len(states))
            most_cached = max(most_cached, states.count("cached"))
            unfinished = [i for i, block in enumerate(event.blocks) if block.num_masked]
            overtaken += any(states[i] == "completed" for i in range(*unfinished[:1], len(states)))
    assert most_blocks >= 4
    assert most_cached >= 2
    assert overtaken >= 1


@settings(max_examples=25)
@given(case=cases(early_stop=False), frequent=st.booleans())
def test_early_stop_gives_the_same_answer_in_no_more_forwards(
    case: Case, frequent: bool, tokenizer_folder: Path
) -> None:
    case = replace(case, stops="frequent" if frequent else "rare")
    model, _ = model_of(case, tokenizer_folder)
    released = generate(model, case.prompt, case.config)
    early = generate(model, case.prompt, replace(case.config, early_stop=True))
    assert early.token_ids == released.token_ids
    assert early.text == released.text
    assert early.finish_reason == released.finish_reason
    assert early.forwards <= released.forwards
    # The steps before the first stop token are the same ones.
    for ours, theirs in zip(early.events, released.events, strict=False):
        assert ours.commits == theirs.commits
        if any(c.token_id in model.tokenizer.stop_ids for c in ours.commits):
            break
    assert (early.finish_reason == "stop") == (early.token_ids[-1] in model.tokenizer.stop_ids)
    if early.finish_reason == "length":
        assert early.tokens == case.config.max_new_tokens


def test_early_stop_does_save_forwards(tokenizer_folder: Path) -> None:
    saved = 0
    for seed in range(6):
        config = D2FConfig(block_size=8, max_new_tokens=64, tau_conf=0.8, early_stop=False)
        model, _ = model_of(Case((7, 8), config, False, seed, "frequent"), tokenizer_folder)
        early = generate(model, (7, 8), replace(config, early_stop=True))
        saved += generate(model, (7, 8), config).forwards - early.forwards
    assert saved > 0


@settings(max_examples=15)
@given(case=cases(), temperature=st.sampled_from([0.3, 1.0, 4.0]), top_k=st.sampled_from([0, 5]))
def test_sampling_makes_progress_and_repeats_by_seed(
    case: Case, temperature: float, top_k: int, tokenizer_folder: Path
) -> None:
    model, _ = model_of(case, tokenizer_folder)
    config = replace(case.config, temperature=temperature, top_k=top_k, top_p=0.9, seed=case.seed)
    events = list(stream(model, case.prompt, config))
    assert_progress(case, model, events)
    assert_final_rows(case, model.net, events)
    again = [e.commits for e in stream(model, case.prompt, config)]
    assert again == [e.commits for e in events]


def tiny(folder: Path, **settings: Any) -> tuple[Model, D2FConfig]:
    config = D2FConfig(**{"max_new_tokens": 20, "block_size": 8} | settings)
    model, _ = model_of(Case((5,), config, True, 0, "rare"), folder)
    return model, config


def test_another_seed_samples_another_answer(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder, temperature=2.0)
    answers = [
        generate(model, (5, 6, 7), replace(config, seed=seed)).token_ids for seed in range(4)
    ]
    assert len(set(answers)) > 1


EDGE_PROMPTS = [1, 2, 3, 4, 5, 8, 11]


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("length", EDGE_PROMPTS)
@pytest.mark.parametrize("grid", GRIDS)
@settings(max_examples=3)
@given(shift=st.booleans(), seed=st.integers(0, 5))
def test_every_length_of_prompt_meets_every_grid(
    shift: bool, seed: int, grid: str, length: int, size: int, tokenizer_folder: Path
) -> None:
    """A multiple of the block or not, shorter than one, of one token; blocks of one."""
    config = D2FConfig(max_new_tokens=9, block_size=size, tau_conf=0.5, grid=grid)
    check(Case(tuple(range(30, 30 + length)), config, shift, seed, "rare"), tokenizer_folder)


@pytest.mark.parametrize("own", GRIDS)
@pytest.mark.parametrize("asked", GRIDS)
def test_a_grid_that_is_not_the_models_is_refused(
    own: str, asked: str, tokenizer_folder: Path
) -> None:
    config = D2FConfig(max_new_tokens=4, grid=asked)
    model, _ = model_of(Case((5,), replace(config, grid=own), False, 0, "rare"), tokenizer_folder)
    if own == asked:
        assert generate(model, (5, 6), config).tokens == 4
        return
    with pytest.raises(InvalidInput, match=f"^grid must be '{own}', as model 'tiny' was trained"):
        stream(model, (5, 6), config)


@pytest.mark.parametrize("own", ["start", "remainder"])
def test_a_model_of_blocks_is_not_decoded_the_vanilla_way(own: str, tokenizer_folder: Path) -> None:
    config = D2FConfig(max_new_tokens=4, grid=own)
    model, _ = model_of(Case((5,), config, False, 0, "rare"), tokenizer_folder)
    with pytest.raises(InvalidInput, match="decoder 'vanilla' shows every token all others"):
        stream(model, (5, 6), VanillaConfig(max_new_tokens=4))


def test_the_prompt_is_forwarded_once_with_the_first_block(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder)
    events = list(stream(model, tuple(range(20, 31)), config))
    assert events[0].window == (0, 19)
    assert events[0].cache_length == 11
    assert [block.index for block in events[0].blocks] == [1]
    assert all(event.window[0] >= 11 for event in events[1:])


def test_nothing_runs_before_the_first_step_and_nothing_after_close(
    tokenizer_folder: Path,
) -> None:
    model, config = tiny(tokenizer_folder)
    model.net.windows.clear()
    events = stream(model, (5, 6, 7), config)
    assert model.net.windows == []
    next(events)
    next(events)
    assert len(model.net.windows) == 2
    events.close()
    assert list(events) == []
    assert len(model.net.windows) == 2


@pytest.mark.parametrize("grad", [True, False])
def test_grad_and_inference_mode_are_the_callers_between_steps(
    grad: bool, tokenizer_folder: Path
) -> None:
    model, config = tiny(tokenizer_folder)
    with torch.set_grad_enabled(grad):
        for _ in stream(model, (5, 6, 7), config):
            assert torch.is_grad_enabled() is grad
            assert not torch.is_inference_mode_enabled()


def test_two_interleaved_runs_do_not_disturb_each_other(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder, temperature=1.0)
    prompts = (tuple(range(20, 29)), tuple(range(40, 43)))
    alone = [[e.commits for e in stream(model, prompt, config)] for prompt in prompts]
    together: list[list[Any]] = [[], []]
    for pair in zip_longest(*(stream(model, prompt, config) for prompt in prompts)):
        for lane, event in zip(together, pair, strict=True):
            if event is not None:
                lane.append(event.commits)
    assert together == alone


def test_the_seconds_count_only_time_inside_the_decoder(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder)
    list(stream(model, (5, 6), config))
    began = time.perf_counter()
    inside = 0.0
    for event in stream(model, (5, 6), config):
        inside += event.seconds
        time.sleep(0.03)
    elapsed = time.perf_counter() - began
    assert 0 < inside <= elapsed - 0.03 * (event.step + 1)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ((), {}, "prompt_ids must not be empty"),
        ((5, MASK, 6), {}, "prompt_ids must not contain the mask token"),
        ((5, -1), {}, "prompt_ids must be token ids of the model, got -1"),
        ((5, 100_000), {}, "prompt_ids must be token ids of the model, got 100000"),
        ((5,) * 109, {}, "109 tokens and max_new_tokens=20 exceed the model's context of 128"),
    ],
)
def test_what_cannot_be_decoded_is_refused_before_anything_runs(
    prompt: tuple[int, ...], settings: dict[str, Any], message: str, tokenizer_folder: Path
) -> None:
    model, config = tiny(tokenizer_folder, **settings)
    with pytest.raises(ValueError, match=message):
        stream(model, prompt, config)


def test_ids_the_head_has_but_the_tokenizer_has_not_are_refused(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder)
    beyond = model.tokenizer.vocab_size
    assert model.config.vocab_size > beyond
    with pytest.raises(ValueError, match=f"got {beyond}"):
        stream(model, (beyond,), config)


def test_a_context_filled_to_the_last_position_is_decoded(tokenizer_folder: Path) -> None:
    model, config = tiny(tokenizer_folder, tau_conf=0.3)
    trace = generate(model, (5,) * 108, config)
    assert trace.finish_reason in ("stop", "length")
    with pytest.raises(ValueError, match="exceed the model's context"):
        stream(model, (5,) * 108, replace(config, max_new_tokens=21))


@pytest.mark.parametrize("changes", [{"causal": True, "mask_id": MASK}, {"mask_id": None}])
def test_models_that_are_no_diffusion_models_are_refused(
    changes: dict[str, Any], tokenizer: Tokenizer
) -> None:
    model = Model("plain", network(tokenizer.vocab_size, **changes), tokenizer)
    with pytest.raises(ValueError, match="'d2f' needs a diffusion model; 'plain' is not one"):
        stream(model, (5, 6), D2FConfig(max_new_tokens=4))


def test_tokens_the_model_loves_but_must_not_say_are_never_said(tokenizer: Tokenizer) -> None:
    """A head whose largest logit is always the mask id or an id beyond the tokenizer."""
    net = network(tokenizer.vocab_size + 3, mask_id=MASK)
    for forbidden in (MASK, tokenizer.vocab_size, tokenizer.vocab_size + 2):
        # Eight times another row: the largest logit of about half of all hidden states.
        net.lm_head.weight[forbidden] = 8 * net.lm_head.weight[10 + forbidden % 7]
    model = Model("eager", net, tokenizer)
    events = list(stream(model, (7, 8, 9), D2FConfig(block_size=8, max_new_tokens=40)))
    chosen = {c.token_id for event in events for c in event.commits}
    assert MASK not in chosen
    assert max(chosen) < tokenizer.vocab_size
