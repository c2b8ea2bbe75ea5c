"""Low-confidence remasking against a slow reading of LLaDA's Algorithm 5."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import Watched, as_transformers, network
from transformers import PreTrainedModel

from d2f import Model, VanillaConfig, generate, stream
from d2f.tokenizer import Tokenizer

MASK = 1


@cache
def models(vocab_size: int, shift: bool, seed: int) -> tuple[Watched, PreTrainedModel]:
    net = network(vocab_size + 16, seed=seed, logit_shift=shift, mask_id=MASK, qkv_bias=shift)
    return net, as_transformers(net)


def slow_remasking(
    reference: PreTrainedModel,
    prompt: list[int],
    *,
    shift: bool,
    vocab_size: int,
    length: int,
    block_size: int,
    tokens_per_step: int,
) -> tuple[list[dict[int, tuple[int, float]]], float]:
    """What each step keeps: {position: (token, confidence)}; and the narrowest decision.

    Block after block, from the left: predict every masked position of the block, keep the
    predictions with the highest probability, mask the others again.
    """
    x = prompt + [MASK] * length
    steps, margin = [], 1.0
    for begin in range(len(prompt), len(x), block_size):
        block = range(begin, min(begin + block_size, len(x)))
        while any(x[position] == MASK for position in block):
            with torch.inference_mode():
                logits = reference(
                    input_ids=torch.tensor([x]),
                    attention_mask=torch.ones(1, 1, len(x), len(x), dtype=torch.bool),
                    use_cache=False,
                ).logits[0]
            predictions = []
            for position in block:
                if x[position] == MASK:
                    row = logits[position - 1 if shift else position].clone()
                    row[MASK] = -torch.inf
                    row[vocab_size:] = -torch.inf
                    best = row.softmax(0).topk(2)
                    margin = min(margin, float(best.values[0] - best.values[1]))
                    predictions.append((float(best.values[0]), position, int(best.indices[0])))
            predictions.sort(reverse=True)
            kept, remasked = predictions[:tokens_per_step], predictions[tokens_per_step:]
            if remasked:
                margin = min(margin, kept[-1][0] - remasked[0][0])
            for _, position, token in kept:
                x[position] = token
            steps.append({position: (token, sure) for sure, position, token in kept})
    return steps, margin


@settings(max_examples=15)
@given(
    prompt=st.lists(st.integers(2, 260), min_size=1, max_size=20),
    length=st.integers(1, 24),
    block_size=st.none() | st.integers(1, 30),
    tokens_per_step=st.integers(1, 5),
    shift=st.booleans(),
    seed=st.integers(0, 3),
)
def test_every_step_keeps_what_a_slow_loop_keeps(
    prompt: list[int],
    length: int,
    block_size: int | None,
    tokens_per_step: int,
    shift: bool,
    seed: int,
    tokenizer: Tokenizer,
) -> None:
    net, reference = models(tokenizer.vocab_size, shift, seed)
    expected, margin = slow_remasking(
        reference,
        prompt,
        shift=shift,
        vocab_size=tokenizer.vocab_size,
        length=length,
        block_size=block_size or length,
        tokens_per_step=tokens_per_step,
    )
    assume(margin > 1e-4)
    config = VanillaConfig(
        max_new_tokens=length, block_size=block_size, tokens_per_step=tokens_per_step
    )
    events = list(stream(Model("tiny", net, tokenizer), prompt, config))
    assert [event.step for event in events] == list(range(len(expected)))
    for event, step in zip(events, expected, strict=True):
        assert {c.position: c.token_id for c in event.commits} == {
            position: token for position, (token, _) in step.items()
        }
        positions = [c.position for c in event.commits]
        assert positions == sorted(positions)
        for commit in event.commits:
            assert commit.confidence == pytest.approx(step[commit.position][1], abs=2e-5)
            assert not commit.forced
        assert event.window == (0, len(prompt) + length)
        assert event.blocks == ()
        assert event.cache_length == 0
        assert event.seconds > 0
    assert [event.finish_reason for event in events[:-1]] == [None] * (len(events) - 1)
    answer = {c.token_id for event in events for c in event.commits}
    stopped = bool(answer & set(tokenizer.stop_ids))
    assert events[-1].finish_reason == ("stop" if stopped else "length")


def tiny(tokenizer: Tokenizer) -> Model:
    return Model("tiny", models(tokenizer.vocab_size, True, 0)[0], tokenizer)


@pytest.mark.parametrize(
    ("settings", "forwards"),
    [
        ({}, 20),
        ({"tokens_per_step": 3}, 7),
        ({"tokens_per_step": 50}, 1),
        ({"block_size": 8}, 20),
        ({"block_size": 8, "tokens_per_step": 3}, 3 + 3 + 2),
        ({"block_size": 8, "tokens_per_step": 8}, 3),
        ({"block_size": 1, "tokens_per_step": 4}, 20),
    ],
)
def test_the_number_of_forwards_is_known_beforehand(
    settings: dict[str, int], forwards: int, tokenizer: Tokenizer
) -> None:
    config = VanillaConfig(max_new_tokens=20, **settings)
    assert generate(tiny(tokenizer), (5, 6, 7), config).forwards == forwards


def test_blocks_are_finished_from_left_to_right(tokenizer: Tokenizer) -> None:
    config = VanillaConfig(max_new_tokens=20, block_size=8)
    positions = [e.commits[0].position for e in stream(tiny(tokenizer), (5, 6, 7), config)]
    assert sorted(positions[:8]) == list(range(3, 11))
    assert sorted(positions[8:16]) == list(range(11, 19))
    assert sorted(positions[16:]) == list(range(19, 23))
    # And inside a block in the order of confidence.
    assert positions[:8] != list(range(3, 11))


def test_it_runs_to_the_end_of_the_canvas_wherever_the_answer_stops(
    tokenizer_folder: Path,
) -> None:
    tokenizer = Tokenizer(tokenizer_folder, range(5, 5000, 3))
    trace = generate(tiny(tokenizer), (5, 6, 7), VanillaConfig(max_new_tokens=20))
    assert trace.finish_reason == "stop"
    assert trace.forwards == 20
    assert trace.tokens < 20
    assert len(trace.canvas) == 20


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_neither_the_mask_nor_an_id_beyond_the_tokenizer_is_ever_kept(
    temperature: float, tokenizer: Tokenizer
) -> None:
    net = network(tokenizer.vocab_size + 3, mask_id=MASK)
    for forbidden in (MASK, tokenizer.vocab_size, tokenizer.vocab_size + 2):
        net.lm_head.weight[forbidden] = 8 * net.lm_head.weight[10 + forbidden % 7]
    config = VanillaConfig(max_new_tokens=40, tokens_per_step=4, temperature=temperature)
    trace = generate(Model("eager", net, tokenizer), (7, 8, 9), config)
    assert MASK not in trace.canvas.values()
    assert max(trace.canvas.values()) < tokenizer.vocab_size


def test_sampling_repeats_by_seed_and_differs_by_seed(tokenizer: Tokenizer) -> None:
    config = VanillaConfig(max_new_tokens=12, temperature=2.0, tokens_per_step=2)
    answers = [
        generate(tiny(tokenizer), (7, 8), replace(config, seed=seed)).canvas for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_closing_ends_the_work(tokenizer: Tokenizer) -> None:
    model = tiny(tokenizer)
    model.net.windows.clear()
    events = stream(model, (7, 8), VanillaConfig(max_new_tokens=9))
    assert model.net.windows == []
    next(events)
    events.close()
    assert list(events) == []
    assert model.net.windows == [(0, 11)]


@pytest.mark.parametrize("changes", [{"causal": True, "mask_id": MASK}, {"mask_id": None}])
def test_models_that_are_no_diffusion_models_are_refused(
    changes: dict[str, object], tokenizer: Tokenizer
) -> None:
    model = Model("plain", network(tokenizer.vocab_size, **changes), tokenizer)
    with pytest.raises(ValueError, match="'vanilla' needs a diffusion model; 'plain' is not one"):
        stream(model, (5, 6), VanillaConfig(max_new_tokens=4))


def test_bad_prompts_are_refused_before_anything_runs(tokenizer: Tokenizer) -> None:
    model = tiny(tokenizer)
    with pytest.raises(ValueError, match="prompt_ids must not contain the mask token"):
        stream(model, (5, MASK), VanillaConfig(max_new_tokens=9))
    with pytest.raises(ValueError, match="prompt_ids must not be empty"):
        stream(model, (), VanillaConfig(max_new_tokens=9))
    with pytest.raises(ValueError, match="exceed the model's context of 128 tokens"):
        stream(model, (7,) * 120, VanillaConfig(max_new_tokens=9))
