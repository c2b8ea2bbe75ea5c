"""Block-diffusion models decode as their originals do: tokens that the originals gave, once.

``block_oracles.json`` was written outside this repository by the originals' own decoding loops over
their own model classes, with the weights of ``tiny.network``: it names repository, commit, settings
and what was changed. Prompts are of every length that matters: of one token, shorter than a block,
a multiple of one, and one more or fewer.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from sight import block_causal_ends
from tiny import Watched, network

from d2f import D2FConfig, Model, generate
from d2f.tokenizer import Tokenizer

ORACLES: dict[str, Any] = json.loads((Path(__file__).parent / "block_oracles.json").read_text())
VOCAB, MASK, STOP, LENGTH, ROWS = 97, 96, 3, 37, (0, 17, 36)


def tiny_network(name: str, seed: int) -> Watched:
    """The network that the original was given the weights of."""
    oracle = ORACLES[name]
    shape: dict[str, Any] = {"qk_norm": True, "head_dim": 20}
    own = {"mask_id": MASK, "grid": oracle["grid"], "block_size": oracle["block_size"]}
    return network(VOCAB, seed=seed, sharpness=8, **shape, **own)


def words(known: int) -> Tokenizer:
    """As much of a tokenizer as decoding asks for: ``known`` tokens, a mask, one stop token."""
    own = {"ids": frozenset(range(known)), "mask_id": MASK, "vocab_size": VOCAB}
    return cast(Tokenizer, SimpleNamespace(**own, stop_ids=(STOP,), decode=lambda ids: ""))


@pytest.mark.parametrize("name", ORACLES)
def test_the_cases_hold_every_edge(name: str) -> None:
    size = ORACLES[name]["block_size"]
    lengths = {len(case["prompt"]) for case in ORACLES[name]["cases"]}
    assert {1, size - 1, size, size + 1, 2 * size, 2 * size + 1} <= lengths
    assert len(ORACLES[name]["cases"]) == 40


@pytest.mark.parametrize("name", ORACLES)
def test_tokens_are_those_of_the_originals_own_loop(name: str) -> None:
    oracle = ORACLES[name]
    models = {
        seed: Model(name, tiny_network(name, seed), words(oracle["tokens_known"]))
        for seed in (0, 1)
    }
    for case in oracle["cases"]:
        config = D2FConfig(
            max_new_tokens=case["max_new_tokens"],
            block_size=oracle["block_size"],
            tau_conf=oracle["tau_conf"],
            grid=oracle["grid"],
            max_active_blocks=1,
        )
        trace = generate(models[case["seed"]], case["prompt"], config)
        assert list(trace.token_ids) == case["tokens"], len(case["prompt"])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", ORACLES)
def test_logits_are_those_of_the_originals_own_class(name: str, seed: int) -> None:
    """Of 37 tokens in blocks of four, without a cache; their standard deviation is 8."""
    net, ids = tiny_network(name, seed), torch.arange(5, 5 + LENGTH)[None]
    with torch.inference_mode():
        logits = net.logits(net(ids, block_causal_ends(0, LENGTH, 0, 4, LENGTH)))[0]
    theirs = torch.tensor(ORACLES[name]["logits"][str(seed)])
    torch.testing.assert_close(logits[list(ROWS), :6], theirs, rtol=0, atol=3e-5)
