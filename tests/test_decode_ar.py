"""The autoregressive baseline: transformers' greedy ``generate``, token for token."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sight import causal_ends
from tiny import Watched, as_transformers, network

from d2f import ARConfig, Model, generate, stream
from d2f.tokenizer import Tokenizer

MANY_STOPS = range(5, 5000, 25)


def causal_model(
    tokenizer: Tokenizer, *, seed: int = 0, sharpness: float = 5, **changes: bool
) -> Model:
    net = network(
        tokenizer.vocab_size,
        seed=seed,
        sharpness=sharpness,
        causal=True,
        logit_shift=True,
        **changes,
    )
    return Model("tiny-ar", net, tokenizer)


def greedy_by_transformers(model: Model, prompt: Sequence[int], length: int) -> list[int]:
    output = as_transformers(model.net).generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=length,
        do_sample=False,
        eos_token_id=list(model.tokenizer.stop_ids),
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@settings(max_examples=15)
@given(
    prompt=st.lists(st.integers(0, 260), min_size=1, max_size=40),
    length=st.integers(1, 50),
    seed=st.integers(0, 20),
    switch=st.sampled_from([{}, {"qkv_bias": True}, {"qk_norm": True}]),
    many_stops=st.booleans(),
)
def test_greedy_decoding_equals_transformers_generate(
    prompt: list[int],
    length: int,
    seed: int,
    switch: dict[str, bool],
    many_stops: bool,
    tokenizer_folder: Path,
) -> None:
    tokenizer = Tokenizer(tokenizer_folder, MANY_STOPS if many_stops else ())
    model = causal_model(tokenizer, seed=seed, **switch)
    trace = generate(model, prompt, ARConfig(max_new_tokens=length))
    assert list(trace.token_ids) == greedy_by_transformers(model, prompt, length)
    stopped = trace.token_ids[-1] in tokenizer.stop_ids
    assert trace.finish_reason == ("stop" if stopped else "length")


def test_the_models_above_do_stop_and_do_run_to_the_end(tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer(tokenizer_folder, MANY_STOPS)
    reasons = {
        generate(
            causal_model(tokenizer, seed=seed), (7, 8), ARConfig(max_new_tokens=9)
        ).finish_reason
        for seed in range(12)
    }
    assert reasons == {"stop", "length"}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_decoding_equals_recomputation(temperature: float, tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    prompt = list(range(30, 47))
    config = ARConfig(max_new_tokens=25, temperature=temperature, seed=3)
    events = list(stream(model, prompt, config))
    generator = torch.Generator().manual_seed(3)
    ids = list(prompt)
    for event in events:
        with torch.inference_mode():
            hidden = model.net(torch.tensor([ids]), causal_ends(len(ids)))
            logits = model.net.logits(hidden)[0, -1]
            logits[tokenizer.mask_id] = -torch.inf
            probabilities = logits.softmax(0)
        if temperature:
            token = int(torch.multinomial(probabilities[None], 1, generator=generator))
        else:
            token = int(probabilities.argmax())
        (commit,) = event.commits
        assert (commit.position, commit.token_id, commit.forced) == (len(ids), token, False)
        assert commit.confidence == pytest.approx(float(probabilities[token]), abs=2e-5)
        ids.append(token)
    cache = model.net.caches[-1]
    fresh = model.net.new_cache(len(ids))
    with torch.inference_mode():
        model.net(torch.tensor([ids[:-1]]), causal_ends(len(ids) - 1), fresh)
    for ours, exact in zip(cache.keys + cache.values, fresh.keys + fresh.values, strict=True):
        end = len(ids) - 1  # the last token was never forwarded
        torch.testing.assert_close(ours[:, :, :end], exact[:, :, :end], rtol=0, atol=1e-5)


def test_the_prompt_is_forwarded_once_and_then_one_token_a_step(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    assert isinstance(model.net, Watched)
    model.net.windows.clear()
    events = list(stream(model, (20, 21, 22), ARConfig(max_new_tokens=4)))
    assert [event.window for event in events] == [(0, 3), (3, 4), (4, 5), (5, 6)]
    assert model.net.windows == [event.window for event in events]
    assert [event.cache_length for event in events] == [3, 4, 5, 6]
    assert [event.step for event in events] == [0, 1, 2, 3]
    assert [[c.position for c in event.commits] for event in events] == [[3], [4], [5], [6]]
    assert [event.finish_reason for event in events] == [None, None, None, "length"]
    assert all(event.blocks == () and event.seconds > 0 for event in events)


def test_a_stop_token_on_the_last_allowed_position_is_a_stop(tokenizer_folder: Path) -> None:
    model = causal_model(Tokenizer(tokenizer_folder))
    free = generate(model, (20, 21, 22), ARConfig(max_new_tokens=12)).token_ids
    first = {token: free.index(token) for token in free}
    token = max(first, key=first.__getitem__)  # the one that takes longest to come up
    stopping = Model("tiny", model.net, Tokenizer(tokenizer_folder, [token]))
    trace = generate(stopping, (20, 21, 22), ARConfig(max_new_tokens=first[token] + 1))
    assert trace.finish_reason == "stop"
    assert trace.token_ids == free[: first[token] + 1]
    assert trace.forwards == first[token] + 1
    shorter = generate(stopping, (20, 21, 22), ARConfig(max_new_tokens=first[token]))
    assert shorter.finish_reason == "length"


def test_stop_tokens_in_the_prompt_stop_nothing(tokenizer: Tokenizer) -> None:
    (end,) = tokenizer.stop_ids
    trace = generate(causal_model(tokenizer), (end, 30, end), ARConfig(max_new_tokens=3))
    assert trace.forwards == 3


def test_ids_beyond_the_tokenizer_are_never_chosen(tokenizer: Tokenizer) -> None:
    net = network(tokenizer.vocab_size + 3, causal=True, logit_shift=True)
    net.lm_head.weight[tokenizer.vocab_size + 1] = 8 * net.lm_head.weight[7]
    net.lm_head.weight[tokenizer.vocab_size] = -8 * net.lm_head.weight[7]
    trace = generate(Model("eager", net, tokenizer), (7, 8), ARConfig(max_new_tokens=30))
    assert max(trace.token_ids) < tokenizer.vocab_size


def test_sampling_repeats_by_seed_and_differs_by_seed(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    config = ARConfig(max_new_tokens=12, temperature=1.5)
    answers = [
        generate(model, (7, 8), replace(config, seed=seed)).token_ids for seed in (1, 1, 2, 3)
    ]
    assert answers[0] == answers[1]
    assert len(set(answers)) > 1


def test_closing_ends_the_work(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    model.net.windows.clear()
    events = stream(model, (7, 8), ARConfig(max_new_tokens=9))
    assert model.net.windows == []
    next(events)
    events.close()
    assert list(events) == []
    assert len(model.net.windows) == 1


def test_a_model_that_is_not_causal_is_refused(tokenizer: Tokenizer) -> None:
    model = Model("both-ways", network(tokenizer.vocab_size, mask_id=1), tokenizer)
    with pytest.raises(ValueError, match="'ar' needs a causal model; 'both-ways' is not one"):
        stream(model, (7, 8), ARConfig())


def test_bad_prompts_are_refused_before_anything_runs(tokenizer: Tokenizer) -> None:
    model = causal_model(tokenizer)
    with pytest.raises(ValueError, match="prompt_ids must not be empty"):
        stream(model, (), ARConfig(max_new_tokens=9))
    with pytest.raises(ValueError, match="exceed the model's context of 128 tokens"):
        stream(model, (7,) * 120, ARConfig(max_new_tokens=9))
    assert generate(model, (7,) * 119, ARConfig(max_new_tokens=9)).forwards <= 9
