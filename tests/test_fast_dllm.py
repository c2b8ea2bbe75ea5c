"""Fast-dLLM's caches against a slow reading of the paper, and its authors' own code."""

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import Watched, as_transformers, network
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from d2f import Model, generate, stream
from d2f.config import CONFIGS, FastDualConfig, FastPrefixConfig, VanillaConfig
from d2f.decode.common import how_it_runs

MASK, VOCAB = 1, 64
SAID = json.loads((Path(__file__).parent / "originals_say" / "fast_dllm.json").read_text())
TOKENIZER: Any = SimpleNamespace(
    vocab_size=VOCAB, ids=set(range(VOCAB)), mask_id=MASK, stop_ids=(), decode=str
)


@cache
def models(shift: bool, seed: int) -> tuple[Watched, PreTrainedModel]:
    net = network(VOCAB, seed=seed, mask_id=MASK, logit_shift=shift, qkv_bias=shift)
    return net, as_transformers(net)


def rows_of(
    reference: PreTrainedModel, x: list[int], window: range, kept: DynamicCache | None
) -> tuple[Tensor, DynamicCache]:
    """Logits of a window that sees itself and all kept keys, and the keys it leaves."""
    length = kept.get_seq_length() if kept else 0
    seen = torch.ones(1, 1, len(window), length + len(window), dtype=torch.bool)
    with torch.inference_mode():
        out = reference(
            input_ids=torch.tensor([[x[p] for p in window]]),
            attention_mask=seen,
            position_ids=torch.tensor([list(window)]),
            past_key_values=kept or DynamicCache(),
            use_cache=True,
        )
    return out.logits[0], out.past_key_values


def without(kept: DynamicCache, gone: range) -> DynamicCache:
    """The kept keys and values of all other positions; rotated, so their order does not matter."""
    rest = DynamicCache()
    for number, layer in enumerate(kept.layers):
        both = (layer.keys, layer.values)
        parts = [torch.cat((t[:, :, : gone.start], t[:, :, gone.stop :]), 2) for t in both]
        rest.update(*parts, number)
    return rest


def slow(
    reference: PreTrainedModel, prompt: list[int], config: FastPrefixConfig, dual: bool, shift: bool
) -> tuple[list[dict[int, int]], float]:
    """What each step keeps, and the narrowest decision."""
    x = prompt + [MASK] * config.max_new_tokens
    size = config.block_size
    steps, margin = [], 1.0
    for begin in range(len(prompt), len(x), size):
        block = range(begin, min(begin + size, len(x)))
        whole, kept = rows_of(reference, x, range(len(x)), None)
        logits = dict(enumerate(whole))
        while True:
            choices = {}
            for position in (p for p in block if x[p] == MASK):
                row = logits[position - shift].clone()
                row[MASK] = -torch.inf
                row[VOCAB:] = -torch.inf
                best = row.softmax(0).topk(2)
                margin = min(margin, float(best.values[0] - best.values[1]))
                choices[position] = (float(best.values[0]), int(best.indices[0]))
            ranked = sorted(choices, key=lambda p: -choices[p][0])  # noqa: B023
            sure = [p for p in ranked if choices[p][0] > config.tau_conf]
            margin = min([margin, *(abs(choices[p][0] - config.tau_conf) for p in ranked)])
            if len(ranked) > 1:
                margin = min(margin, choices[ranked[0]][0] - choices[ranked[1]][0])
            steps.append({p: choices[p][1] for p in sure or ranked[:1]})
            for position, token in steps[-1].items():
                x[position] = token
            if MASK not in (x[p] for p in block):
                break
            window = block if dual else range(begin, len(x))
            told, _ = rows_of(reference, x, window, without(kept, window))
            logits |= dict(zip(window, told, strict=True))
    return steps, margin


@pytest.mark.filterwarnings("ignore:.*past_key_values.*:FutureWarning")  # renamed in 5.x
@settings(max_examples=30)
@given(
    prompt=st.lists(st.integers(2, VOCAB - 1), min_size=1, max_size=9),
    length=st.integers(1, 20),
    block_size=st.integers(1, 9),
    tau_conf=st.sampled_from([0.3, 0.6, 0.9, 1.0]),
    dual=st.booleans(),
    shift=st.booleans(),
    seed=st.integers(0, 3),
)
def test_every_step_keeps_what_a_slow_loop_keeps(
    prompt: list[int],
    length: int,
    block_size: int,
    tau_conf: float,
    dual: bool,
    shift: bool,
    seed: int,
) -> None:
    net, reference = models(shift, seed)
    kind = FastDualConfig if dual else FastPrefixConfig
    config = kind(max_new_tokens=length, block_size=block_size, tau_conf=tau_conf)
    expected, margin = slow(reference, prompt, config, dual, shift)
    assume(margin > 1e-4)
    events = list(stream(Model("tiny", net, TOKENIZER), prompt, config))
    assert [{c.position: c.token_id for c in e.commits} for e in events] == expected
    for event in events:
        forced = [c.confidence <= tau_conf for c in event.commits]
        assert [c.forced for c in event.commits] == forced


@pytest.mark.parametrize("case", SAID["cases"], ids=lambda c: f"{c['decoder']}-{c['seed']}")
def test_every_step_is_that_of_the_released_code(case: dict[str, Any]) -> None:
    net = network(VOCAB, seed=case["seed"], sharpness=case["sharpness"], mask_id=MASK)
    threshold = case["threshold"]
    rule = {"rule": "best"} if threshold is None else {"rule": "confidence", "tau_conf": threshold}
    kind = CONFIGS[case["decoder"]]
    config = kind(max_new_tokens=case["length"], block_size=case["block"], **rule)
    events = list(stream(Model("tiny", net, TOKENIZER), case["prompt"], config))
    for event, step in zip(events, case["steps"], strict=True):
        assert [[c.position, c.token_id] for c in event.commits] == [row[:2] for row in step]
        sure = [c.confidence for c in event.commits]
        assert sure == pytest.approx([row[2] for row in step], abs=1e-5)


@pytest.mark.parametrize(("kind", "end"), [(FastPrefixConfig, 11), (FastDualConfig, 7)])
def test_a_block_begins_with_a_forward_of_the_whole_canvas(
    kind: type[VanillaConfig], end: int
) -> None:
    net = network(VOCAB, mask_id=MASK)
    config = kind(max_new_tokens=8, block_size=4, rule="best", tokens_per_step=2)
    trace = generate(Model("tiny", net, TOKENIZER), [5, 6, 7], config)
    # Two tokens a step: two forwards a block of four, one with the whole canvas.
    told = [event.window for event in trace.events]
    assert told == [(0, 11), (3, end), (0, 11), (7, 11)]
    assert [event.cache_length for event in trace.events] == [3, 3, 7, 7]
    assert [cache.capacity for cache in net.caches] == [11]
    assert trace.finish_reason == "length"


def test_nothing_is_stale_where_a_block_is_decided_at_once() -> None:
    """Then every forward is of the whole canvas, as vanilla diffusion's are."""
    net = network(VOCAB, mask_id=MASK)
    model = Model("tiny", net, TOKENIZER)
    values = {"max_new_tokens": 12, "block_size": 4, "rule": "confidence", "tau_conf": 0}
    traces = [generate(model, [5, 6], CONFIGS[name](**values)) for name in list(CONFIGS)[2:]]
    assert len(traces) == 3
    assert len({tuple(trace.token_ids) for trace in traces}) == 1
    assert [trace.forwards for trace in traces] == [3, 3, 3]


@pytest.mark.parametrize("kind", [FastPrefixConfig, FastDualConfig])
def test_held_tokens_stay_and_are_seen(kind: type[VanillaConfig]) -> None:
    model = Model("tiny", network(VOCAB, mask_id=MASK), TOKENIZER)
    config = kind(max_new_tokens=12, block_size=4)
    trace = generate(model, [5, 6], config, hold={0: 9, 5: 10, 6: 11, 7: 12, 4: 13})
    assert [trace.token_ids[place] for place in (0, 4, 5, 6, 7)] == [9, 13, 10, 11, 12]
    decided = {c.position - 2 for event in trace.events for c in event.commits}
    assert decided == {1, 2, 3, 8, 9, 10, 11}


def test_they_run_eagerly_and_say_so() -> None:
    model = Model("tiny", network(VOCAB, mask_id=MASK), TOKENIZER)
    assert how_it_runs(model, FastDualConfig())["forward"] == "eager"
