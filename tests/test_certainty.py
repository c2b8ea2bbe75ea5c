"""Commit rules on distributions made by hand: what is sure, and what a run of each looks like."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import network

from d2f import D2FConfig, DecodeConfig, Model, VanillaConfig, generate
from d2f.config import COMMIT_RULES
from d2f.decode.commit import best
from d2f.nn.certainty import RULES, Blocks, Memory, Said, divergence, entropy, judge
from d2f.tokenizer import Tokenizer

NEVER = [0.0] * 4  # of ids that cannot be chosen


def said(*rows: list[float], steady: list[int] | None = None) -> Said:
    """What a forward says that gives these probabilities, the likeliest chosen."""
    probabilities = torch.tensor([[*row, *NEVER] for row in rows])
    confidence, tokens = probabilities.max(-1)
    return Said(probabilities.log(), tokens, confidence, torch.tensor(steady or [0] * len(rows)))


def blocks(rows: list[int], force: list[bool]) -> Blocks:
    return Blocks(torch.tensor(rows), torch.tensor(force))


def with_entropies(*nats: float) -> Said:
    """Two tokens a position whose distribution has that entropy, up to ln 2."""
    rows = []
    for wanted in nats:
        low, high = 0.5, 1.0
        for _ in range(60):
            share = (low + high) / 2
            spread = -sum(p * math.log(p) for p in (share, 1 - share) if p)
            low, high = (share, high) if spread > wanted else (low, share)
        rows.append([low, 1 - low])
    return said(*rows)


def sure(rule: str, told: Said, where: Blocks, **values: float) -> list[int]:
    config = D2FConfig(rule=rule, **values)  # type: ignore[arg-type]
    return judge(config, told, where)[0].nonzero()[:, 0].tolist()


def test_there_is_a_function_for_every_rule() -> None:
    assert tuple(RULES) == COMMIT_RULES


def test_entropy_and_divergence_are_those_of_the_textbook() -> None:
    told = said([0.5, 0.5], [1.0, 0.0], [0.25, 0.75])
    assert entropy(told.logits).tolist() == pytest.approx([math.log(2), 0, 0.5623351446])
    earlier = said([0.25, 0.75], [0.5, 0.5], [0.25, 0.75])
    moved = [0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), math.log(2), 0]
    assert divergence(told.logits, earlier.logits).tolist() == pytest.approx(moved, abs=1e-7)


def test_confidence_is_the_share_of_the_chosen_token() -> None:
    told = said([0.5, 0.5], [0.25, 0.75], [0.1, 0.9])
    assert sure("confidence", told, blocks([0] * 3, [True]), tau_conf=0.75) == [2]


def test_entropy_looks_at_the_whole_distribution() -> None:
    # Equally confident; the second spreads the rest over more tokens.
    told = said([0.9, 0.1, 0.0, 0.0], [0.9, 0.04, 0.03, 0.03])
    assert entropy(told.logits).tolist() == pytest.approx([0.3250830, 0.4339730])
    for bound, expected in ((0.3, []), (0.35, [0]), (0.45, [0, 1])):
        assert sure("entropy", told, blocks([0, 0], [False]), max_entropy=bound) == expected


@pytest.mark.parametrize(
    ("nats", "rows", "force", "bound", "expected"),
    [
        # The sum less the largest: in a block that must commit, one more than the bound holds.
        ([0.3, 0.1, 0.2, 0.5], [0] * 4, [True], 0.31, [0, 1, 2]),
        ([0.3, 0.1, 0.2, 0.5], [0] * 4, [True], 0.61, [0, 1, 2, 3]),
        # In one that need not, the whole sum.
        ([0.3, 0.1, 0.2, 0.5], [0] * 4, [False], 0.31, [1, 2]),
        ([0.3, 0.1, 0.2, 0.5], [0] * 4, [False], 0.09, []),
        # A first one beyond the bound is not sure: it is left to force.
        ([0.3, 0.5], [0, 0], [True], 0.2, []),
        # Each block for itself.
        ([0.1, 0.2, 0.1, 0.2], [0, 0, 1, 1], [True, False], 0.15, [0, 1, 2]),
    ],
)
def test_an_entropy_bound_holds_for_what_is_decided_together(
    nats: list[float], rows: list[int], force: list[bool], bound: float, expected: list[int]
) -> None:
    told = with_entropies(*nats)
    assert sure("entropy-bound", told, blocks(rows, force), entropy_bound=bound) == expected


@settings(max_examples=80)
@given(
    own=st.lists(
        st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.booleans()),
        min_size=1,
        max_size=4,
    ),
    bound=st.integers(0, 60),
)
def test_an_entropy_bound_equals_a_plain_loop(
    own: list[tuple[list[int], bool]], bound: int
) -> None:
    """Entropies in sixtieths of a nat; the bound lies between two sums."""
    limit, expected, first = (bound + 0.5) / 60, [], 0
    for spreads, force in own:
        ranked = sorted(range(len(spreads)), key=spreads.__getitem__)
        kept: list[int] = []
        for place in ranked:
            together = [spreads[each] for each in [*kept, place]]
            counted = sum(together) - (max(together) if force and kept else 0)
            if counted / 60 > limit:
                break
            kept.append(place)
        expected += sorted(first + place for place in kept)
        first += len(spreads)
    told = with_entropies(*(each / 60 for spreads, _ in own for each in spreads))
    rows = [row for row, (spreads, _) in enumerate(own) for _ in spreads]
    where = blocks(rows, [force for _, force in own])
    # Equal entropies may stand in any order: compare how many each block keeps, and how sure.
    got = sure("entropy-bound", told, where, entropy_bound=limit)
    nats = [each for spreads, _ in own for each in spreads]
    assert sorted((rows[p], nats[p]) for p in got) == sorted((rows[p], nats[p]) for p in expected)


@pytest.mark.parametrize("rule", ["stability", "klass"])
def test_steadiness_needs_confidence_as_well(rule: str) -> None:
    told = said([0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.9, 0.1], steady=[0, 1, 3, 2])
    where = blocks([0] * 4, [True])
    assert sure(rule, told, where, tau_conf=0.8) == [1, 3]
    assert sure(rule, told, where, tau_conf=0.8, stable_steps=2) == [3]
    assert sure(rule, told, where, tau_conf=0.5, stable_steps=3) == [2]


def test_under_the_rule_best_nothing_is_sure() -> None:
    assert sure("best", said([1.0, 0.0]), blocks([0], [True]), tau_conf=0) == []


def steadiness(config: DecodeConfig, forwards: list[tuple[list[int], Said]]) -> list[list[int]]:
    memory = Memory(config)
    return [
        memory.said(at, now.logits, now.tokens, now.confidence).steady.tolist()
        for at, now in forwards
    ]


def test_a_token_is_stable_while_every_forward_chooses_it() -> None:
    config = D2FConfig(rule="stability")
    forwards = [
        ([5, 6, 7], said([0.6, 0.4], [0.3, 0.7], [0.8, 0.2])),
        # 6 was decided, 8 is new, 7 has changed its mind.
        ([5, 7, 8], said([0.9, 0.1], [0.4, 0.6], [0.9, 0.1])),
        ([5, 7, 8], said([0.9, 0.1], [0.1, 0.9], [0.9, 0.1])),
        ([5, 7], said([0.3, 0.7], [0.3, 0.7])),
    ]
    assert steadiness(config, forwards) == [[0, 0, 0], [1, 0, 0], [2, 1, 1], [0, 2]]


def test_klass_compares_distributions_and_not_only_tokens() -> None:
    forwards = [
        ([5, 6], said([0.6, 0.4], [0.6, 0.4])),
        ([5, 6], said([0.65, 0.35], [0.9, 0.1])),
        ([5, 6], said([0.65, 0.35], [0.9, 0.1])),
    ]
    # KL of 0.65 from 0.6 is 0.00529, of 0.9 from 0.6 is 0.2263.
    assert steadiness(D2FConfig(rule="klass", max_kl=0.0054), forwards)[1:] == [[1, 0], [2, 1]]
    assert steadiness(D2FConfig(rule="klass", max_kl=0.0052), forwards)[1:] == [[0, 0], [1, 1]]
    assert steadiness(D2FConfig(rule="klass", max_kl=0.3), forwards)[1:] == [[1, 1], [2, 2]]


def test_other_rules_compare_no_forwards() -> None:
    forwards = [([5], said([0.9, 0.1]))] * 3
    assert steadiness(D2FConfig(), forwards) == [[0], [0], [0]]


@pytest.mark.parametrize(
    ("rule", "count", "commit", "forced"),
    [
        ("best", 1, [1], []),
        ("best", 2, [1, 3], []),
        ("confidence", 1, [1, 3], []),
        ("confidence", 3, [1, 2, 3], [2]),
        ("confidence", 9, [0, 1, 2, 3], [0, 2]),
        ("stability", 1, [1], [1]),
    ],
)
def test_vanilla_keeps_its_count_and_all_that_is_sure(
    rule: str, count: int, commit: list[int], forced: list[int]
) -> None:
    told = said([0.5, 0.5], [0.05, 0.95], [0.4, 0.6], [0.9, 0.1])
    config = VanillaConfig(rule=rule, tokens_per_step=count, tau_conf=0.8)
    kept, by_force = best(None, config, told)  # type: ignore[arg-type]
    assert kept.nonzero()[:, 0].tolist() == commit
    assert by_force.nonzero()[:, 0].tolist() == forced


@pytest.fixture
def model(tokenizer: Tokenizer) -> Model:
    return Model("tiny", network(tokenizer.vocab_size, mask_id=1), tokenizer)


@pytest.mark.parametrize("rule", COMMIT_RULES)
@pytest.mark.parametrize(
    "config",
    [
        D2FConfig(block_size=4, max_new_tokens=24, tau_conf=0.5),
        D2FConfig(block_size=4, max_new_tokens=24, tau_conf=1, max_entropy=0, entropy_bound=0),
        VanillaConfig(block_size=6, max_new_tokens=24, tau_conf=0.5),
        VanillaConfig(max_new_tokens=24, tau_conf=1, max_kl=0, stable_steps=9),
    ],
)
def test_every_step_decides_something_under_every_rule(
    model: Model, config: D2FConfig | VanillaConfig, rule: str
) -> None:
    trace = generate(model, [40, 41, 42, 43, 44], replace(config, rule=rule))
    assert trace.finish_reason in ("stop", "length")
    assert all(event.commits for event in trace.events)
    for event in trace.events:
        by_force = [commit.position for commit in event.commits if commit.forced]
        if isinstance(config, D2FConfig):
            assert all(b // 4 != a // 4 for a, b in pairwise(p - 5 for p in by_force))
    if rule == "best" and isinstance(config, VanillaConfig):
        assert trace.forwards == 24
        assert not any(c.forced for e in trace.events for c in e.commits)


def test_a_threshold_that_nothing_passes_leaves_one_token_a_step(model: Model) -> None:
    """Fast-dLLM's parallel decoding falls back to the single best, in the same order as without."""
    plain = VanillaConfig(block_size=6, max_new_tokens=24)
    alone = generate(model, [40, 41], replace(plain, rule="confidence", tau_conf=1))
    assert alone.canvas == generate(model, [40, 41], plain).canvas
    assert alone.forwards == 24
    faster = generate(model, [40, 41], replace(plain, rule="confidence", tau_conf=0.3))
    assert faster.forwards < 24
    for event in faster.events:
        assert [c.forced for c in event.commits] == [c.confidence <= 0.3 for c in event.commits]
