"""The way in: a config picks its decoder, a stream is lazy, a Trace tells the whole run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import network

from d2f import (
    ARConfig,
    D2FConfig,
    DecodeConfig,
    Model,
    Trace,
    VanillaConfig,
    generate,
    stream,
)
from d2f.config import CONFIGS
from d2f.decode import RULES
from d2f.errors import InvalidInput
from d2f.policy import KINDS
from d2f.tokenizer import Tokenizer

PROMPT = (40, 41, 42)
RUNS: list[DecodeConfig] = [
    D2FConfig(max_new_tokens=12, block_size=4),
    ARConfig(max_new_tokens=12),
    VanillaConfig(max_new_tokens=12),
]


def model_for(config: DecodeConfig, tokenizer: Tokenizer) -> Model:
    causal = isinstance(config, ARConfig)
    net = network(
        tokenizer.vocab_size, causal=causal, mask_id=None if causal else 1, logit_shift=True
    )
    return Model("tiny", net, tokenizer)


def test_every_config_has_its_decoder() -> None:
    names = {"d2f", "ar", "vanilla", "fast-dllm-prefix", "fast-dllm-dual"}
    assert RULES.keys() == KINDS.keys() == CONFIGS.keys() == names


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
def test_generate_is_the_stream_gathered_up(config: DecodeConfig, tokenizer: Tokenizer) -> None:
    model = model_for(config, tokenizer)
    trace = generate(model, PROMPT, config)
    events = list(stream(model, PROMPT, config))
    assert [e.commits for e in trace.events] == [e.commits for e in events]
    assert trace.text == tokenizer.decode(trace.token_ids)
    header = trace.header
    assert header.config == config
    assert header.model == "tiny"
    assert header.device.startswith("cpu (")
    assert header.dtype == "float32"
    assert header.prompt_ids == PROMPT
    assert header.stop_ids == tokenizer.stop_ids
    assert header.versions["torch"] == torch.__version__
    assert Trace.from_json(trace.to_json()) == trace


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
def test_a_list_of_ids_is_not_changed_and_may_be_changed_meanwhile(
    config: DecodeConfig, tokenizer: Tokenizer
) -> None:
    model = model_for(config, tokenizer)
    prompt = list(PROMPT)
    events = stream(model, prompt, config)
    prompt[:] = [200, 201]
    commits = [event.commits for event in events]
    assert prompt == [200, 201]
    assert commits == [event.commits for event in stream(model, PROMPT, config)]


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
def test_commits_hold_plain_numbers(config: DecodeConfig, tokenizer: Tokenizer) -> None:
    for event in stream(model_for(config, tokenizer), PROMPT, config):
        for commit in event.commits:
            kinds = [type(value) for value in vars(commit).values()]
            assert kinds == [int, int, float, bool, tuple]


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
def test_half_precision_models_decode_too(config: DecodeConfig, tokenizer: Tokenizer) -> None:
    model = model_for(config, tokenizer)
    half = Model("tiny", model.net.to(torch.bfloat16), tokenizer)
    trace = generate(half, PROMPT, config)
    assert trace.header.dtype == "bfloat16"
    assert trace.finish_reason in ("stop", "length")
    assert {cache.keys[0].dtype for cache in model.net.caches} <= {torch.bfloat16}


@pytest.mark.parametrize("config", [None, "d2f", {"block_size": 4}])
def test_what_is_no_config_is_refused(config: Any, tokenizer: Tokenizer) -> None:
    model = model_for(RUNS[0], tokenizer)
    with pytest.raises(ValueError, match="config must be one of"):
        stream(model, PROMPT, config)
    with pytest.raises(ValueError, match="config must be one of"):
        generate(model, PROMPT, config)


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize(
    "given",
    [
        list(PROMPT),
        range(40, 43),
        np.array(PROMPT),
        np.array(PROMPT, dtype=np.uint16),
        list(np.array(PROMPT)),
        torch.tensor(PROMPT),
        torch.tensor(PROMPT, dtype=torch.int32),
    ],
    ids=lambda given: f"{type(given).__name__} of {type(given[0]).__name__}",
)
def test_ids_may_come_in_any_row_of_integers(
    config: DecodeConfig, given: Any, tokenizer: Tokenizer
) -> None:
    model = model_for(config, tokenizer)
    trace = generate(model, given, config)
    assert trace.header.prompt_ids == PROMPT
    assert {type(value) for value in trace.header.prompt_ids} == {int}
    assert Trace.from_json(trace.to_json()) == trace
    assert trace.token_ids == generate(model, PROMPT, config).token_ids


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("text", "got a str"),
        (b"text", "got a bytes"),
        (None, "got a NoneType"),
        (7, "got a int"),
        (torch.tensor(7), "got a Tensor"),
        ({40: 41}, "got a dict"),
        ({40, 41}, "got a set"),
        ((i for i in PROMPT), "got a generator"),
        ([list(PROMPT)], "got [40, 41, 42] at 0"),
        (torch.tensor([PROMPT]), "got [40, 41, 42] at 0"),
        (np.array([PROMPT]), "got [40, 41, 42] at 0"),
        ([40, True], "got True at 1"),
        ([np.True_], "got np.True_ at 0"),
        (torch.tensor([True]), "got True at 0"),
        ([40, 41.0], "got 41.0 at 1"),
        (torch.tensor([40.0]), "got 40.0 at 0"),
        ([40, "41"], "got '41' at 1"),
        ([40, None], "got None at 1"),
    ],
)
@pytest.mark.parametrize("call", [stream, generate])
def test_ids_that_are_no_row_of_integers_are_refused_in_words(
    call: Any, given: Any, said: str, tokenizer: Tokenizer
) -> None:
    model = model_for(RUNS[1], tokenizer)
    with pytest.raises(InvalidInput) as raised:
        call(model, given, RUNS[1])
    assert str(raised.value) == f"prompt_ids must be a list of ints, {said}"


@pytest.mark.parametrize("given", [[], (), torch.tensor([], dtype=torch.long), np.array([], int)])
def test_no_ids_are_refused(given: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidInput, match="prompt_ids must not be empty"):
        generate(model_for(RUNS[1], tokenizer), given, RUNS[1])


@pytest.mark.parametrize("config", RUNS, ids=lambda config: type(config).__name__)
def test_numbers_far_too_large_are_refused_in_words(
    config: DecodeConfig, tokenizer: Tokenizer
) -> None:
    model = model_for(config, tokenizer)
    for given in ([2**70], [10**5000]):
        with pytest.raises(InvalidInput, match="prompt_ids must be token ids of the model, got "):
            generate(model, given, config)
    for seed in (2**64, 10**5000):
        with pytest.raises(InvalidInput, match=r"seed must be below 2\*\*64, got "):
            generate(model, PROMPT, replace(config, seed=seed))
    assert generate(model, PROMPT, replace(config, seed=2**64 - 1, temperature=1.0)).tokens > 0
