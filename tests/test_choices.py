"""Pairs by what a machine can do with them, and what to expect of it."""

from dataclasses import replace

import pytest

from d2f.catalogue.choices import DOWNLOADS, GROUPS, RUNS, TOO_LARGE, choices, expected_speed
from d2f.catalogue.pairs import PAIRS, PUBLISHED_PAIRS, Here, pair_memory, pair_repos
from d2f.machine import memory_bandwidth
from d2f.shape import Shape

GB = 1_000_000_000
LAPTOP = Here(device="cpu", free=8 * GB)


def test_a_forward_of_one_row_reads_layers_and_head() -> None:
    shape = Shape(
        vocab_size=100,
        hidden_size=8,
        intermediate_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
    )
    layer = 8 * (8 + 2 * 4) + 8 * 8 + 3 * 8 * 16
    assert shape.step_weights == 2 * layer + 100 * 8
    # A tied head is read as a head.
    assert replace(shape, tied_head=True).step_weights == shape.step_weights


def test_expected_speed_is_bandwidth_over_what_a_token_reads() -> None:
    speed = expected_speed("qwen3-0.6b", "bfloat16", 20e9)
    assert speed == pytest.approx(20e9 / (2 * 595_984_384), rel=1e-3)
    assert expected_speed("qwen3-0.6b", "float32", 20e9) == speed / 2


def test_laptop_pairs_of_half_a_billion_weights_fit_in_8_gb() -> None:
    found = {choice.pair.name: choice for choice in choices(LAPTOP, 20e9)}
    assert found.keys() == PAIRS.keys() | PUBLISHED_PAIRS.keys()
    for name in ("coder-0.5b", "a2d-0.6b"):
        assert found[name].group == DOWNLOADS
        assert pair_memory(PUBLISHED_PAIRS[name]) < 5 * GB
    assert found["mini"].group == RUNS and found["sdar-8b"].group == TOO_LARGE


def test_groups_stand_in_their_order_and_pairs_in_theirs() -> None:
    repos = {repo.id for repo in pair_repos(PUBLISHED_PAIRS["a2d-0.6b"])}
    found = choices(replace(LAPTOP, repos=repos), 20e9)
    groups = [choice.group for choice in found]
    assert groups == sorted(groups, key=GROUPS.index)
    assert [choice.pair.name for choice in found if choice.group == RUNS] == ["mini", "a2d-0.6b"]
    ready = next(choice for choice in found if choice.pair.name == "a2d-0.6b")
    assert (
        ready.text == "ready on the CPU, AR at about 17 tokens/s expected from its memory bandwidth"
    )
    assert ready.expected == expected_speed("qwen3-0.6b", "bfloat16", 20e9)


def test_no_speed_is_told_of_an_unknown_bandwidth() -> None:
    found = choices(Here(device="cuda", free=80 * GB))
    llada = next(choice for choice in found if choice.pair.name == "sdar-8b")
    assert llada.expected is None
    assert llada.text.startswith("runs here on the GPU; needs a download of 33 GB: python -m d2f")


def test_the_memory_of_this_machine_copies_at_a_speed_that_memories_have() -> None:
    assert 1e8 < memory_bandwidth() < 1e13
