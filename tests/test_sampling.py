"""From logits to decisions: what may be chosen, how surely, and which positions commit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2f.config import ARConfig, DecodeConfig
from d2f.nn.sampling import choose, forbid, select, truncate

GREEDY = ARConfig()


def never(*forbidden: int) -> torch.Tensor:
    return torch.tensor([bool(each) for each in forbidden])


def test_what_is_forbidden_is_never_chosen() -> None:
    logits = torch.tensor([[1.0, 50.0, 2.0, 40.0, 60.0], [0.0, 9.0, -3.0, 0.0, 0.0]])
    assert forbid(logits.clone(), never(0, 1, 0, 1, 1))[0].tolist() == [
        [1.0, -torch.inf, 2.0, -torch.inf, -torch.inf],
        [0.0, -torch.inf, -3.0, -torch.inf, -torch.inf],
    ]
    for temperature in (0.0, 0.5, 10.0):
        config = ARConfig(temperature=temperature)
        allowed, _ = forbid(logits.repeat(200, 1), never(0, 1, 0, 1, 1))
        tokens, confidence = choose(allowed, config, torch.Generator().manual_seed(0))
        assert set(tokens.tolist()) <= {0, 2}
        assert (confidence > 0).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_counts_only_where_it_could_be_chosen(bad: float) -> None:
    damaged = torch.tensor([[1.0, 5.0, 2.0, 9.0]]).repeat(5, 1)
    for row in range(4):
        damaged[row, row] = bad
    allowed, finite = forbid(damaged.clone(), never(0, 1, 0, 1))
    assert finite.tolist() == [False, True, False, True, True]
    assert allowed[[1, 3, 4]].tolist() == [[1.0, -torch.inf, 2.0, -torch.inf]] * 3
    assert forbid(damaged, never(0, 0, 0, 0))[1].tolist() == [False] * 4 + [True]


def test_half_precision_logits_are_judged_in_float32() -> None:
    logits = torch.tensor([[8.0, 0.0, 0.0]], dtype=torch.bfloat16)
    allowed, _ = forbid(logits, never(0, 0, 0))
    assert allowed.dtype == torch.float32
    _, confidence = choose(allowed, GREEDY, None)
    # In bfloat16 this would be 1 exactly.
    assert confidence.item() == pytest.approx(0.99932952, abs=1e-7)


def test_greedy_takes_the_most_probable_token_with_its_own_probability() -> None:
    logits = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]).log()
    tokens, confidence = choose(logits, GREEDY, None)
    assert tokens.tolist() == [1, 0]
    assert confidence.tolist() == pytest.approx([0.7, 0.5])


@pytest.mark.parametrize(
    "config",
    [
        ARConfig(temperature=0.2),
        ARConfig(temperature=3.0),
        ARConfig(temperature=1.0, top_k=2),
        ARConfig(temperature=1.0, top_p=0.6),
        ARConfig(temperature=2.0, top_k=3, top_p=0.5),
    ],
)
def test_confidence_is_the_models_own_whatever_shapes_the_sampling(config: DecodeConfig) -> None:
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3])
    logits = probabilities.log().repeat(300, 1)
    tokens, confidence = choose(logits, config, torch.Generator().manual_seed(1))
    torch.testing.assert_close(confidence, probabilities[tokens])


def test_temperature_shapes_the_choice() -> None:
    probabilities = torch.tensor([0.8, 0.2])
    logits = probabilities.log().repeat(4000, 1)
    for temperature in (0.5, 1.0, 2.0):
        config = ARConfig(temperature=temperature)
        tokens, _ = choose(logits, config, torch.Generator().manual_seed(2))
        shaped = probabilities ** (1 / temperature)
        expected = float(shaped[1] / shaped.sum())
        assert tokens.float().mean().item() == pytest.approx(expected, abs=0.03)


def test_the_same_seed_chooses_the_same_tokens() -> None:
    logits = torch.randn(50, 20, generator=torch.Generator().manual_seed(3))
    config = ARConfig(temperature=1.0)
    runs = [
        choose(logits, config, torch.Generator().manual_seed(seed))[0].tolist()
        for seed in (7, 7, 8)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def brute_force_kept(probabilities: list[float], top_k: int, top_p: float) -> set[int]:
    """Take tokens from the best on until ``top_p`` is reached, among the ``top_k`` best."""
    ranked = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    if top_k:
        ranked = ranked[:top_k]
    mass = sum(probabilities[i] for i in ranked)
    kept, total = set(), 0.0
    for token in ranked:
        if total >= top_p:
            break
        kept.add(token)
        total += probabilities[token] / mass
    return kept


@settings(max_examples=150)
@given(
    weights=st.lists(st.integers(1, 10_000), min_size=1, max_size=12, unique=True),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.01, 1.0),
)
def test_top_k_and_top_p_keep_what_brute_force_keeps(
    weights: list[int], top_k: int, top_p: float
) -> None:
    probabilities = [weight / sum(weights) for weight in weights]
    expected = brute_force_kept(probabilities, top_k, top_p)
    # A border within rounding error may fall either way.
    if expected != brute_force_kept(probabilities, top_k, top_p - 1e-5):
        return
    if expected != brute_force_kept(probabilities, top_k, top_p + 1e-5) and top_p < 1:
        return
    logits = torch.tensor([probabilities, probabilities[::-1]]).log()
    kept = truncate(logits, top_k, top_p).isfinite()
    assert set(kept[0].nonzero()[:, 0].tolist()) == expected
    mirrored = {len(weights) - 1 - token for token in expected}
    assert set(kept[1].nonzero()[:, 0].tolist()) == mirrored


def test_top_k_of_zero_or_of_everything_keeps_everything() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    for top_k in (0, 3, 4, 1000):
        assert torch.equal(truncate(logits, top_k, 1.0), logits)


def test_truncation_leaves_the_logits_it_keeps_as_they_were() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    kept = truncate(logits, 2, 1.0)
    assert kept.tolist() == [[3.0, -torch.inf, 2.0, -torch.inf]]
    assert logits.tolist() == [[3.0, 1.0, 2.0, 0.0]]


def test_the_tiniest_top_p_keeps_the_best_token() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0]])
    assert truncate(logits, 0, 1e-9).isfinite().tolist() == [[False, True, False]]


def test_the_token_that_crosses_top_p_is_kept_and_the_next_is_not() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert truncate(logits, 0, 0.5).isfinite().tolist() == [[True, False, False, False]]
    assert truncate(logits, 0, 0.51).isfinite().tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("config", [{"top_k": 1}, {"top_p": 1e-6}])
def test_sampling_from_one_token_is_greedy(config: dict[str, float]) -> None:
    logits = torch.randn(30, 9, generator=torch.Generator().manual_seed(4))
    greedy, _ = choose(logits, GREEDY, None)
    settings = ARConfig(temperature=5.0, **config)  # type: ignore[arg-type]
    sampled, _ = choose(logits, settings, torch.Generator().manual_seed(5))
    assert sampled.tolist() == greedy.tolist()


@pytest.mark.parametrize(
    ("confidence", "rows", "force", "tau", "commit", "forced"),
    [
        # Strictly above the threshold: exactly 0.5 is not confident.
        ([0.5, 0.75, 0.25], [0, 0, 0], [False], 0.5, [1], []),
        # Nothing above it: a semi-activated block commits nothing, a fully activated one its best.
        ([0.5, 0.25, 0.375], [0, 0, 0], [False], 0.5, [], []),
        ([0.25, 0.5, 0.375], [0, 0, 0], [True], 0.5, [1], [1]),
        # Something above it: nothing is forced.
        ([0.25, 0.75, 0.375], [0, 0, 0], [True], 0.5, [1], []),
        # Ties: the first.
        ([0.25, 0.375, 0.375, 0.375], [0, 0, 0, 0], [True], 0.5, [1], [1]),
        # Each block for itself; the best of all is not the best of each.
        ([0.25, 0.125, 0.375, 0.4375], [0, 0, 1, 1], [True, True], 0.5, [0, 3], [0, 3]),
        ([0.25, 0.125, 0.375, 0.4375], [0, 0, 1, 1], [True, False], 0.5, [0], [0]),
        ([0.25, 0.125, 0.75, 0.4375], [0, 0, 1, 1], [True, True], 0.5, [0, 2], [0]),
        ([0.75, 0.875, 0.25, 0.125], [0, 0, 1, 1], [True, True], 0.5, [0, 1, 2], [2]),
        ([0.75, 0.25, 0.375], [0, 1, 2], [True, False, True], 0.5, [0, 2], [2]),
        # Thresholds at both ends.
        ([1.0, 1.0], [0, 0], [True], 1.0, [0], [0]),
        ([0.001, 1.0], [0, 0], [False], 0.0, [0, 1], []),
        # Certainty of zero can still be forced.
        ([0.0, 0.0], [0, 0], [True], 0.5, [0], [0]),
    ],
)
def test_positions_commit_by_confidence_or_by_force(
    confidence: list[float],
    rows: list[int],
    force: list[bool],
    tau: float,
    commit: list[int],
    forced: list[int],
) -> None:
    told = torch.tensor(confidence)
    chosen, by_force = select(told > tau, told, torch.tensor(rows), torch.tensor(force))
    assert chosen.nonzero()[:, 0].tolist() == commit
    assert by_force.nonzero()[:, 0].tolist() == forced


@settings(max_examples=100)
@given(
    blocks=st.lists(
        st.tuples(st.lists(st.integers(0, 16), min_size=1, max_size=6), st.booleans()),
        min_size=1,
        max_size=5,
    ),
    tau=st.integers(0, 16),
)
def test_selection_equals_a_plain_loop(blocks: list[tuple[list[int], bool]], tau: int) -> None:
    """Sixteenths, so that ties and exact equality are common."""
    confidence, rows, expected, expected_forced = [], [], [], []
    for row, (sixteenths, force) in enumerate(blocks):
        first = len(confidence)
        confidence += [value / 16 for value in sixteenths]
        rows += [row] * len(sixteenths)
        sure = [first + i for i, value in enumerate(sixteenths) if value > tau]
        if force and not sure:
            best = first + sixteenths.index(max(sixteenths))
            expected_forced.append(best)
            sure = [best]
        expected += sure
    force = torch.tensor([force for _, force in blocks])
    told = torch.tensor(confidence)
    chosen, forced = select(told > tau / 16, told, torch.tensor(rows), force)
    assert chosen.nonzero()[:, 0].tolist() == expected
    assert forced.nonzero()[:, 0].tolist() == expected_forced
